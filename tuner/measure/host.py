"""What runs inside the process that hosts one loaded artifact: warm-up, timed turns, accuracy.

One process, one artifact: `open_artifact` keeps it, and every other function is about the one that is kept. They are
called through a `Worker`.
"""

import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner import artifact
from tuner.dataset import Samples, batches, evaluation, shaped
from tuner.device import Device
from tuner.judging import Labels, Scores
from tuner.plugin import Session
from tuner.system import energy
from tuner.task import Task
from tuner.tensors import Arrays, Shape
from tuner.workload import Workload

LEAD = 0.2  # of a turn, in units before it that are not recorded
_POOL = 8  # distinct batches a timing cycles through
_STEADY = 0.05  # two successive windows of warm-up units agree within this
_WINDOW = 8
_MOVES = 10  # of an energy counter, for what it counts in between to be known within a tenth


@dataclass
class Hosted:
    """A loaded artifact, the hardware it runs on, the task it is timed by, and the batches of real inputs that a timing
    cycles through."""

    artifact: artifact.Artifact
    hardware: Device
    task: Task
    pool: list[list[Arrays]]
    """Rounds of calls: of one batch, or of as many of each declared shape as it has calls."""
    units: int = 0
    """Rounds that were timed so far."""

    @property
    def session(self) -> Session:
        return self.artifact.session

    def perform(self, inputs: Arrays) -> Mapping[str, float]:
        """Does one unit of the task, and waits for the hardware; returns what the task found out."""
        more = self.task.perform(self.session, inputs)
        self.hardware.synchronise()
        return more

    @property
    def calls(self) -> int:
        """Of a round."""
        return len(self.pool[0])

    def timed(self) -> tuple[list[float], Mapping[str, float]]:
        """One unit for each batch of the next round: how long each took, ms, and what the task found out last."""
        batches = self.pool[self.units % len(self.pool)]
        self.units += 1
        wall_ms = []  # no array: a turn may have ten thousand rounds
        more: Mapping[str, float] = {}
        for batch in batches:
            inputs = _copied(batch)  # a runtime may overwrite what it is given
            start = self.session.now()
            more = self.perform(inputs)
            wall_ms.append((self.session.now() - start) * 1e3)
        return wall_ms, more

    def timed_ms(self) -> float:
        """The mean over the next round."""
        wall_ms, _ = self.timed()
        return sum(wall_ms) / len(wall_ms)


_hosted: Hosted | None = None


def hosted() -> Hosted:
    """What this process hosts."""
    assert _hosted is not None, "open_artifact comes first"
    return _hosted


def open_artifact(folder: Path, workload: Workload, replica: int | None = 0) -> float:
    """Loads that replica of the artifact (None: as users load it, all of them) and a pool of real batches; returns the
    seconds from import to a first answer."""
    global _hosted
    samples = evaluation(workload.dataset)
    start = time.perf_counter()
    loaded = artifact.load(folder) if replica is None else artifact.load_replica(folder, replica)
    shapes = loaded.shapes or (Shape(loaded.inputs),)
    rounds = [shape for shape in shapes for _ in range(shape.calls)]
    pool = [[_batch(samples, shape, loaded.batch_size, offset) for shape in rounds] for offset in range(_POOL)]
    for batch in pool[0]:
        loaded.session.run(_copied(batch))
    _hosted = Hosted(loaded, loaded.target.hardware, workload.task, pool)
    return time.perf_counter() - start


def warm_up(limit_s: float) -> float:
    """Works until steady: the medians of two successive windows agree, or the limit is reached.

    Returns the least duration of a unit, ms; of several lengths, of the mean over a round.
    """
    here = hosted()
    now = here.session.now
    end = now() + limit_s
    units = [here.timed_ms()]
    before = float("inf")
    while now() < end:
        window = [here.timed_ms() for _ in range(_WINDOW) if now() < end]
        if not window:
            break
        units += window
        median = float(np.median(window))
        if abs(median - before) <= _STEADY * median:
            break
        before = median
    return min(units)


@dataclass(frozen=True)
class Turn:
    """Durations of successive units, ms (of several lengths a row for each round); process CPU time, ms, and the
    machine's energy, J, a unit (None: not told); how long the turn took, what is not recorded included, s. `more` has
    the median of what the task found out."""

    wall_ms: NDArray[Any]
    cpu_ms: float
    energy_j: float | None
    seconds: float
    more: Mapping[str, float] = field(default_factory=dict)


def turn(seconds: float, least_units: int) -> Turn:
    """Units back to back for at least that long and that often.

    What ran in between has taken the caches: units for `LEAD` of that time come before, and are not recorded.
    """
    here = hosted()
    now = here.session.now
    began = now()
    while True:
        here.timed()
        if now() >= began + LEAD * seconds:
            break
    units_ms: list[float] = []
    findings: list[Mapping[str, float]] = []
    counted = seconds >= _MOVES * here.hardware.energy_step_s
    before = here.hardware.energy() if counted else ()
    end = now() + seconds
    # over the whole turn: the kernel adds up other threads' time only at its ticks
    cpu = time.process_time()
    while len(units_ms) < least_units * here.calls or now() < end:
        round_ms, more = here.timed()
        units_ms += round_ms
        if more:
            findings.append(more)
    cpu_s = time.process_time() - cpu
    used_j = energy.used(before, here.hardware.energy()) if counted else None
    wall_ms = np.array(units_ms)
    return Turn(
        wall_ms.reshape(-1, here.calls) if here.calls > 1 else wall_ms,
        cpu_s * 1e3 / wall_ms.size,
        None if used_j is None else used_j / wall_ms.size,
        now() - began,
        medians(findings),
    )


def joined(turns: Sequence[Turn]) -> Turn:
    """The turn of replicas that had theirs at the same time: the calls of all, and the machine's energy once."""
    if len(turns) == 1:
        return turns[0]
    counts = [turn.wall_ms.size for turn in turns]
    used_j = [turn.energy_j * count for turn, count in zip(turns, counts, strict=True) if turn.energy_j is not None]
    return Turn(
        np.concatenate([turn.wall_ms for turn in turns]),
        float(np.average([turn.cpu_ms for turn in turns], weights=counts)),
        float(np.mean(used_j)) / sum(counts) if used_j else None,
        max(turn.seconds for turn in turns),
        medians([turn.more for turn in turns]),
    )


def energy_j() -> float | None:
    """The machine's energy a unit, J, by counters that move too seldom for a turn to tell it: over as many units as it
    takes to see `_MOVES` of them. None where turns do tell it, or nothing does."""
    here = hosted()
    reading = here.hardware.energy()
    if not here.hardware.energy_step_s or not reading:
        return None
    first, last, units, moves = reading, reading, 0, 0
    end = time.monotonic() + 2 * _MOVES * here.hardware.energy_step_s
    while moves <= _MOVES and time.monotonic() < end:
        here.timed()
        units += 1
        reading = here.hardware.energy()
        if all(now.joules != then.joules for now, then in zip(reading, last, strict=False)):  # the slowest of them too
            last, moves = reading, moves + 1
            if moves == 1:  # what is counted begins where they have just moved
                first, units = reading, 0
    used_j = energy.used(first, reading)
    return used_j / (units * here.calls) if used_j is not None and moves > 1 else None


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each name's values."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            values[name].append(value)
    return {name: float(np.median(several)) for name, several in values.items()}


def scores(workload: Workload) -> Scores:
    """How good the artifact's answers to the evaluation samples are, as the task judges. Raises what it raises."""
    here = hosted()
    return here.task.scores(here.artifact, judged_samples(workload, here.artifact), workload.judge)


def judged_samples(workload: Workload, loaded: artifact.Artifact) -> Iterator[tuple[Arrays, Labels]]:
    """The evaluation samples in batches, each with what is right: its labels, or what the float model answered. Their
    order does not depend on the batch size."""
    samples, size = evaluation(workload.dataset), loaded.batch_size
    truth = None if workload.judging is None else workload.judging.float_answers(len(samples))
    done = 0
    for inputs, labels in shaped(samples, loaded.shapes, size) if loaded.shapes else batches(samples, size):
        yield inputs, labels if truth is None else truth.rows(slice(done, done + len(labels)))
        done += len(labels)


def example() -> tuple[Arrays, list[NDArray[Any]]]:
    """A batch of real inputs and the outputs it gets."""
    here = hosted()
    batch = here.pool[0][0]
    return batch, [np.array(output) for output in here.session.run(_copied(batch))]


def memory_mb() -> float:
    """The most memory this process has had, MB: interpreter, runtime, artifact and samples as they were resident, and
    what it took of the device's own."""
    resident_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return resident_mb + hosted().hardware.memory_mb()


def beyond_loadgen() -> bool:
    """Whether no clock but the session's can time it, or its calls are of several lengths."""
    return type(hosted().session).now is not Session.now or hosted().calls > 1


def _copied(inputs: Arrays) -> Arrays:
    return {name: array.copy() for name, array in inputs.items()}


def _batch(samples: Samples, shape: Shape, size: int, offset: int) -> Arrays:
    """A whole batch of real inputs, as the artifact takes them."""
    rows = [samples[(offset * size + i) % len(samples)][0] for i in range(size)]
    return {
        spec.name: np.asarray(spec.placed(np.stack([row[spec.name] for row in rows])), order="C")
        for spec in shape.inputs
    }
