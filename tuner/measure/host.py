"""What runs inside the process that hosts one loaded artifact: warm-up, timed turns, accuracy.

One process, one artifact: `open_artifact` keeps it, and every other function is about the one that is kept. They are
called through a `Worker`.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tuner import artifact
from tuner.dataset import Samples, batches, evaluation, shaped
from tuner.device import Device
from tuner.judging import Bar, Labels, Scores
from tuner.measure.stream import MOVES, Stream, Turn, copied, joined
from tuner.operators import OperatorTime
from tuner.plugin import Session
from tuner.system import energy
from tuner.task import Task
from tuner.tensors import Arrays, Shape
from tuner.workload import Workload

R = TypeVar("R")
_POOL = 8  # distinct batches a timing cycles through


@dataclass
class Hosted:
    """A loaded artifact, the hardware it runs on, the task it is timed by, and the batches of real inputs that a timing
    cycles through."""

    artifact: artifact.Artifact
    hardware: Device
    task: Task
    pool: list[list[Arrays]]
    """Rounds of calls: of one batch, or of as many of each declared shape as it has calls."""

    @property
    def calls(self) -> int:
        """Of a round."""
        return len(self.pool[0])

    @cached_property
    def streams(self) -> list[Stream]:
        """One for each replica."""
        return [Stream(replica, self.task, self.hardware, self.pool) for replica in self.artifact.replicas]

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(len(self.streams))

    def at_once(self, work: Callable[[Stream], R]) -> list[R]:
        """What that comes to for each replica, all of which are at it at the same time, each in a thread."""
        if len(self.streams) == 1:
            return [work(self.streams[0])]
        together = Barrier(len(self.streams))

        def with_all(stream: Stream) -> R:
            together.wait()
            return work(stream)

        return list(self._threads.map(with_all, self.streams))


_hosted: Hosted | None = None


def hosted() -> Hosted:
    """What this process hosts."""
    assert _hosted is not None, "open_artifact comes first"
    return _hosted


def open_artifact(folder: Path, workload: Workload) -> float:
    """Loads the artifact and a pool of real batches; returns the seconds from import to a first answer."""
    global _hosted
    samples = evaluation(workload.dataset)
    start = time.perf_counter()
    loaded = artifact.load(folder)
    rounds = [shape for shape in loaded.declared for _ in range(shape.calls)]
    pool = [[_batch(samples, shape, loaded.batch_size, offset) for shape in rounds] for offset in range(_POOL)]
    for batch in pool[0]:
        loaded.run(copied(batch))
    _hosted = Hosted(loaded, loaded.target.hardware, workload.task, pool)
    return time.perf_counter() - start


def warm_up(limit_s: float) -> float:
    """Works until steady: the medians of two successive windows agree, or the limit is reached.

    Returns the least duration of a unit, ms, of the slowest replica; of several lengths, of the mean over a round.
    """
    return max(hosted().at_once(lambda stream: stream.warm_up(limit_s)))


def turn(seconds: float, least_units: int) -> Turn:
    """Units back to back for at least that long and that often, in all replicas at once.

    What ran in between has taken the caches: units for `LEAD` of that time come before, and are not recorded.
    """
    return joined(hosted().at_once(lambda stream: stream.turn(seconds, least_units)))


def energy_j() -> float | None:
    """The machine's energy a unit, J, by counters that move too seldom for a turn to tell it: over as many units as it
    takes to see `MOVES` of them. None where turns do tell it, or nothing does."""
    here = hosted()
    reading = here.hardware.energy()
    if not here.hardware.energy_step_s or not reading or len(here.streams) > 1:
        return None
    first, last, units, moves = reading, reading, 0, 0
    end = time.monotonic() + 2 * MOVES * here.hardware.energy_step_s
    while moves <= MOVES and time.monotonic() < end:
        here.streams[0].timed()
        units += 1
        reading = here.hardware.energy()
        if all(now.joules != then.joules for now, then in zip(reading, last, strict=False)):  # the slowest of them too
            last, moves = reading, moves + 1
            if moves == 1:  # what is counted begins where they have just moved
                first, units = reading, 0
    used_j = energy.used(first, reading)
    return used_j / (units * here.calls) if used_j is not None and moves > 1 else None


def scores(workload: Workload, bar: Bar | None = None, most: int | None = None) -> Scores:
    """How good the artifact's answers to the evaluation samples are, as the task judges; no more than it takes to see
    that the `bar` is missed, or whole batches of `most` samples. Raises what it raises."""
    here = hosted()
    judging, samples = replace(workload.judge, bar=bar), judged_samples(workload, here.artifact)
    if most is not None:
        samples = islice(samples, -(-most // here.artifact.batch_size))
    return here.task.scores(here.artifact, samples, judging)


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
    return batch, here.artifact.run(copied(batch))


def operator_times(folder: Path) -> list[OperatorTime]:
    """Where the time of a call of one replica goes, by its runtime's own clock; nothing where that has none. `folder`
    is that of the artifact that is kept."""
    whole = artifact.read_manifest(folder)
    manifest = whole.share(whole.candidate.replicas)
    backend = manifest.candidate.backend
    place, inputs = artifact.buckets(folder / manifest.files, backend, manifest)[0]
    return backend.operator_times(place, inputs, manifest.target, hosted().pool[0][0])


def memory_mb() -> float:
    """The most memory this process has had, MB: interpreter, runtime, artifact and samples as they were resident, and
    what it took of the device's own."""
    # not getrusage's: a process that was started anew has in it what its parent had
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    resident_mb = int(line.split()[1]) * 1024 / 1e6
    return resident_mb + hosted().hardware.memory_mb()


def beyond_loadgen() -> bool:
    """Whether no clock but the session's can time it, or its calls are of several lengths."""
    sessions = [replica.session for replica in hosted().artifact.replicas]
    return any(type(session).now is not Session.now for session in sessions) or hosted().calls > 1


def _batch(samples: Samples, shape: Shape, size: int, offset: int) -> Arrays:
    """A whole batch of real inputs, as the artifact takes them."""
    rows = [samples[(offset * size + i) % len(samples)][0] for i in range(size)]
    return {
        spec.name: np.asarray(spec.placed(np.stack([row[spec.name] for row in rows])), order="C")
        for spec in shape.inputs
    }
