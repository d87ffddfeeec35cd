"""What a study delivers: a folder that loads with its own runtime and nothing of the search.

    from pathlib import Path
    from tuner import artifact

    deployed = artifact.load(Path("champion"))
    outputs = deployed.run({"x": batch})

`manifest.json` holds the candidate, the target, the inputs, the versions and the checksums, and in a packaged
champion its measurements, the study's goal and its machine; `example.npz` holds a batch of real inputs and the outputs
it gave, `calls_ms.npy` how long its calls took in the race, in their order.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.candidate import Candidate
from tuner.model import Model
from tuner.plugin import Backend, Session
from tuner.pool import Buckets, Pool
from tuner.proxy import Proxy, environment_of
from tuner.target import Target
from tuner.tensors import Arrays, Shape, TensorSpec

MANIFEST = "manifest.json"
EXAMPLE = "example.npz"
CALLS = "calls_ms.npy"
FILES = "files"


@dataclass(frozen=True)
class Artifact(Session):
    """A loaded artifact: what answers as the model itself would, and what is timed."""

    candidate: Candidate
    target: Target
    inputs: tuple[TensorSpec, ...]
    session: Session
    outputs: tuple[int | None, ...] = ()
    """The batch axes of the outputs, None where one has none; where it is empty they all begin with the batch."""
    shapes: tuple[Shape, ...] = ()
    """Those that inputs of variable lengths may have; `inputs` are the largest."""

    @property
    def batch_size(self) -> int:
        return self.candidate.batch_size

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Answers up to `batch_size` samples, shapes `spec.full(n)`, as the model itself would; a short batch is padded
        and cut. Of variable lengths, each call takes one of those that were declared.

        What it returns is the caller's: no later call changes it. Raises ValueError, with the input's name, where one
        is missing, superfluous, of another shape or of another dtype: nothing is cast.
        """
        for whole in self._whole:
            if inputs.keys() == whole.keys() and all(
                type(array) is np.ndarray and (array.shape, array.dtype) == whole[name] and array.flags.c_contiguous
                for name, array in inputs.items()
            ):
                return self.session.run(inputs)  # nothing to check or to cut
        lengths, count = self.fit(inputs)
        outputs = self.session.run({spec.name: self._filled(spec, inputs[spec.name], count) for spec in lengths})
        if count == self.batch_size:  # of one sample, what has no batch axis may be of any length
            return outputs
        return [np.array(cut(o, axis, 0, count)) for o, axis in zip(outputs, self.axes(outputs), strict=True)]

    def fit(self, inputs: Arrays) -> tuple[tuple[TensorSpec, ...], int]:
        """The declared inputs whose lengths these have, and the number of samples. Raises ValueError as `run` does."""
        if inputs.keys() != self._whole[0].keys():
            raise ValueError(f"inputs are {sorted(inputs)}; this artifact takes {[s.name for s in self.inputs]}")
        lengths = self._lengths(inputs)
        return lengths, self._count(lengths, inputs)

    def now(self) -> float:
        return self.session.now()

    @property
    def replicas(self) -> "list[Artifact]":
        """One for each of its sessions, to be called from a thread of its own."""
        sessions = self.session.sessions if isinstance(self.session, Pool) else (self.session,)
        return [replace(self, session=session) for session in sessions]

    @property
    def declared(self) -> tuple[Shape, ...]:
        """The shapes that it takes: several where lengths were declared, else that of its inputs."""
        return self.shapes or (Shape(self.inputs),)

    @cached_property
    def _whole(self) -> list[dict[str, tuple[tuple[int, ...], np.dtype[Any]]]]:
        """The shape and dtype of a whole batch of each input, for each of the declared lengths."""
        size = self.batch_size
        return [{s.name: (s.full(size), np.dtype(s.dtype)) for s in shape.inputs} for shape in self.declared]

    def _filled(self, spec: TensorSpec, array: NDArray[Any], count: int) -> NDArray[Any]:
        """The input as a whole batch; one that is whole is handed on as it is, for a session changes no input."""
        if count == self.batch_size or spec.batch_axis is None:
            return np.asarray(array, spec.dtype, order="C")  # the same, but for the order of its bytes
        filled = np.zeros(spec.full(self.batch_size), spec.dtype)
        cut(filled, spec.batch_axis, 0, count)[...] = array
        return filled

    def answer(self, samples: Arrays) -> list[NDArray[Any]]:
        """`run` with samples along the first axis of every input, and of every output that has a batch axis."""
        lengths = next(
            (s.inputs for s in self.shapes if all(samples[i.name].shape[1:] == i.shape for i in s.inputs)), self.inputs
        )
        outputs = self.run({spec.name: spec.placed(samples[spec.name]) for spec in lengths})
        axes = self.axes(outputs)
        return [o if axis is None else np.moveaxis(o, axis, 0) for o, axis in zip(outputs, axes, strict=True)]

    def axes(self, outputs: Sequence[NDArray[Any]]) -> tuple[int | None, ...]:
        """The batch axis of each of these outputs, None where it has none."""
        return self.outputs or (0,) * len(outputs)

    def _lengths(self, inputs: Arrays) -> tuple[TensorSpec, ...]:
        """The declared shape that these inputs have; the largest where they have none."""
        for shape in self.shapes:
            arrays = [(spec, np.shape(inputs[spec.name])) for spec in shape.inputs]
            if all(len(s) > (i.batch_axis or 0) and s == i.full(s[i.batch_axis or 0]) for i, s in arrays):
                return shape.inputs
        return self.inputs

    def _count(self, lengths: Sequence[TensorSpec], inputs: Arrays) -> int:
        """The number of samples. Raises ValueError where an input is not what the artifact takes."""
        count = 0
        for spec in lengths:
            array = inputs[spec.name]
            if not isinstance(array, np.ndarray) or array.dtype.name != spec.dtype:
                given = getattr(array, "dtype", type(array).__name__)
                raise ValueError(f"input {spec.name!r} is {given}; this artifact takes an array of {spec.dtype}")
            if not count and spec.batch_axis is not None and array.ndim > spec.batch_axis:
                count = array.shape[spec.batch_axis]
            fits = array.shape == spec.full(count) and (spec.batch_axis is None or 0 < count <= self.batch_size)
            if not fits:
                others = [other for shape in self.shapes for other in shape.inputs if other.name == spec.name]
                takes = " or ".join(dict.fromkeys(self._shape(other) for other in others or [spec]))
                raise ValueError(f"input {spec.name!r} has shape {array.shape}; this artifact takes {takes}")
        return count or 1

    def _shape(self, spec: TensorSpec) -> str:
        sizes = list(map(str, spec.full(self.batch_size)))
        if spec.batch_axis is not None:
            sizes[spec.batch_axis] = f"1…{self.batch_size}"
        return f"({', '.join(sizes)})"


def cut(array: NDArray[Any], axis: int | None, start: int, stop: int) -> NDArray[Any]:
    """A view from `start` to `stop` along the axis; all of it where there is none."""
    return array if axis is None else array[(*[slice(None)] * axis, slice(start, stop))]


def first(inputs: Arrays, specs: Sequence[TensorSpec], count: int) -> Arrays:
    """The first so many samples of each input."""
    return {s.name: np.ascontiguousarray(cut(inputs[s.name], s.batch_axis, 0, count)) for s in specs}


@dataclass(frozen=True)
class Manifest:
    """The part of `manifest.json` that loading needs. `interpreter` is that of the environment it was measured in,
    where its backend needs one of its own. `files` is the folder of what the backend compiled for the candidate's batch
    size; `smaller` has those for smaller batches, where the package has any: the least size first."""

    candidate: Candidate
    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[int | None, ...]
    shapes: tuple[Shape, ...]
    interpreter: Path | None = None
    files: str = FILES
    smaller: tuple[tuple[int, str], ...] = ()

    def least(self, samples: int) -> "Manifest":
        """That of the smallest batch in the package that so many samples fit in."""
        for size, files in self.smaller:
            if samples <= size:
                return replace(self, candidate=replace(self.candidate, batch_size=size), files=files, smaller=())
        return self

    def share(self, replicas: int) -> "Manifest":
        """That of one of so many replicas, alone."""
        return replace(self, candidate=replace(self.candidate, replicas=1), target=self.target.share(replicas))

    def with_session(self, session: Session) -> Artifact:
        """The artifact that answers by that session."""
        return Artifact(self.candidate, self.target, self.inputs, session, self.outputs, self.shapes)


def read_manifest(folder: Path) -> Manifest:
    value = json.loads((folder / MANIFEST).read_text())
    inputs = tuple(map(TensorSpec.from_json, value["inputs"]))
    outputs = tuple(value.get("outputs", ()))  # not there in what was made before they could be elsewhere
    shapes = tuple(map(Shape.from_json, value.get("shapes", ())))
    interpreter = Path(value["environment"]["interpreter"]) if "environment" in value else None
    target = Target.from_json(value["target"])
    smaller = tuple(sorted((int(size), str(files)) for size, files in value.get("smaller", {}).items()))
    candidate = Candidate.from_json(value["candidate"])
    return Manifest(candidate, target, inputs, outputs, shapes, interpreter, smaller=smaller)


def load(folder: Path, samples: int | None = None) -> Artifact:
    """Loads an artifact: as it was tuned, or for calls of `samples` at most, for which the package may have a smaller
    batch, so that a lone sample does not pay for a whole one. It imports the backend's own runtime only, in this
    process; where that fits nobody else's libraries, a process in the environment that it has answers instead
    (`tuner.proxy`). Of one with several replicas `run` may be called from as many threads.

    Raises RequestError where that environment is not there, with the command that makes it.
    """
    manifest = read_manifest(folder)
    manifest = manifest if samples is None else manifest.least(samples)
    count = manifest.candidate.replicas
    environment = environment_of(folder, manifest.candidate.backend, manifest.interpreter)
    if environment is None:
        made = sessions(folder, manifest)
    else:
        made = [Proxy(folder, count, environment) for _ in range(count)]
    session = Pool(made) if count > 1 else made[0]
    return manifest.with_session(session)


def load_share(folder: Path, replicas: int, samples: int | None = None) -> Artifact:
    """One of so many replicas, loaded in this process, with its part of the target's cores; `samples` as in `load`."""
    manifest = read_manifest(folder).share(replicas)
    manifest = manifest if samples is None else manifest.least(samples)
    (session,) = sessions(folder, manifest)
    return manifest.with_session(session)


def sessions(folder: Path, manifest: Manifest) -> list[Session]:
    """One for each replica, loaded in this process."""
    backend, size = manifest.candidate.backend, manifest.candidate.batch_size
    of_shapes = {
        tuple(spec.full(size) for spec in sorted(inputs, key=lambda spec: spec.name)): backend.load_replicas(
            place, inputs, size, manifest.target, manifest.candidate.replicas
        )
        for place, inputs in buckets(folder / manifest.files, backend, manifest)
    }
    return [
        Buckets(dict(zip(of_shapes, mine, strict=True))) if len(mine) > 1 else mine[0]
        for mine in zip(*of_shapes.values(), strict=True)
    ]


def buckets(files: Path, backend: Backend, model: Model | Manifest) -> list[tuple[Path, tuple[TensorSpec, ...]]]:
    """The folders of an artifact's compiled files, and the inputs that each is for: one for each shape, unless the
    backend takes them all in one."""
    if backend.variable or len(model.shapes) < 2:
        return [(files, model.inputs)]
    return [(files / str(number), shape.inputs) for number, shape in enumerate(model.shapes)]


def write_example(folder: Path, inputs: Arrays, outputs: Sequence[NDArray[Any]]) -> None:
    """Keeps a batch of real inputs and what it was answered."""
    arrays = {f"input:{name}": array for name, array in inputs.items()}
    arrays |= {f"output:{i}": array for i, array in enumerate(outputs)}
    np.savez(folder / EXAMPLE, **arrays)  # type: ignore[arg-type] # numpy's own options have names without a colon


def read_example(folder: Path) -> tuple[Arrays, list[NDArray[Any]]]:
    """The inputs and the outputs of a packaged artifact's example."""
    with np.load(folder / EXAMPLE) as example:
        inputs = {name.removeprefix("input:"): example[name] for name in example.files if name.startswith("input:")}
        return inputs, [example[f"output:{i}"] for i in range(len(example.files) - len(inputs))]


def write_manifest(
    folder: Path,
    candidate: Candidate,
    target: Target,
    inputs: tuple[TensorSpec, ...],
    versions: Mapping[str, str],
    **more: Any,
) -> None:
    """Describes the artifact whose compiled files lie in `folder / FILES`. `versions` are those of Python and of the
    libraries that made it; `more` are the `outputs` and `shapes` of a `Model` that has any, and the `environment` of a
    backend with one of its own."""
    manifest = {
        "candidate": candidate.to_json(),
        "target": asdict(target),
        "inputs": [spec.to_json() for spec in inputs],
        **more,
        "versions": dict(versions),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def extend_manifest(folder: Path, **facts: Any) -> None:
    """Adds what was found out about the artifact later: its measurement, the digests of its files."""
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | facts, indent=2) + "\n")
