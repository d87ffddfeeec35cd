"""Samples on disk: a file of one's own, and the copy that the workers of a study share."""

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import RequestError
from tuner.workload import ROLES, ArraySamples, Dataset, Role, Samples, batches

_LABEL = "label"
_HELD_OUT = 256


@dataclass(frozen=True)
class Npz(Dataset):
    """Arrays named as the model's inputs, their first axis the samples, and `label`.

    Without a calibration file, a seeded fifth of the samples (256 at most) is held out for calibration, and the
    rest evaluates: a quantizer must not see what judges it.
    """

    path: str
    calibration_path: str | None = None
    training_path: str | None = None

    def __post_init__(self) -> None:
        for field in ("path", "calibration_path", "training_path"):
            value = getattr(self, field)
            if value is not None and not Path(value).is_file():
                raise RequestError(f"dataset.{field}={value}: no such file")

    def load(self, role: Role) -> Samples | None:
        if role == "training":
            return _read(self.training_path, "training_path") if self.training_path else None
        if self.calibration_path:
            if role == "calibration":
                return _read(self.calibration_path, "calibration_path")
            return _read(self.path, "path")
        samples = _read(self.path, "path")
        order = np.random.default_rng(0).permutation(len(samples))
        held_out = min(_HELD_OUT, len(samples) // 5)
        chosen = np.sort(order[:held_out] if role == "calibration" else order[held_out:])
        if not len(chosen):
            return None
        return ArraySamples({name: array[chosen] for name, array in samples.inputs.items()}, samples.labels[chosen])

    def key(self) -> dict[str, Any]:
        files = [path for path in (self.path, self.calibration_path, self.training_path) if path]
        content = {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files}
        return {**super().key(), "content": content}


@dataclass(frozen=True)
class Kept(Dataset):
    """The samples of another dataset as arrays on disk, mapped into memory.

    Every worker opens samples; this spares each the imports and the work by which they are made. `folder` is what
    `keep` filled, `identity` the original's key as JSON.
    """

    folder: Path
    identity: str

    def load(self, role: Role) -> Samples | None:
        files = sorted((self.folder / role).glob("*.npy"))
        if not files:
            return None
        arrays = {file.stem: np.load(file, mmap_mode="r") for file in files}
        return ArraySamples(arrays, arrays.pop(_LABEL))

    def key(self) -> dict[str, Any]:
        identity: dict[str, Any] = json.loads(self.identity)
        return identity


def keep(dataset: Dataset, folder: Path) -> None:
    """Writes every role's samples under `folder`, one file an input, as `Kept` reads them. Called in a worker."""
    for role in ROLES:
        samples = dataset.load(role)
        if samples is None or not len(samples):
            continue
        (folder / role).mkdir()
        inputs, labels = next(batches(samples, len(samples)))
        for name, array in (inputs | {_LABEL: labels}).items():
            np.save(folder / role / f"{name}.npy", array, allow_pickle=False)


def _read(path: str, field: str) -> ArraySamples:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise RequestError(f"dataset.{field}={path}: not a file of numpy.savez with plain arrays ({error})") from error
    if _LABEL not in arrays:
        raise RequestError(
            f"dataset.{field}={path}: it has {sorted(arrays)}, but no array named {_LABEL!r}; add it: what is right "
            "for each sample"
        )
    labels = arrays.pop(_LABEL)
    if not arrays:
        raise RequestError(f"dataset.{field}={path}: besides {_LABEL!r} it has no array to feed the model with")
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != len(labels):
            raise RequestError(
                f"dataset.{field}={path}: {name!r} has shape {array.shape}, but there are {len(labels)} labels; "
                "the first axis of every array counts the samples"
            )
    if not len(labels):
        raise RequestError(f"dataset.{field}={path}: it has no samples")
    return ArraySamples(arrays, labels)
