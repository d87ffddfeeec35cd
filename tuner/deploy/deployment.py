"""An artifact on its way to other machines: what its manifest tells, and what is asked of it there."""

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner import artifact
from tuner.deploy.capacity import Calls, Capacity, between, capacity
from tuner.deploy.code import copy_code, needed, requirements
from tuner.errors import RequestError
from tuner.measurement import Latency, Measurement
from tuner.target import Target
from tuner.tensors import TensorSpec

PORT = 8080
_LONGEST_NAME = 50  # Kubernetes adds to it, and has 63


class Batching(Enum):
    """How the server there makes calls of requests."""

    PACED = "tune serve: of several requests along any axis, and several sessions keep apart"
    EAGER = "Triton: of several requests along the first axis, as soon as a session is free"
    NONE = "OpenVINO Model Server: one call for each request, which has a whole batch"

    def joins(self, inputs: Sequence[TensorSpec], outputs: Sequence[int | None]) -> bool:
        """Whether requests share a call, of such inputs and with these batch axes of the outputs."""
        axes = {spec.batch_axis for spec in inputs}
        match self:
            case Batching.PACED:
                return None not in axes
            case Batching.EAGER:
                return axes == {0} == {*outputs}
            case Batching.NONE:
                return False


@dataclass(frozen=True)
class Wanted:
    """What is asked of a deployment: samples per second, those that one replica `held` where that was measured, the
    limit in ms from a query's arrival to its answer (p99; of the study where it is None), the cores of a replica where
    its manifest does not tell, the container's image, modules of one's own that the model needs, and how the server
    batches."""

    rate: float | None = None
    held: float | None = None
    limit_ms: float | None = None
    cores: int | None = None
    image: str | None = None
    modules: Sequence[str] = ()
    batching: Batching = Batching.PACED


@dataclass(frozen=True)
class Deployment:
    """The packaged artifact in `folder`, by the `name` that it gets elsewhere."""

    folder: Path
    name: str
    manifest: artifact.Manifest
    facts: Mapping[str, Any]
    wanted: Wanted

    @classmethod
    def of(cls, folder: Path, name: str, wanted: Wanted) -> "Deployment":
        """Raises RequestError where no packaged artifact lies there, or it does not tell on how many cores it ran."""
        if not (folder / artifact.EXAMPLE).is_file():
            raise RequestError(f"{folder}: no packaged champion is there; name a study's folder champion/")
        facts = json.loads((folder / artifact.MANIFEST).read_text())
        manifest = artifact.read_manifest(folder)
        cores = wanted.cores or manifest.target.threads or facts.get("machine", {}).get("cores")
        if cores is None and manifest.target.hardware.far:  # the board has what it has
            cores = 1
        if cores is None:
            raise RequestError(
                f"{folder}: its manifest, of an earlier version, does not say how many cores it was measured with; "
                "give --cores N"
            )
        # whoever loads it elsewhere is to use as many, however many are there
        manifest = replace(manifest, target=replace(manifest.target, threads=cores))
        return cls(folder, _slug(name), manifest, facts, wanted)

    @property
    def cores(self) -> int:
        return self.manifest.target.threads

    @property
    def replica(self) -> Target:
        """The target as each of its sessions has it."""
        return self.manifest.target.share(self.manifest.candidate.replicas)

    @property
    def batch_size(self) -> int:
        return self.manifest.candidate.batch_size

    @property
    def files(self) -> Path:
        return self.folder / artifact.FILES

    @property
    def image(self) -> str:
        return self.wanted.image or f"{self.name}:latest"

    @cached_property
    def outputs(self) -> list[NDArray[Any]]:
        """What it answered to its example, a whole batch."""
        return artifact.read_example(self.folder)[1]

    @property
    def axes(self) -> tuple[int | None, ...]:
        """The batch axes of the outputs."""
        return self.manifest.outputs or (0,) * len(self.outputs)

    @property
    def measurement(self) -> Measurement:
        return Measurement.from_json(self.facts["measurement"])

    @property
    def limit_ms(self) -> float | None:
        return self.wanted.limit_ms or self.facts.get("goal", {}).get("latency_ms")

    @cached_property
    def calls(self) -> Calls:
        """How long a call takes. Raises RequestError where that was not measured."""
        candidate, file = self.manifest.candidate, self.folder / artifact.CALLS
        if file.is_file():
            ms = np.load(file)
            source = f"{len(ms):,} calls of the final race"
        elif (latency := self.measurement.latency_ms) is not None:
            ms = between(_percentiles(latency))
            source = "the four percentiles that its manifest, of an earlier version, has of its calls"
        else:
            raise RequestError(f"{self.folder}: its manifest has no latency; tune it again")
        return Calls(ms, self.batch_size, candidate.replicas, float(self.facts.get("evenness", 1.0)), source)

    @cached_property
    def capacity(self) -> Capacity:
        """Raises RequestError where no limit is known, none holds, or what is held depends on what is asked."""
        if self.limit_ms is None:
            raise RequestError("no limit on latency is known, the study had none: give --latency-ms N")
        if self.wanted.held is not None:
            return Capacity(self.wanted.held, self.limit_ms, "as --held says")
        if len(self.manifest.shapes) > 1:
            raise RequestError(
                "inputs of several lengths share no call, and how many a replica holds depends on their order: measure "
                "it with tune bench, and give --held R"
            )
        batching = self.wanted.batching
        paced = batching is Batching.PACED
        if self.batch_size == 1 or batching.joins(self.manifest.inputs, self.axes):
            return capacity(self.calls, self.limit_ms, paced)
        each = capacity(replace(self.calls, batch_size=1), self.limit_ms, paced)
        samples = self.batch_size if batching is Batching.NONE else 1
        return replace(each, rate=samples * each.rate, source=f"each request in a call of its own, {each.source}")

    def require_one_shape(self, what: str) -> None:
        """Raises RequestError where its inputs are of several lengths, each compiled for itself."""
        if len(artifact.buckets(self.files, self.manifest.candidate.backend, self.manifest)) > 1:
            raise RequestError(
                f"{what} takes inputs of one length, and {self.manifest.candidate.label} is compiled for "
                f"{len(self.manifest.shapes)}: --format docker serves them all"
            )

    def requirements(self, *more: str) -> list[str]:
        """What pip installs for the artifact's own runtime, and for `more`, with all that these require."""
        backend = self.manifest.candidate.backend
        if backend.requirements:  # an environment of its own: pip finds what goes with them
            return sorted({*backend.requirements, *requirements({*more}, {})})
        libraries = needed({"numpy", *backend.libraries, *more})
        return requirements(libraries, self.facts["versions"])

    def copy_with_code(self, to: Path, sessions: int) -> set[str]:
        """Copies the artifact as `to / champion`, with so many sessions, and what loads it as `to / code`. Returns the
        distributions of plugins that pip installed."""
        shutil.copytree(self.folder, to / "champion")
        candidate = replace(self.manifest.candidate, replicas=sessions)
        target = self.manifest.target if sessions > 1 else self.replica
        facts = {"candidate": candidate.to_json(), "target": {**self.facts["target"], "threads": target.threads}}
        artifact.extend_manifest(to / "champion", **facts)
        modules = {type(part).__module__ for part in (*candidate.transforms, candidate.backend)}
        return copy_code(modules.union(self.wanted.modules), to / "code")


def batch_bytes(deployment: Deployment) -> int:
    """Of the inputs and outputs of all sessions at once."""
    manifest, size = deployment.manifest, deployment.batch_size
    inputs = sum(math.prod(spec.full(size)) * np.dtype(spec.dtype).itemsize for spec in manifest.inputs)
    return manifest.candidate.replicas * (inputs + sum(output.nbytes for output in deployment.outputs))


def _percentiles(latency: Latency) -> dict[float, float]:
    return {float(q): latency.percentile(q) for q in (50, 90, 95, 99)}


def _slug(name: str) -> str:
    """A name that Kubernetes, Triton and registries of images take."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    return slug if slug[:1].isalpha() else f"model-{slug}".strip("-")
