"""On the GPU that a target names: torch eager and inductor run there, and a call returns when the device is done."""

from pathlib import Path

import numpy as np
import pytest

from tuner.model import Model
from tuner.plugin import Backend, Session
from tuner.plugins.backends.eager import Eager
from tuner.plugins.backends.inductor import Inductor
from tuner.plugins.backends.torch_compile import TorchCompile
from tuner.request import compose as configure
from tuner.target import Target
from tuner.testing.networks import IMAGE, Patterns, Shelf, trained

pytestmark = pytest.mark.gpu
BACKENDS = [kind(precision) for kind in (Eager, TorchCompile, Inductor) for precision in ("f32", "bf16")]


@pytest.fixture(scope="module")
def target() -> Target:
    """The first of our GPU targets that this machine is."""
    found = [target for target in configure.targets([]).values() if target.device == "nvidia" and target.present]
    if not found:
        pytest.fail("this machine has none of the GPUs that conf/target names")
    return found[0]


def own_model(folder: Path) -> Model:
    return Shelf.of(trained(), IMAGE, folder / "model").model


def loaded(backend: Backend, model: Model, batch_size: int, target: Target, out: Path) -> Session:
    for folder in (out, out / "cache"):
        folder.mkdir()
    backend.compile(model, batch_size, target, out, out / "cache")
    return backend.load(out, model.inputs, batch_size, target)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.label)
def test_it_answers_as_on_the_cpu(backend: Backend, target: Target, tmp_path: Path) -> None:
    assert backend.unavailable(target) is None
    model = own_model(tmp_path)
    inputs = {"image": Patterns().load("evaluation").inputs["image"][:8]}
    expected = loaded(Eager(), model, 8, Target("cpu", "cpu"), tmp_path / "cpu").run(inputs)[0]
    found = loaded(backend, model, 8, target, tmp_path / "gpu").run(inputs)[0]
    np.testing.assert_allclose(found, expected, atol=0.05 if backend.arithmetic == "bf16" else 5e-3)


def test_a_call_ends_when_the_device_is_done(target: Target, tmp_path: Path) -> None:
    import torch

    session = loaded(Eager(), own_model(tmp_path), 8, target, tmp_path / "gpu")
    inputs = {"image": Patterns().load("evaluation").inputs["image"][:8]}
    busy = torch.randn(8192, 8192, device=target.hardware.torch)
    for _ in range(10):
        busy = busy @ busy.softmax(-1)  # queued before the call, on the same stream
    session.run(inputs)
    assert torch.cuda.current_stream().query(), "the call returned while the device was still at work"
