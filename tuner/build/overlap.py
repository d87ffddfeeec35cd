"""Whether what judges was seen before: evaluation samples among those of another role."""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import Dataset, Role, Samples, batches, evaluation
from tuner.errors import RequestError

_AT_ONCE = 1024  # views of what lies on disk
# of the smaller role: of values that are drawn at random, however few there are, at most 1/e of those that are there
# once have one partner in the other role
_MOST = 0.5
_MEND: dict[Role, str] = {
    "calibration": "give others, or leave dataset.calibration_path out: a share of dataset.path is then held out",
    "training": "give others, or leave dataset.training_path out: dataset.training_share= of dataset.path then trains",
}


def shared(dataset: Dataset) -> dict[Role, int]:
    """How many samples of each other role have the inputs of an evaluation sample. Inputs that a role has several times
    do not count: rows of a table with few values are alike by chance. Called in a worker; of each sample eight bytes
    are held in memory.

    Raises RequestError where that is most of a role.
    """
    judging = evaluation(dataset)
    known, counts = _once(judging), dict[Role, int]()
    for role, mend in _MEND.items():
        samples = dataset.load(role)
        if samples is None or not len(samples):
            continue
        count = len(np.intersect1d(known, _once(samples), assume_unique=True))
        if count > _MOST * min(len(samples), len(judging)):
            raise RequestError(
                f"dataset: {count} of its {len(samples)} {role} samples are evaluation samples too, and what was seen "
                f"before cannot judge; {mend}"
            )
        counts[role] = count
    return counts


def _once(samples: Samples) -> NDArray[np.uint64]:
    """Digests of the inputs of those samples that no other is like."""
    values, counts = np.unique(np.fromiter(_digests(samples), np.uint64, len(samples)), return_counts=True)
    return np.asarray(values[counts == 1])


def _digests(samples: Samples) -> Iterator[int]:
    for inputs, _ in batches(samples, _AT_ONCE):
        for arrays in zip(*(np.asarray(inputs[name]) for name in sorted(inputs)), strict=True):
            content = b"".join(array.tobytes() for array in arrays)
            yield int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())
