"""What a command line leaves out and its files tell."""

import json
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import RequestError
from tuner.plugins.datasets.npz import Npz
from tuner.request.compose import composed, request


def dataset(*overrides: str) -> Any:
    return request(overrides).workload.dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of transformers, whose own dataset is of texts, without a tokenizer."""
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "eval.npz").touch()
    return tmp_path


@pytest.mark.parametrize("name", ["eval.npz", "'eval.npz'"])
def test_arrays_are_read_as_such_whatever_dataset_the_model_has(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert isinstance(dataset("model=transformers", f"model.path={folder}", f"dataset.path={name}"), Npz)
    assert isinstance(dataset(f"dataset.path={name}"), Npz)


def test_a_dataset_that_is_named_stays(folder: Path) -> None:
    with pytest.raises(RequestError, match="no folder with a tokenizer"):
        dataset("model=transformers", f"model.path={folder}", "dataset=texts", f"dataset.path={folder}/eval.npz")
    assert composed(["dataset=csv", "dataset.path=eval.npz"]).dataset._target_.endswith("table.Table")


def test_a_mapping_of_names_of_ones_own_may_be_one_value() -> None:
    made_up = composed(["dataset=random", "dataset.axes={axis 3:4}", "dataset.axes.T=5"]).dataset
    assert made_up.axes == {"axis 3": 4, "T": 5}
    with pytest.raises(RequestError, match=r"dataset\.axess: no such key; did you mean dataset\.axes"):
        request(["dataset=random", "dataset.axess={T:4}"])
