"""Trials evaluated by this process, one after the other."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tuner.candidate import Candidate
from tuner.evaluate.evaluator import Evaluator
from tuner.executors.base import Executor, Say, Trials
from tuner.plugin import Plugin
from tuner.system.fields import AtLeast
from tuner.target import Target
from tuner.trial import Outcome


class InTurn(Trials):
    """Evaluates the first of those submitted when it is asked what has finished."""

    def __init__(self, capacity: int = 1) -> None:
        self._capacity = capacity
        self._evaluate: Callable[[Candidate, float | None, float], Outcome] | None = None
        self._submitted: dict[int, tuple[Candidate, float | None, float]] = {}
        self._count = 0

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def nodes(self) -> int:
        return 0

    def begin(self, evaluator: Evaluator) -> None:
        self._evaluate = evaluator.evaluate

    def submit(self, candidate: Candidate, to_beat: float | None, most_s: float) -> int:
        self._count += 1
        self._submitted[self._count] = (candidate, to_beat, most_s)
        return self._count

    def finished(self) -> list[tuple[int, Outcome]]:
        assert self._evaluate is not None, "begin comes first"
        for handle in list(self._submitted)[:1]:
            outcome = self._evaluate(*self._submitted[handle])
            del self._submitted[handle]
            return [(handle, outcome)]
        return []

    def cancel(self, handle: int) -> None:
        self._submitted.pop(handle, None)

    def raise_bar(self, to_beat: float) -> None:
        for handle, (candidate, before, most_s) in self._submitted.items():
            if before is not None:
                self._submitted[handle] = (candidate, max(before, to_beat), most_s)


@dataclass(frozen=True)
class Inline(Executor):
    """For debugging and tests: proposals are made as for a cluster that takes `capacity` trials at once, and evaluated
    here, one after the other."""

    capacity: Annotated[int, AtLeast(1)] = 1

    @contextlib.contextmanager
    def open(self, target: Target, plugins: Sequence[Plugin], cache: Path, say: Say) -> Iterator[Trials]:
        yield InTurn(self.capacity)


@dataclass(frozen=True)
class Local(Executor):
    """This machine, one trial at a time."""

    @contextlib.contextmanager
    def open(self, target: Target, plugins: Sequence[Plugin], cache: Path, say: Say) -> Iterator[Trials]:
        yield InTurn()
