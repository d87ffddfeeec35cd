"""Samples in a file of `numpy.savez`."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import RequestError
from tuner.workload import LABEL, ArraySamples, Dataset, Role, Samples

_HELD_OUT = 256


@dataclass(frozen=True)
class Npz(Dataset):
    """Arrays named as the model's inputs, and `label`. Their first axis is the samples, or the only one as long.

    Without a calibration file, a seeded fifth of the samples (256 at most) is held out for calibration, and the
    rest evaluates: a quantizer must not see what judges it.
    """

    path: str
    calibration_path: str | None = None
    training_path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
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


def _read(path: str, field: str) -> ArraySamples:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        if "Object arrays" in str(error):
            raise RequestError(
                f"dataset.{field}={path}: an array of it holds Python objects, such as strings or rows of several "
                "lengths; store numbers, of one shape a sample"
            ) from error
        raise RequestError(f"dataset.{field}={path}: not a file of numpy.savez with plain arrays ({error})") from error
    if LABEL not in arrays:
        raise RequestError(
            f"dataset.{field}={path}: it has {sorted(arrays)}, but no array named {LABEL!r}; add it: what is right "
            "for each sample"
        )
    labels = arrays.pop(LABEL)
    if not arrays:
        raise RequestError(f"dataset.{field}={path}: besides {LABEL!r} it has no array to feed the model with")
    arrays = {name: _samples_first(array, len(labels)) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != len(labels):
            raise RequestError(
                f"dataset.{field}={path}: {name!r} has shape {array.shape}, but there are {len(labels)} labels; "
                "one axis of every array counts the samples, the first where several have that length"
            )
    if not len(labels):
        raise RequestError(f"dataset.{field}={path}: it has no samples")
    return ArraySamples(arrays, labels)


def _samples_first(array: NDArray[Any], count: int) -> NDArray[Any]:
    """An array laid out as a model takes it (time, sample, feature) with its samples first, where only one axis has
    that length."""
    axes = [axis for axis, length in enumerate(array.shape) if length == count]
    return np.moveaxis(array, axes[0], 0) if len(axes) == 1 else array
