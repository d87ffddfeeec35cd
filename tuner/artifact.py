"""What a study delivers: a folder that loads with its own runtime and nothing of the search.

    from pathlib import Path
    from tuner import artifact

    deployed = artifact.load(Path("champion"))
    outputs = deployed.run({"x": batch})

`manifest.json` holds the candidate, the target, the inputs, the versions and the checksums, and in a packaged
champion its measurements; `example.npz` holds a batch of real inputs and the outputs it gave.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.candidate import Candidate
from tuner.plugin import Session
from tuner.target import Target
from tuner.workload import Arrays, TensorSpec

MANIFEST = "manifest.json"
EXAMPLE = "example.npz"
FILES = "files"


@dataclass(frozen=True)
class Artifact:
    """A loaded artifact."""

    candidate: Candidate
    target: Target
    inputs: tuple[TensorSpec, ...]
    session: Session

    @property
    def batch_size(self) -> int:
        return self.candidate.batch_size

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Answers up to `batch_size` samples, shapes (n, *spec.shape); a short batch is padded and cut.

        What it returns is the caller's: no later call changes it. Raises ValueError, with the input's name, where one
        is missing, superfluous, of another shape or of another dtype: nothing is cast.
        """
        if set(inputs) != {spec.name for spec in self.inputs}:
            raise ValueError(f"inputs are {sorted(inputs)}; this artifact takes {[s.name for s in self.inputs]}")
        count = self._count(inputs)
        full = {}
        for spec in self.inputs:
            filled = np.zeros((self.batch_size, *spec.shape), spec.dtype)
            filled[:count] = inputs[spec.name]
            full[spec.name] = filled
        return [np.array(output[:count]) for output in self.session.run(full)]

    def _count(self, inputs: Arrays) -> int:
        """The number of samples. Raises ValueError where an input is not what the artifact takes."""
        count = 0
        for spec in self.inputs:
            array = inputs[spec.name]
            if not isinstance(array, np.ndarray) or array.dtype.name != spec.dtype:
                given = getattr(array, "dtype", type(array).__name__)
                raise ValueError(f"input {spec.name!r} is {given}; this artifact takes an array of {spec.dtype}")
            count = count or (len(array) if array.ndim else 0)
            if array.shape != (count, *spec.shape) or not 0 < count <= self.batch_size:
                expected = f"(1…{self.batch_size}, {', '.join(map(str, spec.shape))})"
                raise ValueError(f"input {spec.name!r} has shape {array.shape}; this artifact takes {expected}")
        return count


@dataclass(frozen=True)
class Manifest:
    """The part of `manifest.json` that loading needs."""

    candidate: Candidate
    target: Target
    inputs: tuple[TensorSpec, ...]


def read_manifest(folder: Path) -> Manifest:
    value = json.loads((folder / MANIFEST).read_text())
    inputs = tuple(TensorSpec(i["name"], tuple(i["shape"]), i["dtype"]) for i in value["inputs"])
    return Manifest(Candidate.from_json(value["candidate"]), Target.from_json(value["target"]), inputs)


def load(folder: Path) -> Artifact:
    """Loads an artifact. It imports the backend's own runtime only, in this process."""
    manifest = read_manifest(folder)
    candidate, inputs = manifest.candidate, manifest.inputs
    session = candidate.backend.load(folder / FILES, inputs, candidate.batch_size, manifest.target)
    return Artifact(candidate, manifest.target, inputs, session)


def write_manifest(
    folder: Path, candidate: Candidate, target: Target, inputs: tuple[TensorSpec, ...], versions: Mapping[str, str]
) -> None:
    """Describes the artifact whose compiled files lie in `folder / FILES`. `versions` are those of Python and of the
    libraries that made it."""
    manifest = {
        "candidate": candidate.to_json(),
        "target": asdict(target),
        "inputs": [asdict(spec) for spec in inputs],
        "versions": dict(versions),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def extend_manifest(folder: Path, **facts: Any) -> None:
    """Adds what was found out about the artifact later: its measurement, the digests of its files."""
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | facts, indent=2) + "\n")
