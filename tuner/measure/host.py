"""What runs inside the process that hosts one loaded artifact: warm-up, timed turns, accuracy.

One process, one artifact, kept in this module. The functions are called through a `Worker`.
"""

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner import artifact
from tuner.device import Device
from tuner.errors import CandidateError
from tuner.plugin import Session
from tuner.system import energy
from tuner.system.code import resolve
from tuner.workload import Arrays, Dataset, Samples, Workload, batches, evaluation

LEAD = 0.2  # of a turn, in calls before it that are not recorded
_POOL = 8  # distinct batches a timing cycles through
_STEADY = 0.05  # two successive windows of warm-up calls agree within this
_WINDOW = 8


@dataclass
class _Hosted:
    artifact: artifact.Artifact
    hardware: Device
    pool: list[Arrays]
    calls: int = 0


_hosted: _Hosted | None = None


def open_artifact(folder: Path, dataset: Dataset) -> float:
    """Loads the artifact and a pool of real batches; returns the seconds from import to a first answer."""
    global _hosted
    samples = evaluation(dataset)
    start = time.perf_counter()
    loaded = artifact.load(folder)
    pool = [_batch(samples, loaded.batch_size, offset) for offset in range(_POOL)]
    loaded.session.run(_copied(pool[0]))
    _hosted = _Hosted(loaded, loaded.target.hardware, pool)
    return time.perf_counter() - start


def warm_up(limit_s: float) -> float:
    """Calls until steady: the medians of two successive windows agree, or the limit is reached.

    Returns the least duration of a call, ms.
    """
    end = _now() + limit_s
    calls = [_timed_call()]
    before = float("inf")
    while _now() < end:
        window = [_timed_call() for _ in range(_WINDOW) if _now() < end]
        if not window:
            break
        calls += window
        now = float(np.median(window))
        if abs(now - before) <= _STEADY * now:
            break
        before = now
    return min(calls)


@dataclass(frozen=True)
class Turn:
    """Latencies of successive calls, ms; process CPU time, ms, and the machine's energy, J, a call (None: not told);
    how long the turn took, what is not recorded included, s."""

    wall_ms: NDArray[Any]
    cpu_ms: float
    energy_j: float | None
    seconds: float


def turn(seconds: float, least_calls: int) -> Turn:
    """Calls back to back for at least that long and that often.

    What ran in between has taken the caches: calls for `LEAD` of that time come before, and are not recorded.
    """
    began = _now()
    while True:
        _timed_call()
        if _now() >= began + LEAD * seconds:
            break
    rows: list[float] = []
    hardware = _loaded().hardware
    before = hardware.energy()
    end = _now() + seconds
    # over the whole turn: the kernel adds up other threads' time only at its ticks
    cpu = time.process_time()
    while len(rows) < least_calls or _now() < end:
        rows.append(_timed_call())
    cpu_s = time.process_time() - cpu
    used_j = energy.used(before, hardware.energy())
    return Turn(np.array(rows), cpu_s * 1e3 / len(rows), None if used_j is None else used_j / len(rows), _now() - began)


def scores(workload: Workload) -> NDArray[Any]:
    """The metric's score of every evaluation sample, in order.

    Raises CandidateError (`numerics`) where an output is not finite, or all samples get the same outputs.
    """
    hosted = _loaded()
    metric = resolve(workload.metric, "metric")
    found: list[NDArray[Any]] = []
    first: NDArray[Any] | None = None
    constant = True
    for inputs, labels in batches(evaluation(workload.dataset), hosted.artifact.batch_size):
        outputs = hosted.artifact.run(inputs)
        for output in outputs:
            if not np.isfinite(output).all():
                raise CandidateError("numerics", "its outputs on the evaluation samples include NaN or infinity")
        first = outputs[0][:1].copy() if first is None else first
        constant = constant and bool(np.array_equal(outputs[0], np.broadcast_to(first, outputs[0].shape)))
        found.append(np.asarray(metric(outputs, labels), dtype=np.float64))
    joined = np.concatenate(found)
    if constant and len(joined) > 1:
        raise CandidateError("numerics", "it gives the same outputs for every evaluation sample")
    return joined


def example() -> tuple[Arrays, list[NDArray[Any]]]:
    """A batch of real inputs and the outputs it gets."""
    hosted = _loaded()
    return hosted.pool[0], [np.array(o) for o in hosted.artifact.session.run(_copied(hosted.pool[0]))]


def memory_mb() -> float:
    """The most memory this process has had, MB: interpreter, runtime, artifact and samples as they were resident, and
    what it took of the device's own."""
    resident_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return resident_mb + _loaded().hardware.memory_mb()


def keeps_its_own_clock() -> bool:
    """Whether no clock but the session's can time it."""
    return type(_loaded().artifact.session).now is not Session.now


def _now() -> float:
    return _loaded().artifact.session.now()


def _loaded() -> _Hosted:
    assert _hosted is not None, "open_artifact comes first"
    return _hosted


def _timed_call() -> float:
    hosted = _loaded()
    inputs = _copied(hosted.pool[hosted.calls % len(hosted.pool)])  # a runtime may overwrite what it is given
    hosted.calls += 1
    start = _now()
    hosted.artifact.session.run(inputs)
    hosted.hardware.synchronise()
    return (_now() - start) * 1e3


def _copied(inputs: Arrays) -> Arrays:
    return {name: array.copy() for name, array in inputs.items()}


def _batch(samples: Samples, batch_size: int, offset: int) -> Arrays:
    rows = [samples[(offset * batch_size + i) % len(samples)][0] for i in range(batch_size)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
