"""The replicas of a loaded artifact: sessions that share the target's cores, of which every call takes one that is
free."""

from collections.abc import Sequence
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
