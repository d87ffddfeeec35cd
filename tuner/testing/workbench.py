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


def _target() -> Target:
    name = os.environ.get("CONTRACT_TARGET")
    if not name:
        return Target("cpu", "cpu", threads=1)
    file = importlib.resources.files("tuner.conf") / "target" / f"{name}.yaml"
    return build(yaml.safe_load(file.read_text()), Target, "CONTRACT_TARGET")


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
    """A backend that runs here and takes that form."""
    for kind in members(Backend):
        backend: Backend = plain(kind)
        if form in kind.accepts and not (backend.elsewhere(TARGET) or backend.unavailable(TARGET)):
            return backend
    pytest.skip(f"no backend that takes {form} can run here")


def modules(libraries: Sequence[str]) -> set[str]:
    """The modules that these distributions bring."""
    brought = importlib.metadata.packages_distributions()
    return {module for module, owners in brought.items() if {*owners} & {*libraries}}
