"""What the contract suite needs: every plugin there is, a small trained network, and made-up samples."""

import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from tuner.build.builder import steps
from tuner.catalog import members
from tuner.forms.onnx import ONNX
from tuner.forms.torch import TORCH
from tuner.metrics import top1
from tuner.plugin import Backend, Plugin, Transform
from tuner.plugins.conversions.torch_to_onnx import TorchToOnnx
from tuner.target import Target
from tuner.workload import ArraySamples, Dataset, Form, Model, Role, TensorSpec

CPU = Target("cpu", "cpu", threads=1)
GPU = Target("a100", "nvidia", device_name="A100", onnxruntime_providers=("CUDAExecutionProvider",))
IMAGE = (TensorSpec("image", (1, 8, 8), "float32"),)
PAIR = (TensorSpec("ids", (4,), "int64"), TensorSpec("scores", (4,), "float32"))
CLASSES = 4


TRANSFORMS: list[type[Any]] = list(members(Transform))
BACKENDS: list[type[Any]] = list(members(Backend))


def choices(kind: type[Plugin]) -> dict[str, tuple[Any, ...]]:
    """The fields of a plugin that take one of a few values, and these."""
    hints = get_type_hints(kind)
    named = {f.name: hints[f.name] for f in dataclasses.fields(kind)}
    literal = {name: get_args(hint) for name, hint in named.items() if get_origin(hint) is Literal}
    return literal | {name: (True, False) for name, hint in named.items() if hint is bool}


def plain(kind: type[Plugin], **values: Any) -> Plugin:
    """The plugin with its defaults; a number without one is a half."""
    required = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
    return kind(**dict.fromkeys(required, 0.5) | values)


def applied(transform: Transform, model: Model, folder: Path) -> Model:
    """The model after every stage of the transform."""
    for number, stage in enumerate(steps((transform,))):
        out = folder / f"stage{number}"
        out.mkdir()
        stage.apply(model, Patterns(), CPU, out)
        model = Model(stage.gives, out, model.inputs)
    return model


def variants(kind: type[Plugin]) -> list[Any]:
    """The plain plugin, and each that differs from it in one choice."""
    base = plain(kind)
    others = [plain(kind, **{name: value}) for name, values in choices(kind).items() for value in values]
    return list(dict.fromkeys([base, *others]))


class Net(nn.Module):
    """Two convolutions with batch norm; its first operation works in place on its input."""

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

    def forward(self, x: Tensor) -> Tensor:
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
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, samples = Net().train(), Patterns().load("training")
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    images, labels = torch.from_numpy(samples.inputs["image"]), torch.from_numpy(samples.labels)
    for step in range(24):
        rows = slice(64 * (step % 8), 64 * (step % 8) + 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[rows].clone()), labels[rows]).backward()
        optimizer.step()
    return net.eval()


def saved(module: nn.Module, inputs: tuple[TensorSpec, ...], folder: Path) -> dict[Form, Model]:
    """The module on disk as torch and as ONNX."""
    forms: dict[Form, Model] = {form: Model(form, folder / form.name, inputs) for form in (TORCH, ONNX)}
    for model in forms.values():
        model.directory.mkdir(parents=True)
    torch.save(module.eval(), forms[TORCH].path)
    TorchToOnnx().convert(forms[TORCH], forms[ONNX].directory)
    return forms


def accepted(backend: Backend, forms: dict[Form, Model]) -> Model:
    return next(forms[form] for form in backend.accepts if form in forms)


def accuracy(outputs: list[Any], labels: Any) -> float:
    return float(top1(outputs, labels).mean())
