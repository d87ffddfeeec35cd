"""Transforms applied, and backends compiled and loaded, in this process.

On one core of this machine's CPU, or on the target of conf/ that `CONTRACT_TARGET` names in the environment.
"""

import dataclasses
import importlib.metadata
import importlib.resources
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tuner.build.builder import steps
from tuner.catalog import members
from tuner.model import Form, Model
from tuner.plugin import Backend, Plugin, Session, Transform
from tuner.system.loader import build
from tuner.target import Target
from tuner.testing.networks import Patterns, Shelf
from tuner.testing.variants import plain

LOADING = """
import json, os, signal, site, sys
[site.addsitedir(place) for place in json.loads(sys.argv[3])]  # with .pth files: an editable install is nothing else
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
import numpy
from tuner.plugin import Backend
from tuner.system.loader import build
from tuner.target import Target
from tuner.tensors import TensorSpec
folder, spec, target = Path(sys.argv[1]), json.loads(sys.argv[2]), Target.from_json(json.loads(sys.argv[4]))
backend = build(spec, Backend, "backend")
specs = (TensorSpec("image", (1, 8, 8), "float32"),)
session = backend.load(folder, specs, 3, target)
assert session.run({"image": numpy.zeros((3, 1, 8, 8), "float32")})[0].shape[0] == 3
batches = numpy.random.default_rng(0).random((8, 3, 1, 8, 8), "float32")
alone = [session.run({"image": batch})[0].copy() for batch in batches]
def difference(replica):
    return float(max(numpy.abs(replica.run({"image": b})[0] - a).max() for b, a in zip(batches, alone)))
count = 2 if target.hardware.host else 1
replicas = backend.load_replicas(folder, specs, 3, replace(target, threads=count), count)
assert max(ThreadPoolExecutor(2).map(difference, replicas)) < 1e-2
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
"""What a process does that loads an artifact, runs it, and is killed as workers are: `FOLDER BACKEND PATH TARGET`."""


def _target() -> Target:
    name = os.environ.get("CONTRACT_TARGET")
    if not name:
        return Target("cpu", "cpu", threads=1)
    file = importlib.resources.files("tuner.conf") / "target" / f"{name}.yaml"
    node = yaml.safe_load(file.read_text())
    node.pop("defaults", None)  # of Hydra
    return build(node, Target, "CONTRACT_TARGET")


TARGET = _target()


def need(plugin: Plugin) -> None:
    """Skips the test where the plugin cannot work on this target."""
    if reason := plugin.elsewhere(TARGET) or plugin.unavailable(TARGET):
        pytest.skip(reason)


def taken(shelf: Shelf, accepted: Sequence[Form]) -> Model:
    """The network in one of those forms; skips the test where there is no way to any."""
    try:
        return shelf.take(accepted)
    except LookupError as error:
        pytest.skip(str(error))


def loaded(backend: Backend, model: Model, batch_size: int, out: Path) -> Session:
    """A session of what the backend makes in `out / "artifact"`."""
    (out / "artifact").mkdir()
    (out / "cache").mkdir()
    backend.compile(model, batch_size, TARGET, out / "artifact", out / "cache")
    return backend.load(out / "artifact", model.inputs, batch_size, TARGET)


def applied(transform: Transform, model: Model, folder: Path) -> Model:
    """The model after every stage of the transform."""
    for number, stage in enumerate(steps((transform,))):
        out = folder / f"stage{number}"
        out.mkdir()
        stage.apply(model, Patterns(), TARGET, out)
        model = dataclasses.replace(model, form=stage.gives, directory=out)
    return model


def runner(form: Form) -> Backend:
    """A backend that runs here and takes that form, one that compiles in seconds if there is any."""
    for kind in sorted(members(Backend), key=lambda kind: kind.slow):
        backend: Backend = plain(kind)
        if form in kind.accepts and not (backend.elsewhere(TARGET) or backend.unavailable(TARGET)):
            return backend
    pytest.skip(f"no backend that takes {form} can run here")


def modules(libraries: Sequence[str]) -> set[str]:
    """The modules that these distributions bring."""
    brought = importlib.metadata.packages_distributions()
    return {module for module, owners in brought.items() if {*owners} & {*libraries}}
