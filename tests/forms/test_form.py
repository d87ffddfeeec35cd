"""Forms of models and the routes between them: those that are there, and one that another distribution brings."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import outside, study
from tests.conftest import with_store
from tuner import artifact, catalog
from tuner.build.routes import conversions
from tuner.dataset import ArraySamples
from tuner.forms import batch_axis
from tuner.forms.onnx import ONNX
from tuner.forms.openvino import OPENVINO
from tuner.forms.torch import TORCH
from tuner.model import Form, Model
from tuner.plugins.conversions.torch_to_onnx import TorchToOnnx
from tuner.tensors import TensorSpec
from tuner.testing.fakes import CENTRES, INPUTS, write_linear
from tuner.testing.workbench import loaded, runner

TABLE = """
import json
import shutil
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from tuner.testing.fakes import INPUTS, WEIGHTS, Linear, Null, Product, Rounding
from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.plugin import Conversion
from tuner.model import Form

TABLE = Form("table", "model.json")

@dataclass(frozen=True)
class OnnxToTable(Conversion):
    takes: ClassVar[Form] = ONNX
    gives: ClassVar[Form] = TABLE
    libraries = ("onnx",)

    def convert(self, model, out):
        import onnx
        (weights,) = onnx.load(str(model.path)).graph.initializer
        (out / TABLE.file).write_text(json.dumps(onnx.numpy_helper.to_array(weights).tolist()))

@dataclass(frozen=True)
class Thinned(Rounding):
    gives: ClassVar[Form] = TABLE

    @property
    def label(self):
        return "thinned"

@dataclass(frozen=True)
class Tabular(Linear):
    form: ClassVar[Form] = TABLE

@dataclass(frozen=True)
class Reading(Null):
    accepts: ClassVar[tuple[Form, ...]] = (TABLE,)

    @property
    def label(self):
        return "reading"

    def compile(self, model, batch_size, target, out, cache):
        assert model.form == TABLE
        shutil.copyfile(model.path, out / TABLE.file)

    def load(self, folder, inputs, batch_size, target):
        return Product(np.array(json.loads((folder / TABLE.file).read_text()), np.float32), self.ms)
"""


def test_the_forms_are_found() -> None:
    assert {TORCH, ONNX, OPENVINO} <= set(catalog.values(Form))
    names = [form.name for form in catalog.values(Form)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("start", "accepted", "labels"),
    [
        (ONNX, (OPENVINO, ONNX), []),
        (TORCH, (OPENVINO, ONNX), ["torch-to-onnx"]),
        (TORCH, (TORCH,), []),
        (ONNX, (TORCH,), None),
        (OPENVINO, (), None),
    ],
)
def test_the_route_is_the_shortest_there_is(start: Form, accepted: Sequence[Form], labels: list[str] | None) -> None:
    route = conversions(start, accepted)
    assert (None if route is None else [conversion.label for conversion in route]) == labels


@pytest.mark.parametrize("form", [ONNX, OPENVINO], ids=str)
def test_a_model_is_known_by_its_content(form: Form, tmp_path: Path) -> None:
    models = []
    for name, weights in (("one", CENTRES.T), ("same", CENTRES.T), ("other", 2 * CENTRES.T)):
        (tmp_path / name).mkdir()
        write_linear(tmp_path / name, weights)
        models.append(Model(form, tmp_path / name, INPUTS))
    identities = [form.identity(model) for model in models]
    assert identities[0] == identities[1] != identities[2]


def test_a_module_is_known_by_its_weights_and_not_by_its_pickle(tmp_path: Path) -> None:
    models = []
    for name, factor in (("one", 1.0), ("same", 1.0), ("other", 2.0)):
        module = torch.nn.Linear(4, 3)
        module.load_state_dict({"weight": factor * torch.ones(3, 4), "bias": torch.zeros(3)})
        if name == "same":
            module.note = "it was saved on another day"
        (tmp_path / name).mkdir()
        torch.save(module, tmp_path / name / TORCH.file)
        models.append(Model(TORCH, tmp_path / name, INPUTS))
    identities = [TORCH.identity(model) for model in models]
    assert identities[0] == identities[1] != identities[2]


def run(folder: Path, *overrides: str) -> tuple[int, str]:
    """The exit code of a study that knows the plugins from outside, and what went wrong."""
    paths = os.pathsep.join([str(folder / "site"), str(study.ROOT)])
    with study.process(folder, "latency_ms=20", *overrides, env=os.environ | {"PYTHONPATH": paths}) as process:
        wrong = process.communicate()[1]
    return process.returncode, wrong


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """A study whose only backend takes a form from outside."""
    folder = with_store(tmp_path_factory.mktemp("table"), shared)
    outside.install(folder / "site", "table", TABLE)
    space = ["search_space.batch_size=[4]", study.deploy({"_target_": "table.Reading"})]
    compress = [None, {"_target_": "tuner.testing.fakes.Rounding"}, {"_target_": "table.Thinned"}]
    assert run(folder, "search_space.compress=" + study.literal(compress), *space)[0] == 0
    return folder


@pytest.mark.slow
def test_a_study_goes_through_a_form_from_outside(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = study.result(tuned)
    assert result["verdict"] in ("feasible", "certified")
    assert result["trials"]["complete"] == 2
    monkeypatch.syspath_prepend(tuned / "site")
    loaded = artifact.load(tuned / "out/linear-cpu-001/champion")
    (scores,) = loaded.run({"x": CENTRES})
    assert list(np.argmax(scores, axis=1)) == [0, 1, 2]


@pytest.mark.slow
def test_a_conversion_is_kept_by_content(tuned: Path) -> None:
    entries = sorted(path.name for path in (tuned / "cache/conversion").iterdir() if not path.name.startswith("."))
    assert len(entries) == 2, "one for the float model, one for the rounded"


@pytest.mark.slow
def test_a_transform_whose_result_nothing_can_check_is_left_out(tuned: Path) -> None:
    (reason,) = study.result(tuned)["left_out"].values()
    assert "it gives the model as table" in reason and "reference.table" in reason


@pytest.mark.slow
def test_a_model_in_a_form_that_no_reference_backend_takes_is_refused(tuned: Path) -> None:
    code, wrong = run(tuned, "model._target_=table.Tabular")
    assert code == 2
    assert "reference.table: the model is given as table" in wrong
    reference = "+reference.table._target_"
    code, wrong = run(tuned, "model._target_=table.Tabular", f"{reference}=tuner.no.such.Backend")
    assert code == 2
    assert "reference.table._target_=tuner.no.such.Backend" in wrong


class TimeFirst(torch.nn.Module):
    """As torch.nn.GRU comes: the batch is the second axis, and a state goes in and out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.GRU(3, 4)

    def forward(self, x: torch.Tensor, h0: torch.Tensor) -> Any:
        return self.layer(x, h0)


class Centred(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean()


class Anchored(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return 2 * x, torch.arange(5)


@pytest.mark.parametrize(
    ("kind", "shapes", "axes", "outputs", "size"),
    [
        (TimeFirst, {"x": (5, 3), "h0": (1, 4)}, [1, 1], (1, 1), None),
        (Anchored, {"x": (5, 3)}, [0], (0, None), None),
        (Centred, {"x": (5, 3)}, [0], (0,), 1),
    ],
)
def test_where_a_module_has_its_batch_is_tried(
    kind: type[torch.nn.Module], shapes: Any, axes: Any, outputs: Any, size: int | None, tmp_path: Path
) -> None:
    torch.save(kind(), tmp_path / TORCH.file)
    inputs = tuple(TensorSpec(name, shape, "float32") for name, shape in shapes.items())
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=(9, *shape)).astype("f4") for name, shape in shapes.items()}
    model = TORCH.described(Model(TORCH, tmp_path, inputs), ArraySamples(arrays, np.arange(9)))
    assert [spec.batch_axis for spec in model.inputs] == axes
    assert (model.outputs, model.batch_size) == (outputs, size)
    if size is None:
        (tmp_path / "onnx").mkdir()
        TorchToOnnx().convert(model, tmp_path / "onnx")
        place = replace(model, form=ONNX, directory=tmp_path / "onnx")
        for count in (1, 3):
            (tmp_path / str(count)).mkdir()
            batch = batch_axis.stacked(model.inputs, batch_axis.rows(ArraySamples(arrays, np.arange(9)), count))
            given = loaded(runner(ONNX), place, count, tmp_path / str(count)).run(batch)
            expected = torch.utils._pytree.tree_leaves(kind()(*map(torch.from_numpy, batch.values())))
            for one, other in zip(given, expected, strict=True):
                np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-4, atol=1e-5)
