"""From a candidate to its artifact: transforms, conversion, compilation, each kept by content.

Each stage runs in a worker of its own, which has loaded nothing else. Its key names everything that decides the
result: the model it starts from, the plugin with its parameters and code, library versions, and for transforms
the dataset, for compilation the target, the processor and the batch size.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner import artifact, tables
from tuner.build.routes import conversions
from tuner.build.store import Store
from tuner.build.versions import plugin_version, versions
from tuner.candidate import Candidate
from tuner.dataset import Dataset
from tuner.errors import CandidateError, Kind
from tuner.model import Form, Model
from tuner.plugin import Backend, Conversion, Plugin, Transform, encode
from tuner.system.deadline import Deadline
from tuner.system.digests import digest
from tuner.system.launcher import Launcher
from tuner.system.machine import saturates_int8
from tuner.target import Target


@dataclass(frozen=True)
class Source:
    """The float model on disk, and the dataset whose samples transforms may use."""

    model: Model
    dataset: Dataset


def unrolled(transforms: tuple[Transform, ...]) -> list[tuple[Transform, ...]]:
    """The chains of stages that stand for these transforms: the structure alone, then with one more stage of training
    each, the last of them all."""
    stages = [transform.stages() for transform in transforms]
    most = max(map(len, stages), default=1)
    return [tuple(stage for several in stages for stage in several[:depth]) for depth in range(1, most + 1)]


def steps(transforms: tuple[Transform, ...]) -> list[Transform]:
    """What is applied for these transforms, one after the other: every stage, after its groundwork."""
    return [step for stage in unrolled(transforms)[-1] for step in (stage.groundwork(), stage) if step is not None]


_LASTING: tuple[Kind, ...] = ("unsupported_op", "compile", "error")
"""Failures that would come again; a process that died or took too long may have more luck."""


class Builder:
    """Builds artifacts from one source for one target, remembering every stage in the store.

    `failures` are the stages that failed so far, by their key: what shares one with another candidate is not tried
    again.
    """

    def __init__(
        self,
        source: Source,
        target: Target,
        store: Store,
        launcher: Launcher,
        log: Path,
        failures: dict[str, CandidateError],
    ) -> None:
        self._source = source
        self._target = target
        self._store = store
        self._launcher = launcher
        self._log = log
        self._failures = failures

    def transformed(self, transforms: tuple[Transform, ...], deadline: Deadline) -> Model:
        """The model after these transforms. Raises CandidateError."""
        model = self._source.model
        for step in steps(transforms):
            model = self._applied(step, self.converted(model, (step.takes,), deadline), deadline)
        return model

    def converted(self, model: Model, accepted: Sequence[Form], deadline: Deadline) -> Model:
        """The model in an accepted form. Raises CandidateError."""
        for conversion in self._route(model.form, accepted):
            model = self._applied(conversion, model, deadline)
        return model

    def has(self, transforms: tuple[Transform, ...]) -> bool:
        """Whether the model after these transforms is kept already."""
        form, key = self._source.model.form, self._source.model.key
        for step in steps(transforms):
            for conversion in self._route(form, (step.takes,)):
                key = digest(self._made_from(conversion, key))
            made_from = self._made_from(step, key)
            if self._store.get("transform", made_from) is None:
                return False
            form, key = step.gives, digest(made_from)
        return True

    def compiled(self, candidate: Candidate, deadline: Deadline) -> Path:
        """The folder of the candidate's artifact, with its manifest. Raises CandidateError."""
        return self.compile(self.transformed(candidate.transforms, deadline), candidate, deadline)

    def compile(self, model: Model, candidate: Candidate, deadline: Deadline) -> Path:
        """The artifact of `candidate`, whose transforms gave `model`. Raises CandidateError."""
        backend = candidate.backend
        model = self.converted(model, backend.accepts, deadline)
        made_from = {
            "model": model.key,
            "candidate": candidate.to_json(),
            "code": plugin_version(backend, self._launcher),
            "target": self._target.runs() | self._target.here,
        }
        cache = self._store.folder(self._store.home(type(backend)))
        plugins = (*candidate.transforms, backend)
        described: dict[str, Any] = {
            "versions": {"python": platform.python_version(), **versions(plugins, self._launcher)}
        }
        if (environment := self._launcher.with_libraries_of(backend).environment) is not None:
            described["environment"] = environment.to_json()
        return self._make(
            "artifact",
            made_from,
            deadline,
            backend,
            lambda out: (_compile, (candidate, model, self._target, described, out, cache)),
        )

    def _route(self, form: Form, accepted: Sequence[Form]) -> tuple[Conversion, ...]:
        route = conversions(form, accepted)
        if route is None:
            names = " or ".join(map(str, accepted))
            raise CandidateError("unsupported_op", f"no conversion leads from {form} to {names}")
        return route

    def _applied(self, step: Transform, model: Model, deadline: Deadline) -> Model:
        made_from = self._made_from(step, model.key)
        stage = "conversion" if isinstance(step, Conversion) else "transform"
        arguments = (model, self._source.dataset, self._target)
        folder = self._make(stage, made_from, deadline, step, lambda out: (_apply, (step, *arguments, out)))
        return replace(model, form=step.gives, directory=folder, key=digest(made_from))

    def _made_from(self, step: Transform, key: str) -> dict[str, Any]:
        """Everything that decides what the step makes of the model with that key."""
        made_from: dict[str, Any] = {"model": key, "transform": encode(step)}
        made_from["code"] = plugin_version(step, self._launcher)
        if isinstance(step, Conversion):
            return made_from
        made_from |= {"dataset": self._source.dataset.key(), "device": self._target.device}
        return made_from | {"saturates": True} if step.quantizes and saturates_int8() else made_from

    def _make(
        self,
        stage: str,
        made_from: dict[str, Any],
        deadline: Deadline,
        plugin: Plugin,
        work: Callable[[Path], tuple[Callable[..., None], tuple[Any, ...]]],
    ) -> Path:
        launcher = self._launcher.with_libraries_of(plugin)

        def fill(draft: Path) -> None:
            left_s = deadline.left_s()
            with launcher.open(self._log) as worker:
                function, arguments = work(draft)
                worker.run_for(left_s, function, *arguments)

        key = digest([stage, made_from])
        if key in self._failures:
            raise self._failures[key]
        try:
            # of one model at several batch sizes; what is yet to be read as a model stays whole, for onnx refuses links
            return self._store.make(stage, made_from, fill, deadline.stopped, linked=stage == "artifact")
        except CandidateError as error:
            if error.kind in _LASTING:
                self._failures[key] = error
            raise


def _apply(step: Transform, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
    step.apply(model, dataset, target, out)
    tables.carry(model.directory, out)


def _compile(
    candidate: Candidate, model: Model, target: Target, described: Mapping[str, Any], out: Path, cache: Path
) -> None:
    backend: Backend = candidate.backend
    files = out / artifact.FILES
    files.mkdir()
    for place, inputs in artifact.buckets(files, backend, model):
        place.mkdir(exist_ok=True)
        alone = replace(model, inputs=inputs, shapes=())
        backend.compile(alone, candidate.batch_size, target.share(candidate.replicas), place, cache)
        tables.gather(place, out / tables.TABLES, "" if place == files else f"-{place.name}")
    tables.carry(model.directory, out / tables.TABLES)
    more: dict[str, Any] = {"outputs": model.outputs, "shapes": [shape.to_json() for shape in model.shapes]}
    artifact.write_manifest(out, candidate, target, model.inputs, **more, **described)
