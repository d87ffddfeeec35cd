"""The pages: their links lead somewhere, and what they say of the rooms is so."""

import ast
import re
from pathlib import Path

import pytest

from tests.study import ROOT
from tests.test_rooms import MAY_KNOW, modules
from tuner.cli import HELP

PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")})
ROOMS = {folder.name for folder in (ROOT / "tuner").iterdir() if (folder / "__init__.py").exists()}


def prose(page: Path) -> str:
    """What is not code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link, as GitHub has it."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or not file.is_relative_to(ROOT) or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_that_is_named_exists(page: Path) -> None:
    """Those written as code, with a folder of ours: `tuner/figures.py`."""
    named = re.findall(r"`((?:tuner|plugins|conf|tests|benchmarks|docs|search_spaces)/[\w/.-]+)`", prose(page))
    assert not [name for name in named if not (ROOT / name).exists() and "NAME" not in name]


def test_the_readme_is_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


def test_the_readme_has_every_room() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\(tuner/(\w+)/\) \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert {room for room, _ in listed} == {folder for _, folder in listed} == ROOMS


def test_the_drawing_of_the_rooms_is_as_their_imports_may_be() -> None:
    drawing, _ = re.findall(r"```mermaid\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), flags=re.DOTALL)
    arrows = [(one, other) for one, other in re.findall(r"(\w+) --> (\w+)", drawing) if other != "ground"]
    assert {room for arrow in arrows for room in arrow} == ROOMS | {"nouns", "errors", "plugins"}
    assert not [(one, other) for one, other in arrows if other not in MAY_KNOW[one]]


def test_concepts_has_every_doubt() -> None:
    calls = [
        node for _, file in modules() for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)
    ]
    raised = [
        call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Doubt" and call.args
    ]
    names = {name.value for name in raised if isinstance(name, ast.Constant)}
    _, _, table = (ROOT / "docs/concepts.md").read_text().partition("\nA doubt:\n")
    listed = re.findall(r"^\| `(\w+)` \|", table.partition("\nA finding:\n")[0], flags=re.MULTILINE)
    assert len(listed) == len(set(listed)) and set(listed) == names


@pytest.mark.parametrize("group", ["target", "model", "dataset", "search_space", "sampler", "executor", "tracking"])
def test_help_has_every_yaml(group: str) -> None:
    folder = ROOT / ("search_spaces" if group == "search_space" else f"conf/{group}")
    entry = re.search(rf"^  {group} .*\n(?:   .*\n)*", HELP, flags=re.MULTILINE)
    assert entry is not None
    assert {file.stem for file in folder.glob("*.yaml")} <= set(re.findall(r"\w+", entry.group()))
