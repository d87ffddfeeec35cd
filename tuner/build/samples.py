"""Samples on disk: a file of one's own, and the copy that the workers of a study share."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import LABEL, ROLES, ArraySamples, Dataset, Role, Samples, batches
from tuner.errors import RequestError
from tuner.system.said import first_line
from tuner.system.worker import Progress
from tuner.tensors import Arrays

_CHUNK_BYTES = 64_000_000
_ORDER = "order.json"  # the names of the arrays, in order


@dataclass(frozen=True)
class Kept(Dataset):
    """The samples of another dataset as arrays on disk, mapped into memory.

    Every worker opens samples; this spares each the imports and the work by which they are made. `folder` is what
    `keep` filled, `identity` the original's key as JSON, `classes` how many it numbered by itself.
    """

    folder: Path
    identity: str
    classes: int | None = None

    @property
    def numbered(self) -> int | None:
        return self.classes

    def load(self, role: Role) -> Samples | None:
        order = self.folder / role / _ORDER
        if not order.exists():
            return None
        names: list[str] = json.loads(order.read_text())
        arrays = {name: np.load(_file(order.parent, n), mmap_mode="r") for n, name in enumerate(names)}
        return ArraySamples(arrays, arrays.pop(LABEL))

    def key(self) -> dict[str, Any]:
        identity: dict[str, Any] = json.loads(self.identity)
        return identity


def keep(progress: Progress, dataset: Dataset, folder: Path) -> None:
    """Writes every role's samples under `folder`, one file an input, as `Kept` reads them: in the inputs' own order,
    which a model that takes them by position needs. Called in a worker."""
    for role in ROLES:
        samples = dataset.load(role)
        if samples is None or not len(samples):
            continue
        (folder / role).mkdir()
        names = _write(samples, folder / role, partial(_told, progress, role))
        (folder / role / _ORDER).write_text(json.dumps(names))


def _told(progress: Progress, role: Role, done: float) -> None:
    progress(done, f"reading {role} samples")


def _write(samples: Samples, folder: Path, progress: Callable[[float], None]) -> list[str]:
    """Their arrays, some samples at a time: all of them may be more than memory holds. Returns the names."""
    first, _ = samples[0]
    size = sum(np.asarray(array).nbytes for array in first.values())
    at_once = max(_CHUNK_BYTES // max(size, 1), 1)
    files: list[NDArray[Any]] = []
    done, names = 0, [*first, LABEL]
    for inputs, labels in _stacked(samples, at_once):
        arrays = [*(inputs[name] for name in first), labels]
        if not files:
            for name, array in zip(names, arrays, strict=True):
                if array.dtype.hasobject:
                    raise RequestError(f"dataset: {name!r} holds objects; it must be numbers of one shape a sample")
            files = [
                np.lib.format.open_memmap(_file(folder, n), "w+", array.dtype, (len(samples), *array.shape[1:]))
                for n, array in enumerate(arrays)
            ]
        for name, file, array in zip(names, files, arrays, strict=True):
            if file.shape[1:] != array.shape[1:] or np.result_type(file, array) != file.dtype:
                raise RequestError(
                    f"dataset: {name!r} of sample {done} or one after it has shape {array.shape[1:]} and dtype "
                    f"{array.dtype}, that of the first {file.shape[1:]} and {file.dtype}; make them alike"
                )
            file[done : done + len(labels)] = array
        done += len(labels)
        progress(done / len(samples))
    return names


def _stacked(samples: Samples, at_once: int) -> Iterator[tuple[Arrays, NDArray[Any]]]:
    """As `batches`. Raises RequestError where samples are not alike."""
    try:
        yield from batches(samples, at_once)
    except (ValueError, KeyError) as error:
        raise RequestError(
            f"dataset: its samples are not alike ({first_line(error)}); each needs the same inputs, of one shape: pad "
            "or cut what varies"
        ) from error


def _file(folder: Path, number: int) -> Path:
    """Numbered, as an input's name may be no name of a file: `model/images:0`."""
    return folder / f"{number}.npy"
