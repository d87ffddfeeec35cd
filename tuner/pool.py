"""The replicas of a loaded artifact: a process for each, of which every call takes one that is free.

Call it from as many threads as there are replicas, or from more: whoever finds none free waits.
"""

import math
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from numpy.typing import NDArray

from tuner import artifact
from tuner.plugin import Session
from tuner.system.launcher import Launcher
from tuner.system.worker import Worker
from tuner.target import Target
from tuner.tensors import Arrays

_LOAD_S = 300.0


class Pool(Session):
    """The session of an artifact with several replicas. Its processes end with it, and with this process."""

    def __init__(self, folder: Path, target: Target, replicas: int) -> None:
        """Loads them all. Raises CandidateError where one does not load."""
        self._folder = folder
        self._launcher = Launcher(math.inf, variables=target.share(replicas).environment)
        self._workers: list[Worker] = []
        self._end = weakref.finalize(self, _close, self._workers)
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in range(replicas):
            self._workers.append(self._opened(number))
        for number, worker in enumerate(self._workers):
            worker.result(_LOAD_S)
            self._free.put(number)

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Raises CandidateError where the call failed; a replica that died of it is loaded anew."""
        number = self._free.get()
        try:
            return self._workers[number].run(_run, inputs)
        finally:
            if not self._workers[number].alive:
                self._workers[number] = self._opened(number)
                self._workers[number].result(_LOAD_S)
            self._free.put(number)

    def close(self) -> None:
        """Ends its processes."""
        self._end()

    def _opened(self, number: int) -> Worker:
        worker = self._launcher.open_anew(Path(os.devnull))
        worker.begin(_open, self._folder, number)
        return worker


def _close(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.close()


_session: Session | None = None


def _open(folder: Path, number: int) -> None:
    global _session
    _session = artifact.load_replica(folder, number).session


def _run(inputs: Arrays) -> list[NDArray[Any]]:
    assert _session is not None, "_open comes first"
    return _session.run(inputs)
