"""The processes in which an artifact is loaded: one for each of its candidate's replicas, all at work at once.

What is timed is every replica's calls while the others are loaded too: caches, memory and the processor's clock are
shared as they are where the artifact is used.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from tuner.errors import CandidateError
from tuner.measure import host
from tuner.system.worker import Worker
from tuner.workload import Workload

P = ParamSpec("P")
R = TypeVar("R")


class Replicas:
    """Workers that host the same artifact, in a `with` block. Everything raises CandidateError where one of them fails;
    then all of them are ended."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = tuple(workers)

    @property
    def first(self) -> Worker:
        """The one to ask what all of them would answer alike."""
        return self._workers[0]

    def begin(self, artifact: Path, workload: Workload) -> None:
        """Has each of them load the artifact, and does not wait: `opened` does."""
        for number, worker in enumerate(self._workers):
            worker.begin(host.open_artifact, artifact, workload, number)

    def opened(self, timeout_s: float) -> None:
        """Waits until all of them have loaded what was begun."""
        self._results(timeout_s)

    def warm_up(self, timeout_s: float, limit_s: float) -> float:
        """Works until steady. Returns the least duration of a unit, ms, of the slowest."""
        return max(self._all(timeout_s, host.warm_up, limit_s))

    def turn(self, timeout_s: float, seconds: float, least_units: int) -> host.Turn:
        """A turn of all of them at once; they are paused before and after."""
        self.resume()
        turn = host.joined(self._all(timeout_s, host.turn, seconds, least_units))
        self.pause()
        return turn

    def memory_mb(self) -> float:
        """The most that they have had, together."""
        return sum(self._all(None, host.memory_mb))

    def pause(self) -> None:
        for worker in self._workers:
            worker.pause()

    def resume(self) -> None:
        for worker in self._workers:
            worker.resume()

    @property
    def alive(self) -> bool:
        return all(worker.alive for worker in self._workers)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _all(self, timeout_s: float | None, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """What each of them answers, who are at it at once."""
        try:
            for worker in self._workers:
                worker.begin(function, *args, **kwargs)
        except CandidateError:
            self.close()
            raise
        return self._results(timeout_s)

    def _results(self, timeout_s: float | None) -> list[Any]:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            return [w.result(None if end is None else max(0.0, end - time.monotonic())) for w in self._workers]
        except BaseException:
            self.close()  # the others would go on, and disturb whoever comes next
            raise
