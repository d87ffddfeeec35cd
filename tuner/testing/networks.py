"""Small torch networks, the samples they are for, and what they are on disk in the form that a plugin takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuner.build.routes import conversions
from tuner.dataset import ArraySamples, Dataset, Role
from tuner.forms.torch import TORCH, load, save
from tuner.metrics import top1
from tuner.model import Form, Model
from tuner.tensors import Arrays, TensorSpec

IMAGE = (TensorSpec("image", (1, 8, 8), "float32"),)
PAIR = (TensorSpec("ids", (4,), "int64"), TensorSpec("scores", (4,), "float32"))
CLASSES = 4


class Net(nn.Module):
    """Two convolutions with batch norm: (n, 1, 8, 8) -> (n, 4). Its first operation works in place on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = nn.ReLU(inplace=True)
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 32),
            nn.ReLU(),
            nn.Linear(32, CLASSES),
        )

    def forward(self, x: Tensor) -> Any:
        return self.body(self.begin(x))


class Pair(nn.Module):
    """Two inputs of different kinds, which bear the names of forward's parameters in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 4)

    def forward(self, scores: Tensor, ids: Tensor) -> dict[str, Tensor]:
        mixed = self.embedding(ids).sum(-1) - 2 * scores
        return {"mixed": mixed, "total": mixed.sum(-1, keepdim=True)}


class Activation(nn.Module):
    """Nothing that a transform could compress."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x).flatten(1)[:, :CLASSES]


@dataclass(frozen=True)
class Patterns(Dataset):
    """Four fixed random patterns under noise."""

    def load(self, role: Role) -> ArraySamples:
        seed, count = {"evaluation": (1, 256), "calibration": (2, 70), "training": (3, 512)}[role]
        random = np.random.default_rng(seed)
        labels = random.integers(CLASSES, size=count)
        images = np.random.default_rng(0).normal(size=(CLASSES, 1, 8, 8))[labels] + random.normal(size=(count, 1, 8, 8))
        return ArraySamples({"image": images.astype(np.float32)}, labels)


@cache
def trained() -> Net:
    """The network after some steps on the patterns: it is right for nearly all of them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, samples = Net().train(), Patterns().load("training")
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    images, labels = torch.from_numpy(samples.inputs["image"]), torch.from_numpy(samples.labels)
    for step in range(24):
        rows = slice(64 * (step % 8), 64 * (step % 8) + 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[rows].clone()), labels[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.eval()


def answers(module: nn.Module, inputs: Arrays) -> Any:
    """What the module gives for arrays by name, or for the only one."""
    tensors = {name: torch.tensor(array) for name, array in inputs.items()}  # copies: a module may work in place
    with torch.no_grad():
        return module(*tensors.values()) if len(tensors) == 1 else module(**tensors)


def accuracy(outputs: Sequence[Any], labels: Any) -> float:
    """The fraction of right answers in batches of outputs."""
    return float(top1([np.concatenate(outputs)], labels).mean())


@dataclass(frozen=True)
class Shelf:
    """One network on disk, in every form that somebody asked for."""

    model: Model
    _forms: dict[Form, Model] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, module: nn.Module, inputs: tuple[TensorSpec, ...], folder: Path) -> "Shelf":
        """Saves the module under `folder`, which is made."""
        model = Model(TORCH, folder / TORCH.name, inputs)
        model.directory.mkdir(parents=True)
        save(module, model.directory)
        return cls(model)

    def module(self) -> nn.Module:
        """The network itself."""
        loaded: nn.Module = load(self.model.path)
        return loaded

    def take(self, accepted: Sequence[Form]) -> Model:
        """The model in one of those forms, converted as a study would.

        Raises LookupError where no conversion leads to any of them, CandidateError where one cannot be had.
        """
        route = conversions(self.model.form, accepted)
        if route is None:
            wanted = " or ".join(map(str, accepted))
            raise LookupError(f"no conversion leads from {self.model.form} to {wanted}; bring one with your plugins")
        model = self.model
        for conversion in route:
            if conversion.gives not in self._forms:
                folder = self.model.directory.parent / conversion.gives.name
                folder.mkdir()
                conversion.convert(model, folder)
                self._forms[conversion.gives] = replace(model, form=conversion.gives, directory=folder)
            model = self._forms[conversion.gives]
        return model
