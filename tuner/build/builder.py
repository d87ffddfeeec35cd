"""From a candidate to its artifact: transforms, conversion, compilation, each kept by content.

Each stage runs in a worker of its own, which has loaded nothing else. Its key names everything that decides the
result: the model it starts from, the plugin with its parameters and code, library versions, and for transforms
the dataset, for compilation the target and the batch size.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tuner import artifact
from tuner.build.store import Store
from tuner.build.versions import plugin_version, versions
from tuner.candidate import Candidate
from tuner.measure.flops import Work, work
from tuner.plugin import Backend, Transform, encode
from tuner.system.deadline import Deadline
from tuner.system.digests import digest
from tuner.system.environment import library_versions
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.workload import Dataset, Form, Model

EXPORT_LIBRARIES = {"torch", "onnx", "onnxscript"}


@dataclass(frozen=True)
class Source:
    """The float model on disk, its content key, and the dataset whose samples transforms may use."""

    model: Model
    key: str
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


class Builder:
    """Builds artifacts from one source for one target, remembering every stage in the store."""

    def __init__(self, source: Source, target: Target, store: Store, launcher: Launcher, log: Path) -> None:
        self._source = source
        self._target = target
        self._store = store
        self._launcher = launcher
        self._log = log

    def transformed(self, transforms: tuple[Transform, ...], deadline: Deadline) -> tuple[Model, str]:
        """The model after these transforms, and its content key. Raises CandidateError."""
        model, key = self._source.model, self._source.key
        for transform in steps(transforms):
            model, key = self._as(model, key, (transform.takes,), deadline)
            made_from = self._transform_key(transform, key)
            before = model
            folder = self._make(
                "transform",
                made_from,
                deadline,
                self._launcher.with_libraries(transform.requirements),
                lambda out, t=transform, m=before: (t.apply, (m, self._source.dataset, self._target, out)),  # type: ignore[misc]
            )
            model, key = replace(before, form=transform.gives, directory=folder), digest(made_from)
        return model, key

    def has(self, transforms: tuple[Transform, ...]) -> bool:
        """Whether the model after these transforms is kept already."""
        form, key = self._source.model.form, self._source.key
        for transform in steps(transforms):
            if form != transform.takes:
                key = digest(self._onnx_key(key))
            made_from = self._transform_key(transform, key)
            if self._store.get("transform", made_from) is None:
                return False
            form, key = transform.gives, digest(made_from)
        return True

    def compiled(self, candidate: Candidate, deadline: Deadline) -> Path:
        """The folder of the candidate's artifact, with its manifest. Raises CandidateError."""
        model, key = self.transformed(candidate.transforms, deadline)
        return self.compile(model, key, candidate, deadline)

    def compile(self, model: Model, key: str, candidate: Candidate, deadline: Deadline) -> Path:
        """The artifact of `candidate`, whose transforms gave `model` with that key."""
        backend = candidate.backend
        model, key = self._as(model, key, backend.accepts, deadline)
        made_from = {
            "model": key,
            "candidate": candidate.to_json(),
            "code": plugin_version(backend, self._launcher),
            "target": {k: v for k, v in asdict(self._target).items() if k not in ("peak_tflops", "memory_gb_s")},
        }
        cache = self._store.folder(f"{type(backend).__module__}.{type(backend).__qualname__}")
        described = versions((*candidate.transforms, backend), self._launcher)
        return self._make(
            "artifact",
            made_from,
            deadline,
            self._launcher.with_libraries(backend.requirements),
            lambda out: (_compile, (candidate, model, self._target, described, out, cache)),
        )

    def work(self, transforms: tuple[Transform, ...], deadline: Deadline) -> Work | None:
        """The arithmetic of the model after these transforms, as far as they leave it a torch module: what comes after,
        quantizers, keeps the products and changes their precision. None where it cannot be counted."""
        last = max((i + 1 for i, transform in enumerate(transforms) if transform.gives == "torch"), default=0)
        model, key = self.transformed(transforms[:last], deadline)
        model, key = self._as(model, key, ("onnx",), deadline)

        def fill(out: Path) -> None:
            with self._launcher.open(self._log) as worker:
                counted = worker.run_for(120, work, model.path, model.inputs)
            (out / "work.json").write_text(json.dumps(counted and asdict(counted)))

        folder = self._store.make("work", {"model": key}, fill)
        found = json.loads((folder / "work.json").read_text())
        return Work(**found) if found else None

    def _as(self, model: Model, key: str, forms: tuple[Form, ...], deadline: Deadline) -> tuple[Model, str]:
        if model.form in forms:
            return model, key
        made_from = self._onnx_key(key)
        folder = self._make("onnx", made_from, deadline, self._launcher, lambda out: (_export, (model, out)))
        return replace(model, form="onnx", directory=folder), digest(made_from)

    def _onnx_key(self, key: str) -> dict[str, Any]:
        return {"model": key, "to": "onnx", "versions": library_versions(EXPORT_LIBRARIES)}

    def _transform_key(self, transform: Transform, key: str) -> dict[str, Any]:
        return {
            "model": key,
            "transform": encode(transform),
            "code": plugin_version(transform, self._launcher),
            "dataset": self._source.dataset.key(),
            "device": self._target.device,
        }

    def _make(
        self,
        stage: str,
        made_from: dict[str, Any],
        deadline: Deadline,
        launcher: Launcher,
        work: Callable[[Path], tuple[Callable[..., None], tuple[Any, ...]]],
    ) -> Path:
        def fill(draft: Path) -> None:
            left_s = deadline.left_s()
            with launcher.open(self._log) as worker:
                function, arguments = work(draft)
                worker.run_for(left_s, function, *arguments)

        return self._store.make(stage, made_from, fill, deadline.stopped)


def _export(model: Model, out: Path) -> None:
    from tuner.plugins.conversions.torch_to_onnx import from_torch

    from_torch(model, out)


def _compile(
    candidate: Candidate, model: Model, target: Target, versions: Mapping[str, str], out: Path, cache: Path
) -> None:
    backend: Backend = candidate.backend
    files = out / artifact.FILES
    files.mkdir()
    backend.compile(model, candidate.batch_size, target, files, cache)
    artifact.write_manifest(out, candidate, target, model.inputs, versions)
