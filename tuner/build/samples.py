"""Samples on disk: a file of one's own, and the copy that the workers of a study share."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.workload import LABEL, ROLES, ArraySamples, Dataset, Role, Samples, batches


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
        return ArraySamples(arrays, arrays.pop(LABEL))

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
        for name, array in (inputs | {LABEL: labels}).items():
            np.save(folder / role / f"{name}.npy", array, allow_pickle=False)
