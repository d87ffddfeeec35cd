"""The contract of transforms and backends, as tests. Two lines in a test file run it:

    # test_plugins.py
    from tuner.testing.contract import *

It finds the plugins of every installed package but the tuner's own (entry points of the group `tuner.plugins`). A
module that names some, `PLUGINS = [Mine, Other]`, has those tested and no others. docs/test-a-plugin.md says what is
asked of a plugin, test by test.
"""

import dataclasses
import gc
import getpass
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.artifact import Artifact
from tuner.candidate import Candidate
from tuner.dataset import batches
from tuner.errors import CandidateError, RequestError
from tuner.plugin import Backend, Plugin, Quantized, Transform, encode
from tuner.system.digests import files_digest
from tuner.system.loader import annotations, build
from tuner.target import Target
from tuner.tensors import Arrays
from tuner.testing import networks
from tuner.testing.networks import IMAGE, PAIR, Patterns, Shelf
from tuner.testing.variants import fitting, others, plain, unfitting, variants
from tuner.testing.workbench import LOADING, TARGET, applied, loaded, modules, need, runner, taken

__all__ = [
    "built",
    "net",
    "pair",
    "pytest_generate_tests",
    "test_a_backend_answers_as_the_float_model",
    "test_a_backend_takes_inputs_by_name_and_a_batch_of_one",
    "test_a_bad_value_is_refused_by_name",
    "test_a_plugin_is_a_frozen_value_that_names_its_libraries",
    "test_a_plugin_survives_json_and_pickle",
    "test_a_transform_keeps_the_accuracy_and_a_free_batch",
    "test_a_transform_says_where_a_search_should_start",
    "test_a_transform_that_finds_nothing_to_do_says_so",
    "test_an_artifact_loads_in_a_clean_process",
    "test_an_unknown_field_is_refused_by_name",
    "test_the_plugins_are_found",
    "test_what_cannot_run_says_why",
]

GPU = Target("a100", "nvidia", device_name="A100", onnxruntime_providers=("CUDAExecutionProvider",))
ERROR = {"f32": 1e-3, "tf32": 1e-2, "bf16": 3e-2, "f16": 1e-2}  # of outputs, relative to the largest
ACCURACY_DROP = 0.05
HEAVY = {"optuna", "mlflow", "hydra", "onnx", "nncf", "torch_pruning", "torch"}
"""Modules that an artifact is not to load, unless they are among its backend's own libraries."""
SHARED = {f"torchinductor_{getpass.getuser()}"}
"""What torch keeps in the temporary directory, once for all processes."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs each test over the plugins that its arguments ask for."""
    kinds: Sequence[type[Plugin]] = getattr(metafunc.module, "PLUGINS", None) or others()
    for name, family in (("plugin_kind", Plugin), ("backend_kind", Backend), ("transform_kind", Transform)):
        if name in metafunc.fixturenames:
            chosen = [kind for kind in kinds if issubclass(kind, family)]
            slow = family is not Plugin  # of all plugins together only their fields are looked at
            metafunc.parametrize(
                name,
                [pytest.param(kind, marks=[pytest.mark.slow] * (slow and kind.slow)) for kind in chosen],
                ids=[kind.__name__ for kind in chosen],
            )
    for name, family in (("backend_variant", Backend), ("transform_variant", Transform)):
        if name in metafunc.fixturenames:
            chosen = [kind for kind in kinds if issubclass(kind, family)]
            metafunc.parametrize(name, _parameters(metafunc.config, chosen))
    if "plugin_field" in metafunc.fixturenames:
        every = [(kind, name) for kind in kinds for name in annotations(kind)]
        metafunc.parametrize("plugin_field", every, ids=[f"{kind.__name__}.{name}" for kind, name in every])


def _parameters(config: pytest.Config, kinds: Sequence[type[Plugin]]) -> list[Any]:
    """One parameter set for each variant. What takes minutes to build is slow, and half precision on a CPU, for it is
    meant for GPUs."""
    if not any(line.startswith("slow") for line in config.getini("markers")):
        config.addinivalue_line("markers", "slow: takes more than half a minute")
    return [
        pytest.param(
            plugin,
            id=plugin.label,
            marks=[pytest.mark.slow] * (plugin.slow or getattr(plugin, "arithmetic", "") == "f16"),
        )
        for kind in kinds
        for plugin in variants(kind)
    ]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """A trained network for images."""
    return Shelf.of(networks.trained(), IMAGE, tmp_path_factory.mktemp("net") / "net")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """A network with two inputs and two outputs."""
    return Shelf.of(networks.Pair(), PAIR, tmp_path_factory.mktemp("pair") / "pair")


@pytest.fixture(scope="module")
def built() -> dict[Backend, Path]:
    """Artifacts at a batch of 3 that one test leaves for another, as compiling is slow."""
    return {}


def test_the_plugins_are_found(request: pytest.FixtureRequest) -> None:
    assert getattr(request.module, "PLUGINS", None) or others(), (
        "no installed package has an entry point of the group tuner.plugins, and this module has no PLUGINS"
    )


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_plugin_survives_json_and_pickle(plugin_kind: type[Plugin], data: st.DataObject) -> None:
    values = {name: data.draw(fitting(annotation)) for name, annotation in annotations(plugin_kind).items()}
    plugin = plugin_kind(**values)
    for copy in (build(json.loads(json.dumps(encode(plugin))), Plugin, "plugin"), pickle.loads(pickle.dumps(plugin))):
        assert copy == plugin
        assert hash(copy) == hash(plugin)
        assert encode(copy) == encode(plugin)
    assert plugin.label.strip() == plugin.label
    assert 0 < len(plugin.label) <= 40
    assert plugin.label.isprintable()


def test_a_plugin_is_a_frozen_value_that_names_its_libraries(plugin_kind: type[Plugin]) -> None:
    plugin = plain(plugin_kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plugin.anything = 1
    assert plugin_kind.libraries
    labels = [variant.label for variant in variants(plugin_kind)]
    assert len(set(labels)) == len(labels)


def test_a_bad_value_is_refused_by_name(plugin_field: tuple[type[Plugin], str]) -> None:
    kind, field = plugin_field
    for wrong in unfitting(annotations(kind)[field]):
        with pytest.raises(RequestError, match=field) as caught:
            plain(kind, **{field: wrong})
        assert _one_line(str(caught.value))


def test_an_unknown_field_is_refused_by_name(plugin_kind: type[Plugin]) -> None:
    with pytest.raises(RequestError, match="nonsense"):
        build(encode(plain(plugin_kind)) | {"nonsense": 1}, Plugin, "plugin")


def test_what_cannot_run_says_why(plugin_kind: type[Plugin]) -> None:
    if GPU.hardware.found():
        pytest.skip("such a device is here")
    plugin = plain(plugin_kind)
    reason = plugin.elsewhere(GPU) or plugin.unavailable(GPU)
    assert reason is None or _one_line(reason)
    assert reason is not None or isinstance(plugin, Transform)


# --- backends


def test_a_backend_answers_as_the_float_model(
    backend_variant: Backend, net: Shelf, built: dict[Backend, Path], tmp_path: Path
) -> None:
    need(backend_variant)
    model = taken(net, backend_variant.accepts)
    before = files_digest(model.directory)
    session = loaded(backend_variant, model, 3, tmp_path)
    built[backend_variant] = tmp_path / "artifact"
    inputs = {"image": Patterns().load("evaluation").inputs["image"][:3]}
    kept = {name: array.copy() for name, array in inputs.items()}
    deployed = Artifact(Candidate((), backend_variant, 3), TARGET, model.inputs, session)
    first = deployed.run(inputs)
    answered = first[0].copy()
    session.run({"image": kept["image"] + 1})
    np.testing.assert_array_equal(first[0], answered)  # whatever the runtime does with its memory
    second = session.run(inputs)
    assert files_digest(model.directory) == before
    np.testing.assert_array_equal(inputs["image"], kept["image"])
    np.testing.assert_array_equal(first[0], second[0])
    expected = networks.answers(networks.trained(), inputs).numpy()
    assert len(first) == 1
    assert first[0].shape == expected.shape
    assert first[0].dtype == np.float32
    assert np.abs(first[0] - expected).max() <= ERROR[backend_variant.arithmetic] * np.abs(expected).max()
    del session, deployed
    gc.collect()
    np.testing.assert_array_equal(first[0], answered)  # it is the caller's, when the session is gone too


def test_a_backend_takes_inputs_by_name_and_a_batch_of_one(
    backend_kind: type[Backend], pair: Shelf, tmp_path: Path
) -> None:
    backend = plain(backend_kind)
    need(backend)
    inputs: Arrays = {"scores": np.array([[1, 2, 3, 4]], np.float32), "ids": np.array([[0, 3, 5, 15]], np.int64)}
    for array in inputs.values():
        array.flags.writeable = False
    mixed, total = loaded(backend, taken(pair, backend.accepts), 1, tmp_path).run(inputs)
    expected = networks.answers(pair.module(), inputs)
    np.testing.assert_allclose(mixed, expected["mixed"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(total, expected["total"], rtol=1e-3, atol=1e-3)


def test_an_artifact_loads_in_a_clean_process(
    backend_kind: type[Backend], net: Shelf, built: dict[Backend, Path], tmp_path: Path
) -> None:
    backend = plain(backend_kind)
    need(backend)
    if backend not in built:
        loaded(backend, taken(net, backend.accepts), 3, tmp_path)
    moved = built.pop(backend, tmp_path / "artifact").rename(tmp_path / "moved")
    (temporary := tmp_path / "temporary").mkdir()
    arguments = [str(moved), *map(json.dumps, (encode(backend), sys.path, dataclasses.asdict(TARGET)))]
    done = subprocess.run(
        [sys.executable, "-c", LOADING, *arguments],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not set(json.loads(done.stdout.splitlines()[-1])) & HEAVY - modules(backend_kind.libraries)
    assert {path.name for path in temporary.iterdir()} <= SHARED


# --- transforms


def test_a_transform_says_where_a_search_should_start(transform_kind: type[Transform]) -> None:
    allowed = annotations(transform_kind)
    assert set(transform_kind.hardest) <= allowed.keys()
    assert set(transform_kind.hardest.values()) <= {"low", "high"}
    assert {transform_kind.weights, transform_kind.activations} <= {None, *get_args(Quantized)}
    assert isinstance(plain(transform_kind).usual, bool)


def test_a_transform_keeps_the_accuracy_and_a_free_batch(
    transform_variant: Transform, net: Shelf, tmp_path: Path
) -> None:
    need(transform_variant)
    model, samples = taken(net, (transform_variant.takes,)), Patterns().load("evaluation")
    before = files_digest(model.directory)
    changed = applied(transform_variant, model, tmp_path)
    assert files_digest(model.directory) == before
    backend = runner(changed.form)
    expected = [networks.answers(networks.trained(), inputs).numpy() for inputs, _ in batches(samples, 64)]
    for batch_size in (1, 64):
        place = tmp_path / str(batch_size)
        place.mkdir()
        session = loaded(backend, changed, batch_size, place)
        outputs = [session.run(inputs)[0].copy() for inputs, _ in batches(samples, batch_size)]
        lost = networks.accuracy(expected, samples.labels) - networks.accuracy(outputs, samples.labels)
        assert lost <= ACCURACY_DROP
        assert not np.array_equal(np.concatenate(outputs), np.concatenate(expected))


def test_a_transform_that_finds_nothing_to_do_says_so(transform_kind: type[Transform], tmp_path: Path) -> None:
    transform = plain(transform_kind)
    need(transform)
    model = taken(Shelf.of(networks.Activation(), IMAGE, tmp_path / "net"), (transform.takes,))
    with pytest.raises(CandidateError) as caught:
        applied(transform, model, tmp_path)
    assert caught.value.kind == "unsupported_op"
    assert _one_line(caught.value.sentence)


def _one_line(text: str) -> bool:
    return 10 < len(text) < 400 and "\n" not in text
