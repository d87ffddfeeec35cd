"""Structured pruning: narrower networks with aligned channels, which learn again."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tuner.build.builder import steps
from tuner.dataset import ArraySamples, Dataset, Role
from tuner.errors import CandidateError, RequestError
from tuner.forms.torch import TORCH
from tuner.model import Model
from tuner.plugin import Plugin, encode
from tuner.plugins.datasets.digits import Digits
from tuner.plugins.models.digits_networks import cnn, resnet18, train_cnn
from tuner.plugins.transforms.structured_pruning import StructuredPruning
from tuner.system.loader import build
from tuner.target import Target
from tuner.tensors import TensorSpec

TARGET = Target("cpu", "cpu")


@dataclass(frozen=True)
class Few(Dataset):
    """As many random training samples as asked for."""

    shape: tuple[int, ...] = (1, 32, 32)
    count: int = 64

    def load(self, role: Role) -> ArraySamples | None:
        stream = np.random.default_rng(0)
        x = stream.standard_normal((self.count, *self.shape), dtype=np.float32)
        return ArraySamples({"x": x}, np.arange(self.count) % 10) if role == "training" else None


class TwoHeads(nn.Module):
    """Its outputs come from two layers, neither of them the last module defined."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 10)
        self.second = nn.Linear(64, 3)
        self.body = nn.Linear(4, 64)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first(x), self.second(torch.relu(self.body(x)))], dim=1)


class FixedWidth(nn.Module):
    """Says its width in a constant, so that a narrower one does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x)) * torch.ones(64))


def channels(module: nn.Module) -> dict[str, int]:
    kinds = (nn.Conv2d, nn.Linear)
    return {name: m.weight.shape[0] for name, m in module.named_modules() if isinstance(m, kinds)}


Prune = Callable[..., nn.Module]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine the threads of so small a network mostly wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def prune(tmp_path: Path) -> Prune:
    def pruned(module: nn.Module, dataset: Dataset, plugin: StructuredPruning, shape: tuple[int, ...]) -> nn.Module:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        torch.save(module, folder / "model.pt")
        model = Model(TORCH, folder, (TensorSpec("x", shape, "float32"),))
        for stage in steps((plugin,)):
            out = Path(tempfile.mkdtemp(dir=tmp_path))
            stage.apply(model, dataset, TARGET, out)
            model = replace(model, directory=out)
        loaded: nn.Module = torch.load(model.path, weights_only=False)
        return loaded

    return pruned


@pytest.mark.slow
def test_half_the_channels_go_and_the_accuracy_comes_back(prune: Prune) -> None:
    module, dataset = cnn(), Digits()
    train_cnn(module, dataset.load("training"), lambda fraction, text: None)
    evaluation = dataset.load("evaluation")

    def accuracy(m: nn.Module) -> float:
        with torch.no_grad():
            guesses = m(torch.from_numpy(evaluation.inputs["x"])).argmax(1).numpy()
        return float((guesses == evaluation.labels).mean())

    recovered = prune(module, dataset, StructuredPruning(0.5), (1, 8, 8))
    assert list(channels(recovered).values()) == [16, 32, 64, 64, 10]
    assert not recovered.training
    assert accuracy(recovered) >= accuracy(module) - 0.006
    damaged = prune(module, dataset, StructuredPruning(0.5, recovery_steps=0), (1, 8, 8))
    assert accuracy(damaged) < 0.9, "so it was the recovery that brought it back"


@pytest.mark.parametrize(("sparsity", "round_to"), [(0.25, 16), (0.4, 8), (0.7, 16), (0.95, 16)])
def test_channels_are_multiples_and_every_layer_keeps_some(sparsity: float, round_to: int, prune: Prune) -> None:
    before = channels(resnet18())
    plugin = StructuredPruning(sparsity, recovery_steps=0, round_to=round_to)
    after = channels(prune(resnet18(), Few(), plugin, (1, 32, 32)))
    assert after.pop("head.2") == before.pop("head.2") == 10
    for name, kept in after.items():
        assert kept % round_to == 0
        wanted = (1 - sparsity) * before[name]
        assert abs(kept - wanted) <= round_to / 2 + 1 or kept == round_to, name
        assert kept < before[name]


def test_pruning_again_gives_the_same_weights(prune: Prune) -> None:
    plugin = StructuredPruning(0.5, recovery_steps=2)
    first = prune(cnn(), Few((1, 8, 8)), plugin, (1, 8, 8)).state_dict()
    torch.rand(3)
    again = prune(cnn(), Few((1, 8, 8)), plugin, (1, 8, 8)).state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())


def test_layers_that_make_the_output_keep_their_width(prune: Prune) -> None:
    after = channels(prune(TwoHeads(), Few((4,)), StructuredPruning(0.5), (4,)))
    assert after == {"first": 10, "second": 3, "body": 32}


def test_nothing_to_remove_is_said(prune: Prune) -> None:
    with pytest.raises(CandidateError, match=r"no channel could be removed.*32, 64, 128") as caught:
        prune(cnn(), Few((1, 8, 8)), StructuredPruning(0.05), (1, 8, 8))
    assert caught.value.kind == "unsupported_op"


def test_a_network_that_cannot_be_narrowed_is_refused(prune: Prune) -> None:
    with pytest.raises(CandidateError, match="cannot follow") as caught:
        prune(FixedWidth(), Few((4,)), StructuredPruning(0.5), (4,))
    assert caught.value.kind == "unsupported_op"


def test_a_dataset_without_training_samples_is_refused(prune: Prune) -> None:
    class Bare(Dataset):
        def load(self, role: Role) -> None:
            return None

    with pytest.raises(CandidateError, match="training samples"):
        prune(cnn(), Bare(), StructuredPruning(0.5), (1, 8, 8))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sparsity", 0.0),
        ("sparsity", 1.0),
        ("recovery_steps", -1),
        ("recovery_steps", 1.5),
        ("round_to", 0),
        ("learning_rate", 0.0),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=field):
        StructuredPruning(**{"sparsity": 0.5, field: value})


def test_json_and_label() -> None:
    plugin = StructuredPruning(0.5, recovery_steps=800)
    assert build(encode(plugin), Plugin, "plugin") == plugin
    assert plugin.label == "pruned50-s800"
    assert StructuredPruning(0.75).label == "pruned75"
