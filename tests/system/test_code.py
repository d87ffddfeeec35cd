"""Functions that a person names: by their module, or by their file."""

import sys
from pathlib import Path

import pytest

from tuner.errors import RequestError
from tuner.system.code import module_of, resolve, source_digest


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
