"""Several sessions as one: the replicas of a loaded artifact, of which every call takes one that is free, and those for
its shapes, of which every call takes its own."""

from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from numpy.typing import NDArray

from tuner.plugin import Session
from tuner.tensors import Arrays


class Pool(Session):
    """Sessions of the same artifact in one process. Call it from as many threads as there are sessions, or from more:
    whoever finds none free waits."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.sessions = tuple(sessions)
        self._free: SimpleQueue[Session] = SimpleQueue()
        for session in self.sessions:
            self._free.put(session)

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        session = self._free.get()
        try:
            return session.run(inputs)
        finally:
            self._free.put(session)

    def now(self) -> float:
        return self.sessions[0].now()


class Buckets(Session):
    """A session for each shape, of which every call takes its own."""

    def __init__(self, sessions: Mapping[tuple[Any, ...], Session]) -> None:
        """`sessions` by the shapes of whole batches, in the order of the inputs' names."""
        self._sessions = sessions

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        return self._sessions[tuple(inputs[name].shape for name in sorted(inputs))].run(inputs)

    def now(self) -> float:
        return next(iter(self._sessions.values())).now()
