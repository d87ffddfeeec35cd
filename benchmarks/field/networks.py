"""Thirteen models as people have them, none of them bundled.

Each is written to a folder with samples of its own, and says the command line that tunes it. Small ones are trained, so
that an accuracy means something; the others keep random weights and have no labels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn

Samples = dict[str, NDArray[Any]]
FIELD: dict[str, Callable[[Path], list[str]]] = {}


def field(build: Callable[[Path], list[str]]) -> Callable[[Path], list[str]]:
    """A function that writes a model and its samples to a folder, and returns the arguments of `tune` for it."""
    FIELD[build.__name__] = build
    return build


def exported(module: nn.Module, folder: Path, inputs: Samples, axes: dict[str, dict[int, str]], *outputs: str) -> None:
    """Writes `net.onnx`, whose axes of these names are free."""
    with torch.no_grad():
        torch.onnx.export(
            module.eval(), tuple(torch.tensor(array) for array in inputs.values()), folder / "net.onnx",
            input_names=list(inputs), output_names=list(outputs), dynamic_axes=axes, dynamo=False,
        )  # fmt: skip


def saved(folder: Path, **samples: Any) -> None:
    np.savez(folder / "eval.npz", **samples)


def fitted(module: nn.Module, loss: Callable[[], Any], steps: int) -> None:
    """Trains on all samples at once."""
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def free(*names: str, axis: int = 0) -> dict[str, dict[int, str]]:
    """The batch of these inputs and outputs."""
    return {name: {axis: "batch"} for name in names}


def cancer() -> tuple[NDArray[Any], NDArray[Any]]:
    """569 samples of 30 features, standardised; two classes."""
    x, y = load_breast_cancer(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32), y.astype(np.int64)


def sklearn_net(estimator: Any, folder: Path, x: NDArray[Any], y: NDArray[Any]) -> list[str]:
    from skl2onnx import to_onnx

    estimator.fit(x, y)
    options = {id(estimator): {"zipmap": False}}
    (folder / "net.onnx").write_bytes(to_onnx(estimator, x[:1], options=options).SerializeToString())
    saved(folder, X=x, label=y)
    return ["model=onnx", f"model.path={folder / 'net.onnx'}", f"dataset.path={folder / 'eval.npz'}"]


def onnx(folder: Path, *more: str) -> list[str]:
    return ["model=onnx", f"model.path={folder / 'net.onnx'}", f"dataset.path={folder / 'eval.npz'}", *more]


@field
def gradient_boosting(folder: Path) -> list[str]:
    """A label output before the probabilities."""
    from sklearn.ensemble import GradientBoostingClassifier

    return sklearn_net(GradientBoostingClassifier(n_estimators=40), folder, *cancer())


@field
def pipeline(folder: Path) -> list[str]:
    """Scaler and logistic regression, ZipMap off."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_digits(return_X_y=True)
    return sklearn_net(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)), folder, x.astype(np.float32), y
    )


@field
def churn(folder: Path) -> list[str]:
    """Two classes by one column, a sigmoid."""
    x, y = cancer()
    net = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid())
    samples, truth = torch.tensor(x), torch.tensor(y[:, None].astype(np.float32))
    fitted(net, lambda: nn.functional.binary_cross_entropy(net(samples), truth), 200)
    exported(net, folder, {"x": x[:4]}, free("x", "p"), "p")
    saved(folder, x=x, label=y)
    return onnx(folder)


class Recurrent(nn.Module):
    """(steps, batch, 8), h0 and c0 (1, batch, 32) -> logits (batch, 10), h (1, batch, 32), c (1, batch, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 32), nn.Linear(32, 10)

    def forward(self, x: Any, h0: Any, c0: Any) -> tuple[Any, Any, Any]:
        steps, (h, c) = self.lstm(x, (h0, c0))
        return self.head(steps[-1]), h, c


@field
def lstm_state(folder: Path) -> list[str]:
    """The batch on axis 1, states in and out. Rows of digits, one after the other."""
    x, y = load_digits(return_X_y=True)
    rows = (x.reshape(-1, 8, 8) / 16).astype(np.float32)
    state = np.zeros((len(rows), 1, 32), np.float32)
    net, truth = Recurrent(), torch.tensor(y)
    steps, zeros = torch.tensor(rows.swapaxes(0, 1)), torch.zeros(1, len(rows), 32)
    fitted(net, lambda: nn.functional.cross_entropy(net(steps, zeros, zeros)[0], truth), 60)
    names = ("x", "h0", "c0")
    example = {name: array[:4].swapaxes(0, 1).copy() for name, array in zip(names, (rows, state, state), strict=True)}
    axes = free(*names, "h", "c", axis=1) | free("logits")
    exported(net, folder, example, axes, "logits", "h", "c")
    saved(folder, x=rows, h0=state, c0=state, label=y.astype(np.int64))
    return onnx(folder, *(f"model.inputs.{name}.batch_axis=1" for name in names))


class Encoder(nn.Module):
    """ids and mask (batch, length) -> mean of the words that are not masked (batch, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(500, 64)
        self.q, self.k, self.v, self.out = (nn.Linear(64, 64) for _ in range(4))

    def forward(self, ids: Any, mask: Any) -> Any:
        x = self.words(ids)
        seen = mask.to(x.dtype)
        weights = self.q(x) @ self.k(x).transpose(1, 2) / 8 + (seen[:, None, :] - 1) * 1e4
        x = x + self.out(torch.softmax(weights, -1) @ self.v(x))
        return (x * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)


@field
def text_encoder(folder: Path) -> list[str]:
    """A mask, and two lengths to be correct at; no labels."""
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(1, 500, (400, 64)), np.zeros((400, 64), np.int64)
    for row, length in zip(mask, rng.integers(4, 65, 400), strict=True):
        row[:length] = 1
    axes = {name: {0: "batch", 1: "sequence"} for name in ("ids", "mask")} | free("embedding")
    exported(Encoder(), folder, {"ids": ids[:4], "mask": mask[:4]}, axes, "embedding")
    saved(folder, ids=ids, mask=mask)
    return onnx(folder, "model.axes.sequence=[32,64]")


class UNet(nn.Module):
    """(batch, 1, 32, 32) -> classes of pixels (batch, 3, 32, 32), of pixels at half the size (batch, 3, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.up, self.fine, self.coarse = nn.ConvTranspose2d(32, 16, 2, 2), nn.Conv2d(32, 3, 1), nn.Conv2d(32, 3, 1)

    def forward(self, x: Any) -> tuple[Any, Any]:
        fine = torch.relu(self.down(x))
        coarse = torch.relu(self.middle(fine))
        return self.fine(torch.cat([fine, self.up(coarse)], 1)), self.coarse(coarse)


@field
def unet(folder: Path) -> list[str]:
    """Two outputs, no labels."""
    x = np.random.default_rng(0).normal(size=(400, 1, 32, 32)).astype(np.float32)
    exported(UNet(), folder, {"image": x[:2]}, free("image", "fine", "coarse"), "fine", "coarse")
    saved(folder, image=x)
    return onnx(folder)


class Detector(nn.Module):
    """(batch, 3, 32, 32) -> boxes (batch, 64, 4), scores (batch, 64, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(32, 4, 1), nn.Conv2d(32, 5, 1)

    def forward(self, x: Any) -> tuple[Any, Any]:
        x = self.body(x)
        return self.boxes(x).flatten(2).transpose(1, 2), torch.sigmoid(self.scores(x)).flatten(2).transpose(1, 2)


@field
def detector(folder: Path) -> list[str]:
    """Boxes and scores, judged by how faithful they are to the float model's."""
    x = np.random.default_rng(0).normal(size=(400, 3, 32, 32)).astype(np.float32)
    exported(Detector(), folder, {"image": x[:2]}, free("image", "boxes", "scores"), "boxes", "scores")
    saved(folder, image=x)
    return onnx(folder)


class Recogniser(nn.Module):
    """(batch, 1, 16, width) -> a character at each step (batch, width / 4, 30)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(32, 30)

    def forward(self, x: Any) -> Any:
        return self.head(self.body(x).mean(2).transpose(1, 2))


@field
def ocr(folder: Path) -> list[str]:
    """A width that varies; no labels."""
    x = np.random.default_rng(0).normal(size=(400, 1, 16, 128)).astype(np.float32)
    axes = {"image": {0: "batch", 3: "width"}, "characters": {0: "batch", 1: "steps"}}
    axes = {"image": {0: "batch", 3: "width"}, "characters": {0: "batch", 1: "steps"}}
    exported(Recogniser(), folder, {"image": x[:2]}, axes, "characters")
    saved(folder, image=x)
    return onnx(folder, "model.axes.width=[64,128]")


class Stream(nn.Module):
    """frame (batch, 160), state (batch, 64) -> denoised (batch, 160), state (batch, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(160, 64), nn.Linear(64, 160)

    def forward(self, frame: Any, state: Any) -> tuple[Any, Any]:
        state = self.cell(frame, state)
        return torch.tanh(self.out(state)), state


@field
def audio_state(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    frame, state = (rng.normal(size=(400, n)).astype(np.float32) for n in (160, 64))
    axes = free("frame", "state", "denoised", "next_state")
    exported(Stream(), folder, {"frame": frame[:2], "state": state[:2]}, axes, "denoised", "next_state")
    saved(folder, frame=frame, state=state)
    return onnx(folder)


@field
def embedding(folder: Path) -> list[str]:
    """One vector a sample, no labels."""
    x = np.random.default_rng(0).normal(size=(400, 96)).astype(np.float32)
    net = nn.Sequential(nn.Linear(96, 256), nn.GELU(), nn.Linear(256, 128))
    exported(net, folder, {"x": x[:2]}, free("x", "vector"), "vector")
    saved(folder, x=x)
    return onnx(folder)


LOCAL = """
import torch


def net():
    class Local(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))

        def forward(self, x):
            return self.body(x)

    return Local()
"""


@field
def local_class(folder: Path) -> list[str]:
    """A module of a class that is local to its factory, which pickle cannot name."""
    (folder / "local_net.py").write_text(LOCAL)
    saved(folder, x=np.random.default_rng(0).normal(size=(400, 64)).astype(np.float32))
    return ["model=torch", f"model.factory={folder / 'local_net.py'}:net", f"dataset.path={folder / 'eval.npz'}"]


@field
def two_gb(folder: Path) -> list[str]:
    """More weights than a protobuf message may hold: 2.2 GB beside the graph."""
    from onnx import TensorProto, helper

    wide, outputs = 2**18, 2100
    weights = np.random.default_rng(0).normal(0, 0.02, (wide // 1000, 1000)).astype(np.float32)
    with (folder / "net.onnx.data").open("wb") as data:
        for _ in range(outputs):
            data.write(np.resize(weights, wide).tobytes())
    weight = TensorProto(
        name="weight", data_type=TensorProto.FLOAT, dims=(wide, outputs), data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", "net.onnx.data"), ("offset", "0"), ("length", str(wide * outputs * 4))):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])], "wide",
        [value("x", TensorProto.FLOAT, ["batch", wide])], [value("y", TensorProto.FLOAT, ["batch", outputs])], [weight],
    )  # fmt: skip
    (folder / "net.onnx").write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    saved(folder, x=np.random.default_rng(1).normal(size=(24, wide)).astype(np.float32))
    return onnx(folder, "search_space.batch_size=[1]", "n_trials=4")


@field
def transformers(folder: Path) -> list[str]:
    """A folder as `save_pretrained` leaves it."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, num_labels=3
    )
    BertForSequenceClassification(config).save_pretrained(folder / "bert")
    ids = np.random.default_rng(0).integers(1, 300, (400, 32))
    saved(folder, input_ids=ids, attention_mask=np.ones_like(ids))
    return ["model=transformers", f"model.path={folder / 'bert'}", f"dataset.path={folder / 'eval.npz'}"]
