"""The rooms of the house: who may know whom. Imports are read from the source, those inside functions too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import study
from tuner.catalog import members, values
from tuner.device import Device
from tuner.model import Form

NOUNS = {
    "artifact", "candidate", "catalog", "dataset", "device", "fidelity", "figures", "goal", "judging", "measurement",
    "metrics", "model", "operators", "plugin", "pool", "proxy", "records", "result", "roles", "structured", "tables",
    "target", "task", "tensors", "trial", "truth", "verdict", "workload",
}  # fmt: skip
GROUND = {"errors", "system"}
LOWER = GROUND | {"nouns", "forms"}
EVALUATING = LOWER | {"build", "measure", "evaluate"}
RECORDING = {"request", "report", "tracking", "deploy"}
STUDYING = EVALUATING | RECORDING | {"search", "decide", "champions", "executors"}
MAY_KNOW = {
    "errors": set[str](),
    "system": {"errors"},
    "nouns": GROUND,
    "forms": GROUND | {"nouns"},
    "plugins": LOWER,
    "build": LOWER,
    "measure": LOWER,
    "search": LOWER,
    "evaluate": EVALUATING,
    "executors": EVALUATING,
    "request": LOWER | {"search"},
    "decide": EVALUATING,
    "report": GROUND | {"nouns", "request"},
    "tracking": GROUND | {"nouns", "report"},
    "deploy": GROUND | {"nouns", "measure"},
    "serve": GROUND | {"nouns", "measure"},
    "champions": EVALUATING | {"decide", "deploy", "request", "tracking"},
    "schedule": GROUND,
    "testing": LOWER | {"build"},
    "study": STUDYING,
    "commands": STUDYING | {"study", "schedule", "serve"},
}
LIBRARIES = {  # an outside library has one room
    "hydra": {"request"},
    "omegaconf": {"request"},
    "optuna": {"search"},
    "mlflow": {"tracking", "deploy"},
    "apscheduler": {"schedule"},
    "rich": {"report"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
    "starlette": {"serve"},
    "grpc": {"serve"},
    "uvicorn": {"serve"},
    "prometheus_client": {"serve"},
    "ray": {"executors"},
}
FREE = {"cli", ""}  # the command, the package's face


def room(module: str) -> str:
    """The room of a module of the tuner; the nouns are single files at the top."""
    first = module.removeprefix("tuner").strip(".").partition(".")[0]
    return "nouns" if first in NOUNS else first


def modules() -> Iterator[tuple[str, Path]]:
    for top, package in (("tuner", "tuner"), ("plugins", "tuner.plugins")):
        for file in sorted((study.ROOT / top).rglob("*.py")):
            parts = file.relative_to(study.ROOT / top).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), file


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_go_downwards() -> None:
    upwards = {
        f"{module} imports {name}"
        for module, file in modules()
        for name in imported(file)
        if room(module) not in FREE and name.partition(".")[0] == "tuner"
        if room(name) not in MAY_KNOW[room(module)] | {room(module)}
    }
    assert not upwards


def test_every_room_is_one_that_is_listed() -> None:
    assert {room(module) for module, _ in modules()} <= MAY_KNOW.keys() | FREE


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_outside_library_has_one_room(library: str) -> None:
    rooms = {room(module) for module, file in modules() for name in imported(file) if name.partition(".")[0] == library}
    assert rooms == LIBRARIES[library]


def test_a_name_with_an_underscore_stays_in_its_file() -> None:
    private = {
        f"{module} imports {name}"
        for module, file in modules()
        for name in imported(file)
        if name.startswith("tuner.") and name.rpartition(".")[2].startswith("_")
        if not name.endswith("__version__")
    }
    assert not private


def test_the_engine_knows_no_form_and_no_device_by_name() -> None:
    """It asks the form, or the device: a word that is compared is where the next kind of either is forgotten."""
    forms = {form.name for form in values(Form)}
    devices = {name for kind in members(Device) for name in (kind.name, *kind.former)}
    named = set()
    for module, file in modules():
        if room(module) in ("forms", "plugins", "former", "testing"):
            continue
        nodes = list(ast.walk(ast.parse(file.read_text())))
        compared = [part for node in nodes if isinstance(node, ast.Compare) for part in ast.iter_child_nodes(node)]
        for words, among in ((forms, nodes), (devices, compared)):
            named |= {f"{module}: {n.value}" for n in among if isinstance(n, ast.Constant) and n.value in words}
    assert not named
