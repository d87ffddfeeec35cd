"""The samples of the parts of a split model: what the whole takes, and what a head sends."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner import artifact
from tuner.dataset import LABEL, ROLES, ArraySamples, Dataset, Role, batches


@dataclass(frozen=True)
class Sent(Dataset):
    """What a head sent of the samples, all of it: as `write_samples` wrote it."""

    folder: Path

    def load(self, role: Role) -> ArraySamples | None:
        file = self.folder / f"{role}.npz"
        if not file.exists():
            return None
        with np.load(file) as kept:
            arrays = dict(kept)
        return ArraySamples(arrays, arrays.pop(LABEL))


def write_samples(dataset: Dataset, head: Path | None, names: tuple[str, ...], out: Path) -> None:
    """Writes the samples to `out` as they are, or what a head's artifact sends of them, by those names. Called in a
    worker."""
    loaded = None if head is None else artifact.load(head)
    for role in ROLES:
        samples = dataset.load(role)
        if samples is None or not len(samples):
            continue
        kept: dict[str, np.memmap[Any, Any]] = {}
        done = 0
        for inputs, labels in batches(samples, 1 if loaded is None else loaded.batch_size):
            arrays = inputs if loaded is None else dict(zip(names, loaded.answer(inputs), strict=True))
            for name, array in {**arrays, LABEL: np.asarray(labels)}.items():
                if name not in kept:  # on disk: they may be more than memory holds
                    shape, file = (len(samples), *array.shape[1:]), out / f"{role}-{len(kept)}.npy"
                    kept[name] = np.lib.format.open_memmap(file, "w+", array.dtype, shape)
                kept[name][done : done + len(array)] = array
            done += len(labels)
        with zipfile.ZipFile(out / f"{role}.npz", "w") as archive:
            for name, array in kept.items():
                array.flush()
                archive.write(str(array.filename), f"{name}.npy")
                Path(str(array.filename)).unlink()
