"""Functions that a person names: by their module, or by their file."""

import hashlib
import signal
import sys
from pathlib import Path

import pytest

from tuner.errors import RequestError
from tuner.system.code import authored, called, module_of, resolve, source_digest


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_a_function_may_be_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "half_named.py").write_text("def answer():\n    return 42\n")
    reference = f"{tmp_path}/half_named.py:answer"
    assert resolve(reference, "metric")() == 42
    assert module_of(reference) == module_of("half_named:answer") == "half_named"
    assert source_digest(reference) == source_digest("half_named:answer")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("nothing", "must read package.module:function, or folder/file.py:function"),
        (":answer", "must read"),
        ("module:", "must read"),
        ("{folder}/nowhere.py:answer", "there is no file {folder}/nowhere.py"),
        ("{folder}/json.py:answer", "goes by the same name; give the file another"),
        ("json:answer", "'json' has no function 'answer'"),
        ("nowhere_at_all:answer", "cannot import 'nowhere_at_all'"),
    ],
)
def test_what_is_not_there_is_told_by_its_key(reference: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def answer():\n    return 42\n")
    with pytest.raises(RequestError) as refused:
        resolve(reference.format(folder=tmp_path), "metric")
    assert str(refused.value).startswith("metric=") and said.format(folder=tmp_path) in str(refused.value)


RAISED = {
    "raise ValueError('out of order')": "ValueError: out of order",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "import sys; sys.exit(7)": "SystemExit: 7",
    "assert False": "AssertionError",
    "def (": "SyntaxError",
}


@pytest.mark.parametrize("text", RAISED)
@pytest.mark.parametrize("place", ["on import", "when called"])
def test_what_it_raises_is_one_sentence_with_the_key(
    text: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"authored_{abs(hash((text, place)))}"
    body = f"def f(): exec({text!r})" if place == "when called" else text
    (tmp_path / f"{name}.py").write_text(f"\n{body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError) as refusal:
        called(f"{name}:f", "model.factory")
    told = str(refusal.value)
    assert told.startswith("model.factory=") and name in told and RAISED[text] in told and "\n" not in told
    assert f"({name}.py, line 2)" in told or "SyntaxError" in told
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_is_still_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), authored("a long import"):
        signal.raise_signal(signal.SIGINT)


def test_the_digest_of_a_function_is_of_what_its_file_imports_too(tmp_path: Path) -> None:
    """One alone has the digest that it had, by which registered champions know their metric."""
    (tmp_path / "scoring.py").write_text("import json\nimport numpy\nimport tuner.metrics\n")
    reference = f"{tmp_path}/scoring.py:score"
    assert source_digest(reference) == hashlib.sha256((tmp_path / "scoring.py").read_bytes()).hexdigest()
    (tmp_path / "scoring.py").write_text("def score():\n    from scoring_helpers import deep\n")
    (tmp_path / "scoring_helpers").mkdir()
    (tmp_path / "scoring_helpers/__init__.py").write_text("from . import deep\n")
    (tmp_path / "scoring_helpers/deep.py").write_text("x = 1\n")
    before = source_digest(reference)
    (tmp_path / "scoring_helpers/deep.py").write_text("x = 2\n")
    assert source_digest(reference) != before
    assert "scoring_helpers" not in sys.modules, "nothing is run for it"


def test_the_digest_follows_imports_into_folders_within_folders_that_have_no_init(tmp_path: Path) -> None:
    (tmp_path / "scoring.py").write_text("from scoring_parts.inner import deep\n")
    (tmp_path / "scoring_parts/inner").mkdir(parents=True)
    digests = set()
    for text in ("x = 1\n", "x = 2\n"):
        (tmp_path / "scoring_parts/inner/deep.py").write_text(text)
        digests.add(source_digest(f"{tmp_path}/scoring.py:score"))
    assert len(digests) == 2
    assert "scoring_parts" not in sys.modules
