"""Answers that are kept for requests with exactly the same inputs, bounded by memory and age."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from tuner.tensors import Arrays


def key_of(inputs: Arrays) -> bytes:
    """The same for inputs that are equal byte for byte, in names, shapes and dtypes."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(inputs):
        array = np.ascontiguousarray(inputs[name])
        digest.update(repr((name, array.shape, array.dtype.str)).encode())
        digest.update(array.data.cast("B") if array.nbytes else b"")
    return digest.digest()


class Cache:
    """The answers that were asked for last, at most `bytes_limit` of them, none older than `age_s`."""

    def __init__(self, bytes_limit: float, age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._age_s, self._clock = bytes_limit, age_s, clock
        self._kept: OrderedDict[bytes, tuple[float, Arrays]] = OrderedDict()
        self.bytes = 0

    def get(self, key: bytes) -> Arrays | None:
        """What was answered; nobody may change it."""
        if key not in self._kept:
            return None
        made, outputs = self._kept[key]
        if self._clock() - made > self._age_s:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return outputs

    def put(self, key: bytes, outputs: Arrays) -> None:
        size = _size(outputs)
        if key in self._kept:
            self._drop(key)
        if size > self._limit:
            return
        while self.bytes + size > self._limit:
            self._drop(next(iter(self._kept)))
        self._kept[key] = (self._clock(), outputs)
        self.bytes += size

    def _drop(self, key: bytes) -> None:
        _, outputs = self._kept.pop(key)
        self.bytes -= _size(outputs)


def _size(outputs: Arrays) -> int:
    return sum(array.nbytes for array in outputs.values())
