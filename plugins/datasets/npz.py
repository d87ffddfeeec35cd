"""Samples in a file of `numpy.savez`, or in a folder of `.npy` files."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tuner.dataset import LABEL, ArraySamples, Role, unlabelled
from tuner.errors import RequestError
from tuner.roles import Split

_NAME_LENGTHS = slice(26, 30)  # of a member's header in a zip file: of its name, and of what else is said
_HEADER = 30


@dataclass(frozen=True)
class Npz(Split):
    """Arrays named as the model's inputs, and `label`, where it is known. Their first axis is the samples, or the only
    one as long. What is not compressed stays on disk, mapped into memory."""

    folders: ClassVar[bool] = True
    suffixes: ClassVar[Mapping[str, str]] = {".npz": "npz"}

    def read(self, path: Path, field: str, role: Role) -> ArraySamples:
        arrays = _arrays(path, f"{field}={path}")
        labels = arrays.pop(LABEL, None)
        if not arrays:
            raise RequestError(f"{field}={path}: besides {LABEL!r} it has no array to feed the model with")
        counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if labels is not None:
            counts[LABEL] = len(labels) if labels.ndim else 0
        count = next(iter(counts.values())) if labels is None else counts[LABEL]
        arrays = {name: _samples_first(array, count) for name, array in arrays.items()}
        for name, array in arrays.items():
            if array.ndim == 0 or len(array) != count:
                there = f"{count} labels" if labels is not None else f"{count} of {next(iter(counts))!r}"
                raise RequestError(
                    f"{field}={path}: {name!r} has shape {arrays[name].shape}, but there are {there}; "
                    "one axis of every array counts the samples, the first where several have that length"
                )
        if labels is not None and labels.ndim == 0:
            raise RequestError(f"{field}={path}: {LABEL!r} is one value; it must have one for each sample")
        return ArraySamples(arrays, unlabelled(count) if labels is None else labels)


def _arrays(path: Path, where: str) -> dict[str, NDArray[Any]]:
    """The arrays by name, in the file's order. Raises RequestError."""
    try:
        if path.is_dir():
            return {file.stem: np.load(file, mmap_mode="r") for file in sorted(path.glob("*.npy"))}
        if isinstance(opened := np.load(path, mmap_mode="r"), np.ndarray):
            raise RequestError(f"{where}: one array without a name; give it one: numpy.savez('eval.npz', x=…, label=…)")
        with opened as file:
            names = file.files
            with zipfile.ZipFile(path) as archive:
                mapped = {name: _mapped(path, archive, name) for name in names}
            return {name: array if (array := mapped[name]) is not None else file[name] for name in names}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, AttributeError, KeyError) as error:
        if "Object arrays" in str(error):
            raise RequestError(
                f"{where}: an array of it holds Python objects, such as strings or rows of several lengths; store "
                "numbers, rows padded to one length as the model takes them (model.axes declares several)"
            ) from error
        raise RequestError(f"{where}: not a file of numpy.savez with plain arrays ({error})") from error


def _samples_first(array: NDArray[Any], count: int) -> NDArray[Any]:
    """An array laid out as a model takes it (time, sample, feature) with its samples first, where only one axis has
    that length."""
    axes = [axis for axis, length in enumerate(array.shape) if length == count]
    return np.moveaxis(array, axes[0], 0) if len(axes) == 1 else array


def _mapped(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any] | None:
    """An array of the archive where it lies; None where it is compressed, or nothing that can be mapped."""
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(member.header_offset)
        lengths = np.frombuffer(file.read(_HEADER)[_NAME_LENGTHS], "<u2")
        file.seek(member.header_offset + _HEADER + int(lengths.sum()))
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject or not all(shape):
            return None
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
