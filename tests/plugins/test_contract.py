"""Every transform and backend keeps the contract of `tuner/plugin.py`. A new plugin is found, not listed."""

import ast
import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import contract
import numpy as np
import onnx
import pytest
import torch
from contract import BACKENDS, CPU, GPU, IMAGE, PAIR, TRANSFORMS, Patterns
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.errors import CandidateError, RequestError
from tuner.forms import onnx as onnx_form
from tuner.forms.onnx import ONNX
from tuner.forms.torch import TORCH
from tuner.plugin import Backend, Plugin, Transform, encode
from tuner.system.digests import files_digest
from tuner.system.fields import bounds, options
from tuner.system.loader import annotations, build
from tuner.workload import Form, Model, TensorSpec, batches

ROOT = Path(__file__).parents[2]
KINDS = [*TRANSFORMS, *BACKENDS]
ERROR = {"f32": 1e-3, "bf16": 3e-2, "f16": 1e-2}  # of outputs, relative to the largest
ACCURACY_DROP = 0.05


def _params(kinds: list[type[Plugin]]) -> list[Any]:
    """One parameter set for each variant; half precision runs on GPUs and is slow here."""
    return [
        pytest.param(plugin, id=plugin.label, marks=[pytest.mark.slow] * (getattr(plugin, "arithmetic", "") == "f16"))
        for kind in kinds
        for plugin in contract.variants(kind)
    ]


def _need(plugin: Plugin) -> None:
    if reason := plugin.unavailable(CPU):
        pytest.skip(reason)


def _one_line(text: str) -> bool:
    return 10 < len(text) < 400 and "\n" not in text


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[Form, Model]:
    return contract.saved(contract.trained(), IMAGE, tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[Form, Model]:
    torch.manual_seed(0)
    return contract.saved(contract.Pair(), PAIR, tmp_path_factory.mktemp("pair"))


def test_the_plugins_are_found() -> None:
    assert len(TRANSFORMS) >= 3
    assert len(BACKENDS) >= 4


# --- values


def _fitting(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that fit an annotation of a field."""
    plain, limits = bounds(annotation)
    if len(options(plain)) > 1:
        return st.one_of(map(_fitting, options(plain)))
    if get_origin(plain) is Literal:
        return st.sampled_from(get_args(plain))
    numbers = st.integers(0, 512) if plain is int else st.floats(0, 1)
    known = {bool: st.booleans(), type(None): st.none(), str: st.text(max_size=8)}
    if plain in known:
        return known[plain]
    return numbers.filter(lambda number: all(limit.holds(number) for limit in limits))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_plugin_survives_json_and_pickle(kind: type[Plugin], data: st.DataObject) -> None:
    plugin = kind(**{name: data.draw(_fitting(annotation)) for name, annotation in annotations(kind).items()})
    for copy in (build(json.loads(json.dumps(encode(plugin))), Plugin, "plugin"), pickle.loads(pickle.dumps(plugin))):
        assert copy == plugin
        assert hash(copy) == hash(plugin)
        assert encode(copy) == encode(plugin)
    assert plugin.label.strip() == plugin.label
    assert 0 < len(plugin.label) <= 40
    assert plugin.label.isprintable()


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_is_a_frozen_value_that_names_its_libraries(kind: type[Plugin]) -> None:
    plugin = contract.plain(kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plugin.anything = 1  # type: ignore[attr-defined]
    assert kind.libraries
    labels = [variant.label for variant in contract.variants(kind)]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, f.name) for kind in KINDS for f in dataclasses.fields(kind)], ids=str
)
def test_a_bad_value_is_refused_by_name(kind: type[Plugin], field: str) -> None:
    with pytest.raises(RequestError, match=field) as caught:
        contract.plain(kind, **{field: "nonsense" if field in contract.choices(kind) else -1})
    assert _one_line(str(caught.value))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_field_is_refused_by_name(kind: type[Plugin]) -> None:
    with pytest.raises(RequestError, match="nonsense"):
        build(encode(contract.plain(kind)) | {"nonsense": 1}, Plugin, "plugin")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_what_cannot_run_says_why(kind: type[Plugin]) -> None:
    plugin = contract.plain(kind)
    reason = plugin.elsewhere(GPU) or plugin.unavailable(GPU)
    assert reason is None or _one_line(reason)
    assert reason is not None or issubclass(kind, Transform)


# --- backends


def _load(backend: Backend, model: Model, batch_size: int, out: Path) -> Any:
    """A session of what the backend makes in `out / "artifact"`."""
    (out / "artifact").mkdir()
    (out / "cache").mkdir()
    backend.compile(model, batch_size, CPU, out / "artifact", out / "cache")
    return backend.load(out / "artifact", model.inputs, batch_size, CPU)


@pytest.fixture(scope="module")
def built() -> dict[Backend, Path]:
    """Artifacts at a batch of 3 that one test leaves for another, as compiling is slow."""
    return {}


@pytest.mark.parametrize("backend", _params(BACKENDS))
def test_a_backend_answers_as_the_float_model(
    backend: Backend,
    forms: dict[Form, Model],
    built: dict[Backend, Path],
    tmp_path: Path,
) -> None:
    _need(backend)
    model = contract.accepted(backend, forms)
    before = files_digest(model.directory)
    session = _load(backend, model, 3, tmp_path)
    built[backend] = tmp_path / "artifact"
    inputs = {"image": Patterns().load("evaluation").inputs["image"][:3]}
    kept = {name: array.copy() for name, array in inputs.items()}
    first = [output.copy() for output in session.run(inputs)]
    session.run({"image": kept["image"] + 1})
    second = session.run(inputs)
    assert files_digest(model.directory) == before
    np.testing.assert_array_equal(inputs["image"], kept["image"])
    np.testing.assert_array_equal(first[0], second[0])
    with torch.no_grad():
        expected = contract.trained()(torch.tensor(inputs["image"])).numpy()
    assert len(first) == 1
    assert first[0].shape == expected.shape
    assert first[0].dtype == np.float32
    assert np.abs(first[0] - expected).max() <= ERROR[backend.arithmetic] * np.abs(expected).max()


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_backend_takes_inputs_by_name_and_a_batch_of_one(
    kind: type[Backend], pair: dict[Form, Model], tmp_path: Path
) -> None:
    backend: Any = contract.plain(kind)
    _need(backend)
    inputs = {"scores": np.array([[1, 2, 3, 4]], np.float32), "ids": np.array([[0, 3, 5, 15]], np.int64)}
    for array in inputs.values():
        array.flags.writeable = False
    mixed, total = _load(backend, contract.accepted(backend, pair), 1, tmp_path).run(inputs)
    with torch.no_grad():
        module = torch.load(pair[TORCH].path, weights_only=False)
        expected = module(**{name: torch.tensor(array) for name, array in inputs.items()})
    np.testing.assert_allclose(mixed, expected["mixed"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(total, expected["total"], rtol=1e-3, atol=1e-3)


LOAD = """
import json, sys
from pathlib import Path
import numpy
from tuner.plugin import Backend
from tuner.system.fields import bounds, options
from tuner.system.loader import annotations, build
from tuner.target import Target
from tuner.workload import TensorSpec
folder, spec = Path(sys.argv[1]), json.loads(sys.argv[2])
backend, target = build(spec, Backend, "backend"), Target("cpu", "cpu", threads=1)
session = backend.load(folder, (TensorSpec("image", (1, 8, 8), "float32"),), 3, target)
assert session.run({"image": numpy.zeros((3, 1, 8, 8), "float32")})[0].shape[0] == 3
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize("kind", BACKENDS)
def test_an_artifact_loads_in_a_clean_process(
    kind: type[Backend], forms: dict[Form, Model], built: dict[Backend, Path], tmp_path: Path
) -> None:
    backend: Any = contract.plain(kind)
    _need(backend)
    if backend not in built:
        _load(backend, contract.accepted(backend, forms), 3, tmp_path)
    moved = built.pop(backend, tmp_path / "artifact").rename(tmp_path / "moved")
    command = [sys.executable, "-c", LOAD, str(moved), json.dumps(encode(backend))]
    # a module that was saved whole needs its class; a compiled one must not
    place = Path(__file__).parent if (moved / TORCH.file).exists() else tmp_path
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    foreign = {"optuna", "mlflow", "hydra", "onnx", "nncf", "torch_pruning"}
    assert not loaded & (foreign if TORCH in backend.accepts else foreign | {"torch"})


# --- transforms


@pytest.mark.parametrize("transform", _params(TRANSFORMS))
def test_a_transform_keeps_the_accuracy_and_a_free_batch(
    transform: Transform, forms: dict[Form, Model], tmp_path: Path
) -> None:
    _need(transform)
    model, samples = forms[transform.takes], Patterns().load("evaluation")
    before = files_digest(model.directory)
    changed = contract.applied(transform, model, tmp_path)
    assert files_digest(model.directory) == before
    backend = next(b for b in map(contract.plain, BACKENDS) if transform.gives in b.accepts and not b.unavailable(CPU))
    for batch_size in (1, 64):
        place = tmp_path / str(batch_size)
        place.mkdir()
        session = _load(backend, changed, batch_size, place)
        outputs = [session.run(inputs)[0].copy() for inputs, _ in batches(samples, batch_size)]
        float_outputs = [contract.trained()(torch.tensor(x["image"])).detach().numpy() for x, _ in batches(samples, 64)]
        lost = contract.accuracy([np.concatenate(float_outputs)], samples.labels)
        lost -= contract.accuracy([np.concatenate(outputs)], samples.labels)
        assert lost <= ACCURACY_DROP
    assert not np.array_equal(np.concatenate(outputs), np.concatenate(float_outputs))


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_a_transform_that_finds_nothing_to_do_says_so(kind: type[Transform], tmp_path: Path) -> None:
    transform: Any = contract.plain(kind)
    _need(transform)
    forms = contract.saved(contract.Activation(), IMAGE, tmp_path)
    with pytest.raises(CandidateError) as caught:
        contract.applied(transform, forms[transform.takes], tmp_path)
    assert caught.value.kind == "unsupported_op"
    assert _one_line(caught.value.sentence)


# --- the ONNX form that they take


def _edited(path: Path, edit: Any) -> bytes:
    proto = onnx.load(str(path))
    edit(proto.graph)
    return bytes(proto.SerializeToString())


def _fix_batch(graph: Any) -> None:
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 1


def _flatten_to_one(graph: Any) -> None:
    """As exporters leave a graph written for a batch of one: a constant shape in its middle."""
    _fix_batch(graph)
    reshape = next(node for node in graph.node if node.op_type in ("Reshape", "Flatten"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 512]), "to_one"))
    reshape.CopyFrom(onnx.helper.make_node("Reshape", [reshape.input[0], "to_one"], list(reshape.output)))


def test_a_fixed_batch_is_freed_and_external_data_drawn_in(forms: dict[Form, Model], tmp_path: Path) -> None:
    proto = onnx.load_from_string(_edited(forms[ONNX].path, _fix_batch))
    onnx.save(proto, str(tmp_path / "user.onnx"), save_as_external_data=True, size_threshold=0, location="weights")
    (tmp_path / "out").mkdir()
    onnx_form.copy_checked(tmp_path / "user.onnx", tmp_path / "out/model.onnx")
    assert onnx_form.graph_inputs(tmp_path / "out/model.onnx") == (onnx_form.GraphInput("image", (1, 8, 8), "float32"),)
    backend: Any = next(b for b in map(contract.plain, BACKENDS) if ONNX in b.accepts and not b.unavailable(CPU))
    session = _load(backend, Model(ONNX, tmp_path / "out", IMAGE), 3, tmp_path)
    assert session.run({"image": np.zeros((3, 1, 8, 8), np.float32)})[0].shape == (3, contract.CLASSES)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        (lambda path: b"not a graph", "not a valid ONNX model"),
        (lambda path: path.read_bytes()[:200], "not a valid ONNX model"),
        (lambda path: _edited(path, _flatten_to_one), "dynamic first axis"),
        (lambda path: _edited(path, lambda graph: graph.output[0].type.tensor_type.shape.ClearField("dim")), "scalar"),
    ],
)
def test_a_users_graph_is_refused_with_the_mend(
    content: Any, complaint: str, forms: dict[Form, Model], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "user.onnx").write_bytes(content(forms[ONNX].path))
    with pytest.raises(RequestError, match=complaint) as caught:
        onnx_form.copy_checked(tmp_path / "user.onnx", tmp_path / "model.onnx")
    assert str(caught.value).startswith("model.path=")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (TensorSpec("picture", (1, 8, 8), "float32"), "picture"),
        (TensorSpec("image", (1, 8, 8), "float64"), "float64"),
        (TensorSpec("image", (1, 9, 8), "float32"), "9"),
        (TensorSpec("image", (64,), "float32"), "64"),
    ],
)
def test_samples_that_do_not_fit_the_graph_are_refused(
    spec: TensorSpec, complaint: str, forms: dict[Form, Model]
) -> None:
    onnx_form.check_inputs(forms[ONNX].path, IMAGE)
    with pytest.raises(RequestError, match=complaint):
        onnx_form.check_inputs(forms[ONNX].path, (spec,))


class _Branch(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class _Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


class _Eigen(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).real


@pytest.mark.parametrize(("kind", "complaint"), [(_Branch, "data-dependent"), (_Sum, "batch"), (_Eigen, "eig")])
def test_what_torch_cannot_export_is_named(kind: type[torch.nn.Module], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(CandidateError, match=complaint) as caught:
        contract.saved(kind(), IMAGE, tmp_path)
    assert caught.value.kind == "unsupported_op"
    assert _one_line(caught.value.sentence)


# --- imports

# module of the engine -> where it may be imported at all, and whether at the top of the file
ENGINE = {
    "torch": ["forms/torch.py", "search/samplers.py"],
    "optuna": ["search/*.py"],
    "mlflow": ["tracking/*.py", "deploy/*.py"],
    "onnx": ["forms/onnx*.py"],
    "onnxruntime": [],
    "openvino": [],
    "nncf": [],
    "tvm": [],
    "torch_pruning": [],
}
AT_THE_TOP = {"optuna": ENGINE["optuna"], "mlflow": ENGINE["mlflow"], "torch": ["models/digits_networks.py"]}
MOST_PLUGINS = 4  # torch aside, files of plugins that import the same library


def _imports(path: Path) -> list[tuple[str, bool]]:
    """The libraries that a file imports, each with whether it does so when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test))
        for node in ast.walk(outer)
    }
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else names
        found += [(name.partition(".")[0], id(node) not in lazy) for name in names]
    return found


def test_a_heavy_library_is_imported_late_and_in_few_places() -> None:
    engine, extensions = sorted((ROOT / "tuner").rglob("*.py")), sorted((ROOT / "plugins").rglob("*.py"))
    places: dict[str, set[Path]] = {}
    for path in [*engine, *extensions]:
        for library, eager in _imports(path):
            if library not in ENGINE:
                continue
            assert not eager or any(path.match(p) for p in AT_THE_TOP.get(library, [])), f"{path}: {library} at the top"
            if path in engine:
                assert any(path.match(p) for p in ENGINE[library]), f"{path} imports {library}"
            else:
                places.setdefault(library, set()).add(path)
    crowded = {library: paths for library, paths in places.items() if len(paths) > MOST_PLUGINS and library != "torch"}
    assert not crowded
