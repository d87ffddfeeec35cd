"""The float model's outputs where they are what is right: in batches, as labels are, and kept on disk.

Answers of several lengths are filled up to the longest, and the shape that each sample had is kept beside them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import RequestError

_FIRST = 1000  # samples tell how outputs are spread


class Truth(list[NDArray[Any] | None]):
    """The float model's outputs for some samples; None for one that has no batch axis. `spreads` are the standard
    deviations of all its numbers, over all samples. `shapes` are by output the shape of each sample (n, axes), where
    they differ; None where all have the array's."""

    def __init__(
        self,
        outputs: Iterable[NDArray[Any] | None],
        spreads: Sequence[float],
        shapes: Sequence[NDArray[Any] | None] = (),
    ) -> None:
        super().__init__(outputs)
        self.spreads = list(spreads)
        self.shapes = list(shapes) or [None] * len(self)

    @classmethod
    def of(cls, outputs: Sequence[NDArray[Any]], count: int, shapes: Sequence[NDArray[Any] | None] = ()) -> "Truth":
        """Of the outputs for so many samples, which is all of them."""
        whole = [output if output.ndim and len(output) == count else None for output in outputs]
        return cls(whole, [1.0 if output is None else _spread(output[:_FIRST]) for output in whole], shapes)

    @classmethod
    def load(cls, folder: Path, outputs: int, count: int) -> "Truth":
        """Of so many outputs for so many samples, which is all of them, as they were kept in the folder."""
        kept = [_loaded(output_file(folder, n)) for n in range(outputs)]
        shapes = [_loaded(shapes_file(folder, n)) for n in range(outputs)]
        return cls.of([np.empty(0) if output is None else output for output in kept], count, shapes)

    @classmethod
    def joined(cls, parts: Sequence["Truth"]) -> "Truth":
        """Those of some samples and of others, as one."""
        outputs = [_joined(each) for each in zip(*parts, strict=True)]
        shapes = [_joined(each) for each in zip(*(part.shapes for part in parts), strict=True)]
        return cls(outputs, parts[0].spreads, shapes)

    @property
    def total(self) -> int:
        """How many samples it is of."""
        return next(len(output) for output in self if output is not None)

    def spread(self) -> float:
        return self.spreads[0]

    def only(self, place: int) -> "Truth":
        return Truth([self[place]], [self.spreads[place]], [self.shapes[place]])

    def rows(self, pick: Any) -> "Truth":
        """A copy of what it has of some samples."""
        outputs, shapes = ([None if a is None else np.array(a[pick]) for a in arrays] for arrays in (self, self.shapes))
        return Truth(outputs, self.spreads, shapes)


def counted(outputs: Sequence[NDArray[Any]], count: int, shapes: Sequence[NDArray[Any] | None] = ()) -> Truth:
    """Of the outputs for so many samples. Raises RequestError where none of them has an axis for those."""
    truth = Truth.of(outputs, count, shapes)
    if all(output is None for output in truth):
        raise RequestError(
            "no output of the model has an axis that counts samples, so nothing tells how like another is; add 'label' "
            "to the samples, and name a metric of your own with metric=package.module:function"
        )
    return truth


def output_file(folder: Path, place: int) -> Path:
    """Where an output for all samples is kept."""
    return folder / f"{place}.npy"


def shapes_file(folder: Path, place: int) -> Path:
    """Where the shape of each sample of that output is kept, if they differ."""
    return folder / f"{place}.shapes.npy"


def room(file: Path, dtype: np.dtype[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Room on disk for an output of all samples, filled up."""
    whole = np.lib.format.open_memmap(file, "w+", dtype, tuple(map(int, shape)))
    if fill := _filler(dtype):
        whole[...] = fill
    return whole


def longer(whole: NDArray[Any], output: NDArray[Any], file: Path) -> NDArray[Any]:
    """The same with room for such an output too."""
    shape = np.maximum(whole.shape[1:], output.shape[1:])
    if tuple(shape) == whole.shape[1:]:
        return whole
    before = whole.copy()
    after = room(file, output.dtype, (len(whole), *shape))
    after[tuple(map(slice, before.shape))] = before
    return after


def filled_up(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Outputs for some samples and for others, as one. Raises ValueError where their numbers of axes differ."""
    longest = tuple(max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True))
    if all(part.shape[1:] == longest for part in parts):
        return np.concatenate(parts)
    whole = np.full((sum(map(len, parts)), *longest), _filler(parts[0].dtype), parts[0].dtype)
    done = 0
    for part in parts:
        whole[(slice(done, done + len(part)), *map(slice, part.shape[1:]))] = part
        done += len(part)
    return whole


def _filler(dtype: np.dtype[Any]) -> int:
    """What fills up an answer that is shorter than another: -1, which is no class and no token, or else 0, which is no
    score."""
    return -1 if dtype.kind == "i" else 0


def _joined(arrays: Iterable[NDArray[Any] | None]) -> NDArray[Any] | None:
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if there else None


def _loaded(file: Path) -> NDArray[Any] | None:
    """None where nothing is kept."""
    return np.load(file, mmap_mode="r") if file.exists() else None


def _spread(output: NDArray[Any]) -> float:
    finite = output[np.isfinite(output)]
    return float(finite.std()) or 1.0 if finite.size else 1.0
