"""One replica of a loaded artifact at work: it warms up, and has turns in which its units are timed."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.device import Device
from tuner.plugin import Session
from tuner.system import energy
from tuner.task import Task
from tuner.tensors import Arrays

LEAD = 0.2  # of a turn, in units before it that are not recorded
SLOW_MS = 400.0  # before units that take so long nothing comes
MOVES = 10  # of an energy counter, for what it counts in between to be known within a tenth
_STEADY = 0.05  # two successive windows of warm-up units agree within this
_WINDOW = 8


@dataclass(frozen=True)
class Turn:
    """Durations of successive units, ms (of several lengths a row for each round); process CPU time, ms, and the
    machine's energy, J, a unit (None: not told); how long the turn took, what is not recorded included, s. `more` has
    the median of what the task found out. `evenness` is what replicas do together over what they would do if the median
    call were that of each: a fast one has more of the calls, and would hide a slow one."""

    wall_ms: NDArray[Any]
    cpu_ms: float | None
    energy_j: float | None
    seconds: float
    more: Mapping[str, float] = field(default_factory=dict)
    evenness: float = 1.0


@dataclass
class Stream:
    """One replica at work: it has a thread of its own, where there are several."""

    session: Session
    """What is timed: the artifact as it is used, with this replica's session."""
    task: Task
    hardware: Device
    pool: list[list[Arrays]]
    """Rounds of calls: of one batch, or of as many of each declared shape as it has calls."""
    units: int = 0
    """Rounds that were timed so far."""
    last_ms: float = 0.0
    """How long the last of them took."""

    def timed(self) -> tuple[list[float], Mapping[str, float]]:
        """One unit for each batch of the next round: how long each took, ms, and what the task found out last."""
        batches = self.pool[self.units % len(self.pool)]
        self.units += 1
        wall_ms = []  # no array: a turn may have ten thousand rounds
        more: Mapping[str, float] = {}
        for batch in batches:
            inputs = copied(batch)  # a runtime may overwrite what it is given
            start = self.session.now()
            more = self.task.perform(self.session, inputs)
            self.hardware.synchronise()
            wall_ms.append((self.session.now() - start) * 1e3)
        self.last_ms = sum(wall_ms)
        return wall_ms, more

    def timed_ms(self) -> float:
        """The mean over the next round."""
        wall_ms, _ = self.timed()
        return sum(wall_ms) / len(wall_ms)

    def _spent(self) -> Callable[[], float]:
        """Tells the seconds from now on: by the session's clock, but where the device is far, and the way there is most
        of a call, by this machine's."""
        now = time.monotonic if self.hardware.far else self.session.now
        began = now()
        return lambda: now() - began

    def warm_up(self, limit_s: float) -> float:
        """Works until steady, or the limit is reached. Returns the least duration of a unit, ms."""
        spent = self._spent()
        units = [self.timed_ms()]
        before = float("inf")
        while spent() < limit_s:
            window = [self.timed_ms() for _ in range(_WINDOW) if spent() < limit_s]
            if not window:
                break
            units += window
            median = float(np.median(window))
            if abs(median - before) <= _STEADY * median:
                break
            before = median
        return min(units)

    def turn(self, seconds: float, least_units: int) -> Turn:
        """Units back to back for at least that long and that often, after some that are not recorded: what ran in
        between has taken the caches, and filling them again is nothing to a unit of `SLOW_MS` and more."""
        spent, calls = self._spent(), len(self.pool[0])
        while self.last_ms < SLOW_MS:
            self.timed()
            if spent() >= LEAD * seconds:
                break
        units_ms: list[float] = []
        findings: list[Mapping[str, float]] = []
        counted = seconds >= MOVES * self.hardware.energy_step_s
        before = self.hardware.energy() if counted else ()
        end = spent() + seconds
        # over the whole turn: the kernel adds up other threads' time only at its ticks
        cpu = time.process_time()
        while len(units_ms) < least_units * calls or spent() < end:
            round_ms, more = self.timed()
            units_ms += round_ms
            if more:
                findings.append(more)
        cpu_s = time.process_time() - cpu
        used_j = energy.used(before, self.hardware.energy()) if counted else None
        wall_ms = np.array(units_ms)
        return Turn(
            wall_ms.reshape(-1, calls) if calls > 1 else wall_ms,
            None if self.hardware.far else cpu_s * 1e3 / wall_ms.size,
            None if used_j is None else used_j / wall_ms.size,
            spent(),
            medians(findings),
        )


def joined(turns: Sequence[Turn]) -> Turn:
    """The turn of replicas that had theirs at the same time: the calls of all; the process's time and the machine's
    energy, which each of them counted as a whole, once."""
    if len(turns) == 1:
        return turns[0]
    calls = np.concatenate([turn.wall_ms for turn in turns])
    together = float(np.mean([1 / np.median(whole_rounds(turn.wall_ms)) for turn in turns]))
    counts = [turn.wall_ms.size for turn in turns]
    used_j = [turn.energy_j * count for turn, count in zip(turns, counts, strict=True) if turn.energy_j is not None]
    cpu_ms = [turn.cpu_ms * count for turn, count in zip(turns, counts, strict=True) if turn.cpu_ms is not None]
    return Turn(
        calls,
        float(np.mean(cpu_ms)) / sum(counts) if cpu_ms else None,
        float(np.mean(used_j)) / sum(counts) if used_j else None,
        max(turn.seconds for turn in turns),
        medians([turn.more for turn in turns]),
        together * float(np.median(whole_rounds(calls))),
    )


def whole_rounds(calls: NDArray[Any]) -> NDArray[Any]:
    """The durations of whole rounds: of calls of several lengths, which stand in rows, the mean of each row."""
    return np.asarray(calls.mean(axis=1)) if calls.ndim > 1 else calls


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each name's values."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            values[name].append(value)
    return {name: float(np.median(several)) for name, several in values.items()}


def copied(inputs: Arrays) -> Arrays:
    return {name: array.copy() for name, array in inputs.items()}
