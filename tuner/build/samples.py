"""Samples on disk: a file of one's own, and the copy that the workers of a study share."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.workload import LABEL, ROLES, ArraySamples, Dataset, Role, Samples, batches

_ORDER = "order.json"  # the names of the arrays, in order


@dataclass(frozen=True)
class Kept(Dataset):
    """The samples of another dataset as arrays on disk, mapped into memory.

    Every worker opens samples; this spares each the imports and the work by which they are made. `folder` is what
    `keep` filled, `identity` the original's key as JSON.
    """

    folder: Path
    identity: str

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


def keep(dataset: Dataset, folder: Path) -> None:
    """Writes every role's samples under `folder`, one file an input, as `Kept` reads them: in the inputs' own order,
    which a model that takes them by position needs. Called in a worker."""
    for role in ROLES:
        samples = dataset.load(role)
        if samples is None or not len(samples):
            continue
        (folder / role).mkdir()
        inputs, labels = next(batches(samples, len(samples)))
        arrays = inputs | {LABEL: labels}
        for n, array in enumerate(arrays.values()):
            np.save(_file(folder / role, n), array, allow_pickle=False)
        (folder / role / _ORDER).write_text(json.dumps(list(arrays)))


def _file(folder: Path, number: int) -> Path:
    """Numbered, as an input's name may be no name of a file: `model/images:0`."""
    return folder / f"{number}.npy"
