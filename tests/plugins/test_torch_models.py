"""torch models as people have them: each answers rightly, eager and as a graph, from its form on disk."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tuner.build.prepare import Prepared, prepare
from tuner.build.routes import conversions
from tuner.build.store import Store
from tuner.dataset import evaluation
from tuner.errors import RequestError
from tuner.forms.onnx import ONNX
from tuner.forms.torch import TorchSession
from tuner.model import Model
from tuner.plugin import Backend
from tuner.plugins.backends.eager import Eager
from tuner.plugins.backends.iree import IREE
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.backends.xla import XLA
from tuner.plugins.datasets.npz import Npz
from tuner.plugins.models.torch_module import TorchModel
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.tensors import TensorSpec
from tuner.testing import workbench
from tuner.testing.networks import Shelf
from tuner.workload import Workload

NET = """
import torch


class Pair(torch.nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 3), torch.nn.Linear(2, 3)
        self.scale = scale

    def forward(self, upper, lower):
        return self.scale * torch.relu(self.a(upper)) - self.b(lower)


def seeded():
    torch.manual_seed(3)
    return Pair()


def blank():
    return Pair()


def scripted():
    return torch.jit.script(seeded())


def traced():
    return torch.jit.trace(seeded(), (torch.zeros(2, 4), torch.zeros(2, 2)))


def local():
    inner = seeded()

    class Local(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, upper, lower):
            return self.inner(upper, lower)

    return Local()


class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.a = torch.nn.Linear(4, 3)

    def forward(self, words, mask):
        return (torch.relu(self.a(words)) * mask[:, :, None]).sum(1)


def words():
    return Words()


def scripted_words():
    return torch.jit.script(Words())


def number():
    return 3
"""
WAYS: dict[str, dict[str, Any]] = {
    "module": {"factory": "pairnet:seeded"},
    "scripted": {"factory": "pairnet:scripted"},
    "traced": {"factory": "pairnet:traced"},
    "local class": {"factory": "pairnet:local"},
    "safetensors": {"factory": "pairnet:blank", "weights": "net.safetensors"},
    "state dict": {"factory": "pairnet:blank", "weights": "net.pt"},
    "checkpoint": {"factory": "pairnet:blank", "weights": "checkpoint.pt"},
    "TorchScript": {"path": "scripted.pt"},
    "exported": {"path": "exported.pt2"},
    "pickled": {"path": "pickled.pt", "trust": True},
}
CPU = Target("cpu", "cpu", threads=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the code, its weights in every format, and samples whose order is not that of the alphabet."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("pair")
    (folder / "pairnet.py").write_text(NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        import pairnet  # type: ignore[import-not-found]

        net = pairnet.seeded()
        save_file(net.state_dict(), "net.safetensors")
        torch.save(net.state_dict(), "net.pt")
        torch.save({"epoch": 3, "state_dict": net.state_dict()}, "checkpoint.pt")
        torch.save({"other": torch.zeros(1)}, "other.pt")
        torch.save(net, "pickled.pt")
        torch.jit.save(pairnet.scripted(), "scripted.pt")
        batch = torch.export.Dim("batch")
        samples = (torch.zeros(2, 4), torch.zeros(2, 2))
        for name, free in (("exported.pt2", {"upper": {0: batch}, "lower": {0: batch}}), ("fixed.pt2", None)):
            torch.export.save(torch.export.export(net, samples, dynamic_shapes=free), name)
        random = np.random.default_rng(0)
        arrays = {"upper": random.normal(size=(20, 4)), "lower": random.normal(size=(20, 2))}
        longest = {"words": random.normal(size=(20, 9, 4)), "mask": np.ones((20, 9))}
        np.savez("words.npz", **{n: a.astype("float32") for n, a in longest.items()}, label=np.arange(20) % 3)
        np.savez("eval.npz", **{n: a.astype("float32") for n, a in arrays.items()}, label=np.arange(20) % 3)
        yield folder
    sys.modules.pop("pairnet", None)


def prepared(way: dict[str, Any], folder: Path, samples: str = "eval.npz") -> Prepared:
    store = Store(folder / "cache")
    launcher = Launcher(2000.0, CPU.environment, store.environments)
    scratch = folder / f"model-{len(list(folder.iterdir()))}"
    scratch.mkdir()
    store.root.mkdir(exist_ok=True)
    return prepare(Workload(TorchModel(**way), Npz(samples)), store, scratch, launcher, lambda *_: None)


def answers(backend: Backend, model: Model, inputs: dict[str, Any], folder: Path) -> Any:
    out = folder / f"artifact-{backend.label}"
    out.mkdir()
    backend.compile(model, 4, CPU, out, folder)
    return backend.load(out, model.inputs, 4, CPU).run(inputs)[0]


@pytest.mark.parametrize("way", WAYS)
def test_it_answers_as_the_module_does(way: str, files: Path, tmp_path: Path) -> None:
    import pairnet
    import torch

    ready = prepared(WAYS[way], tmp_path)
    samples = evaluation(ready.workload.dataset)
    inputs = {name: np.stack([samples[i][0][name] for i in range(4)]) for name in ("upper", "lower")}
    with torch.no_grad():
        right = pairnet.seeded()(torch.tensor(inputs["upper"]), torch.tensor(inputs["lower"])).numpy()
    model = ready.source.model
    np.testing.assert_allclose(answers(Eager(), model, inputs, tmp_path), right, atol=1e-6)
    (conversion,) = conversions(model.form, (ONNX,)) or ()
    (tmp_path / "graph").mkdir()
    conversion.convert(model, tmp_path / "graph")
    graph = Model(ONNX, tmp_path / "graph", model.inputs)
    np.testing.assert_allclose(answers(OnnxRuntime(), graph, inputs, tmp_path), right, atol=1e-6)


@pytest.mark.parametrize("factory", ["words", "scripted_words"])
def test_it_answers_at_every_declared_length(factory: str, files: Path, tmp_path: Path) -> None:
    import pairnet
    import torch

    way = {"factory": f"pairnet:{factory}", "axes": {"length": {5: 3, 9: 1}}}
    model = prepared(way, tmp_path, "words.npz").source.model
    lengths = [(shape.calls, [spec.shape for spec in shape.inputs]) for shape in model.shapes]
    assert lengths == [(3, [(5, 4), (5,)]), (1, [(9, 4), (9,)])]
    (conversion,) = conversions(model.form, (ONNX,)) or ()
    (tmp_path / "graph").mkdir()
    conversion.convert(model, tmp_path / "graph")
    graph = replace(model, form=ONNX, directory=tmp_path / "graph")
    with np.load("words.npz") as samples:
        whole = {name: samples[name][:4] for name in ("words", "mask")}
    for backend, form in ((Eager(), model), (OnnxRuntime(), graph)):
        for shape in model.shapes:
            inputs = {spec.name: np.ascontiguousarray(spec.cut(whole[spec.name])) for spec in shape.inputs}
            with torch.no_grad():
                right = getattr(pairnet, factory)()(*map(torch.tensor, inputs.values())).numpy()
            folder = tmp_path / f"{backend.label}-{inputs['mask'].shape[1]}"
            folder.mkdir()
            np.testing.assert_allclose(answers(backend, form, inputs, folder), right, atol=1e-6)


def test_lengths_make_another_model(files: Path, tmp_path: Path) -> None:
    one, other = ({"factory": "pairnet:words", "axes": {"length": [low, 9]}} for low in (3, 5))
    assert len({prepared(way, tmp_path, "words.npz").source.model.key for way in (one, other)}) == 2


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            {"length": [5, 8]},
            "model.axes.length: the samples have no axis of 8 (words (9, 4), mask (9,))",
        ),
        ({"width": [2, 4]}, "model.axes: the model does not run at {'words': (9, 2), 'mask': (9,)}"),
        ({"length": [0, 9]}, "model.axes.length=[0, 9]: it takes sizes"),
        ({"length": [5, 9], "again": [7, 9]}, "model.axes.length: the samples have no axis of 9"),
    ],
)
def test_lengths_that_are_not_there_are_refused(axes: Any, message: str, files: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as refused:
        prepared({"factory": "pairnet:words", "axes": axes}, tmp_path, "words.npz")
    assert message in str(refused.value)


def test_a_factory_may_be_named_by_its_file(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/apart.py").write_text(NET)
    monkeypatch.setattr(sys, "path", list(sys.path))
    way = {"factory": str(tmp_path / "elsewhere/apart.py:seeded")}
    assert prepared(way, tmp_path).source.model.form.name == "torch"
    assert TorchModel(**way).modules() == ("apart",)


@pytest.mark.parametrize("way", ["scripted", "local class", "exported"])
def test_it_is_known_by_its_content(way: str, files: Path, tmp_path: Path) -> None:
    one, same = (prepared(WAYS[way], tmp_path).source.model.key for _ in range(2))
    assert one == same


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "model=torch needs one of model.factory="),
        ({"factory": "pairnet:seeded", "path": "scripted.pt"}, "needs one of"),
        ({"path": "nowhere.pt"}, "model.path=nowhere.pt: no such file"),
        ({"path": "scripted.pt", "weights": "net.pt"}, "model.weights needs model.factory="),
        ({"path": "pickled.pt"}, "with model.trust=true"),
        ({"path": "net.pt", "trust": True}, "holds a OrderedDict, no module"),
        ({"path": "eval.npz", "trust": True}, "model.path=eval.npz does not load"),
        ({"path": "fixed.pt2"}, "was exported for batches of 2 only"),
        ({"factory": "pairnet:number"}, "returned a int"),
        ({"factory": "pairnet:blank", "weights": "eval.npz"}, "model.weights=eval.npz is no state dict"),
        ({"factory": "pairnet:blank", "weights": "other.pt"}, "does not fit the module of model.factory"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_mend(
    fields: dict[str, Any], message: str, files: Path, tmp_path: Path
) -> None:
    with pytest.raises(RequestError) as refused:
        prepared(fields, tmp_path)
    assert message in str(refused.value)


def test_a_model_that_returns_no_tensor_is_told_by_what_it_returns() -> None:
    class Boxes:
        """What torch does not look into."""

    session = TorchSession(lambda x: Boxes(), ["x"], "f32", CPU)
    with pytest.raises(TypeError, match="the model returns Boxes, in which torch finds no tensor; return tensors, or"):
        session.run({"x": np.zeros((1, 4), "float32")})


class Placed(torch.nn.Module):
    """As transformers have it: places that are counted anew and not saved, and a layer norm over many numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("places", torch.linspace(0, 1, 128)[:, None], persistent=False)
        self.widen, self.norm = torch.nn.Linear(384, 1536), torch.nn.LayerNorm(384)
        self.narrow = torch.nn.Linear(1536, 384)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.narrow(torch.nn.functional.gelu(self.widen(x + self.places))))


@pytest.mark.parametrize("backend", [XLA(), IREE(), OnnxRuntime()], ids=lambda backend: backend.label)
def test_compilers_take_what_a_transformer_has(backend: Backend, tmp_path: Path) -> None:
    workbench.need(backend)
    torch.manual_seed(0)
    shelf = Shelf.of(Placed(), (TensorSpec("x", (128, 384), "float32"),), tmp_path / "model")
    x = np.random.default_rng(0).standard_normal((1, 128, 384)).astype(np.float32)
    (answer,) = workbench.loaded(backend, shelf.take(backend.accepts), 1, tmp_path).run({"x": x})
    with torch.inference_mode():
        right = shelf.module()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(answer, right, atol=1e-4)
