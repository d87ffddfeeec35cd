"""MLCommons LoadGen as an independent clock: the benchmark that MLPerf results are made with times the artifact.

The functions run in the process that hosts a loaded artifact, through a `Worker`, as those of `tuner.measure.host` do.
LoadGen makes the arrivals, takes both times of every query and computes the percentiles; what is here answers
queries, and reads `result_…` from its detailed log. A Server latency counts from when a query was due, not from when it
was issued.

Percentiles are plain order statistics of every query. LoadGen's early stopping asks for more: that the share of late
queries be within the percentile with 99 % confidence, for which it takes 459 queries with none late, or about 3,300
with 20 late, of a p99; it calls a run with fewer invalid, and in SingleStream replaces its percentile by a longer
one (MLPerf inference rules, appendix on early stopping). So `valid` is LoadGen's own verdict with that rule, and
a percentile that is within its limit in a run that is not valid was just not shown to be: run for longer.
"""

import json
import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.measure.batching import Pace
from tuner.measure.host import Hosted, hosted
from tuner.tensors import Arrays

_PROBED = 5  # calls that tell LoadGen how many queries to prepare
_SPARE = 2.0  # it prepares this many times more: a run that uses them up is invalid


@dataclass(frozen=True)
class LoadgenResult:
    """What LoadGen found: latencies in ms, and samples per second.

    `latency_ms` of Offline is the time from the start of the run, and says little. `valid` is LoadGen's verdict, and
    `problem` its reason where it is not. `batch_fill` is the mean number of samples in a call, `service_ms` the median
    duration of a call under that load, assembly and answer included.
    """

    p50: float
    p90: float
    p95: float
    p99: float
    qps: float
    samples: int
    valid: bool
    problem: str | None
    batch_fill: float
    service_ms: float


def available() -> str | None:
    """Why LoadGen cannot be used here, in one line; None where it can."""
    try:
        import mlperf_loadgen  # noqa: F401
    except ImportError as error:
        return f"LoadGen does not import ({error}); pip install 'inference-tuner[loadgen]'"
    return None


def single_stream(seconds: float) -> LoadgenResult:
    """One query at a time, each of one sample, for that long: the latency of a call. `qps` counts queries, each of
    which costs a whole padded call. Replicas are never at work together in it."""
    system = _System(hosted())
    call_s = system.probe()
    return _run(
        "SingleStream",
        system.answer,
        system,
        seconds,
        single_stream_expected_latency_ns=max(1, int(call_s / _SPARE * 1e9)),
    )


def offline(seconds: float) -> LoadgenResult:
    """All samples at once, answered in full batches: the throughput `qps`. Takes at least that long, and up to about
    three times."""
    system = _System(hosted())
    call_s = system.probe()
    return _run(
        "Offline",
        system.answer,
        system,
        seconds,
        offline_expected_qps=system.replicas * system.batch_size / call_s * _SPARE,
    )


def server(
    rate: float, limit_ms: float, percentile: float, seconds: float, call_s: float, seed: int = 0
) -> LoadgenResult:
    """Poisson arrivals of single samples at `rate` a second, for that long, in front of dynamic batching.

    A thread for each replica takes what is queued, at most a batch, when `tune serve` would (`tuner.measure.batching`),
    pads it, calls the session and answers. `call_s` is how long a call takes on average while every replica is busy.
    `valid` tells whether that percentile of latency is within the limit, with early stopping's confidence. At a rate
    that the session cannot serve, it takes as long as answering every query does.
    """
    system = _System(hosted())
    pace = Pace.of(system.batch_size, system.replicas, call_s)
    with _batching(system, pace) as issue:
        return _run(
            "Server",
            issue,
            system,
            seconds,
            server_target_qps=rate,
            server_target_latency_ns=int(limit_ms * 1e6),
            server_target_latency_percentile=percentile / 100,
            server_coalesce_queries=True,  # those due together come together: it spends less of the session's processor
            schedule_rng_seed=seed,
        )


class _System:
    """The artifact as LoadGen's system under test. Samples are the rows of the host's batches."""

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted
        self.batch_size = hosted.artifact.batch_size
        self.replicas = hosted.artifact.candidate.replicas
        self._map = map if self.replicas == 1 else ThreadPoolExecutor(self.replicas).map
        pool = [batch for (batch,) in hosted.pool]
        self._axes = {spec.name: spec.batch_axis for spec in hosted.artifact.inputs}
        self._rows: Arrays = {
            name: pool[0][name] if axis is None else np.concatenate([batch[name] for batch in pool], axis)
            for name, axis in self._axes.items()
        }
        self.count = self.batch_size * len(pool)
        self.calls: list[tuple[int, float]] = []
        """Samples and seconds of each call."""
        self.error: Exception | None = None

    def probe(self) -> float:
        """The median seconds of a call."""
        for _ in range(_PROBED):
            self._call([0] * self.batch_size)
        seconds = [s for _, s in self.calls]
        self.calls.clear()
        return float(np.median(seconds))

    def answer(self, queries: Sequence[Any]) -> None:
        """Answers queries in batches, as many at once as there are replicas; LoadGen knows of each query when its batch
        is done."""
        starts = range(0, len(queries), self.batch_size)
        list(self._map(self.answer_batch, [queries[first : first + self.batch_size] for first in starts]))

    def answer_batch(self, batch: Sequence[Any]) -> None:
        import mlperf_loadgen

        if self.error is None:
            try:
                self._call([query.index for query in batch])
            except Exception as error:  # LoadGen waits for every answer, and cannot be told to stop
                self.error = error
        mlperf_loadgen.QuerySamplesComplete([mlperf_loadgen.QuerySampleResponse(query.id, 0, 0) for query in batch])

    def _call(self, rows: list[int]) -> None:
        now = self._hosted.artifact.now
        start = now()
        padded = rows + [0] * (self.batch_size - len(rows))
        self._hosted.task.perform(self._hosted.artifact, {name: self._picked(name, padded) for name in self._rows})
        self._hosted.hardware.synchronise()
        self.calls.append((len(rows), now() - start))

    def _picked(self, name: str, rows: list[int]) -> NDArray[Any]:
        axis = self._axes[name]
        return self._rows[name] if axis is None else self._rows[name].take(rows, axis)


@contextmanager
def _batching(system: _System, pace: Pace) -> Iterator[Callable[[Sequence[Any]], None]]:
    """Dynamic batching: what to give queries to, while a thread for each replica answers them."""
    queue: SimpleQueue[Any] = SimpleQueue()
    taking = threading.Lock()
    went = -math.inf  # when the last batch did
    calling: list[int] = []  # the sizes of the batches that are being answered, in no order

    def issue(queries: Sequence[Any]) -> None:
        for query in queries:
            queue.put(query)

    def serve() -> None:
        while batch := taken():
            system.answer_batch(batch)
            calling.pop()

    def taken() -> list[Any]:
        """At most a batch, at least one; nothing at the end, which comes once every query is answered."""
        nonlocal went
        with taking:
            batch = [queue.get()]
            while batch[-1] is not None and len(batch) < system.batch_size:
                since_s = time.monotonic() - went if calling else math.inf
                hold_s = pace.hold(len(batch) + queue.qsize(), since_s)
                try:
                    batch.append(queue.get(hold_s > 0, hold_s))
                except Empty:
                    break
            went = time.monotonic()
            calling.append(len(batch))
        return [query for query in batch if query is not None]

    threads = [threading.Thread(target=serve, name="batching", daemon=True) for _ in range(system.replicas)]
    for thread in threads:
        thread.start()
    try:
        yield issue
    finally:
        for _ in threads:
            queue.put(None)
        for thread in threads:
            thread.join()


def _run(
    scenario: str, issue: Callable[[Sequence[Any]], None], system: _System, seconds: float, **settings: float
) -> LoadgenResult:
    """One run of LoadGen. Raises what the session raised."""
    import mlperf_loadgen as lg

    test = lg.TestSettings()
    test.scenario = getattr(lg.TestScenario, scenario)
    test.mode = lg.TestMode.PerformanceOnly
    test.min_duration_ms = int(seconds * 1e3)
    test.min_query_count = 1
    for name, value in settings.items():
        setattr(test, name, value)
    with tempfile.TemporaryDirectory(prefix="loadgen-") as folder:
        output = lg.LogOutputSettings()
        output.outdir = folder
        output.copy_summary_to_stdout = False
        log = lg.LogSettings()
        log.log_output = output
        log.enable_trace = False
        sut = lg.ConstructSUT(issue, lambda: None)
        library = lg.ConstructQSL(system.count, system.count, lambda _: None, lambda _: None)
        try:
            # the last argument names a file that it would otherwise look for in the working directory
            lg.StartTestWithLogSettings(sut, library, test, log, str(Path(folder, "audit.config")))
        finally:
            lg.DestroyQSL(library)
            lg.DestroySUT(sut)
        if system.error is not None:
            raise system.error
        return _result(_entries(Path(folder, "mlperf_log_detail.txt")), system)


_RATES = ("result_samples_per_second", "result_completed_samples_per_sec", "result_qps_with_loadgen_overhead")


def _result(entries: dict[str, Any], system: _System) -> LoadgenResult:
    sizes, seconds = np.array(system.calls).T
    p50, p90, p95, p99 = (entries[f"result_{q}.00_percentile_latency_ns"] / 1e6 for q in (50, 90, 95, 99))
    valid = entries["result_validity"] == "VALID"
    reasons = " ".join(str(entries.get(key, "")) for key in ("result_invalid_reason", "early_stopping_result"))
    return LoadgenResult(
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        qps=float(next(entries[key] for key in _RATES if key in entries)),
        samples=int(sizes.sum()),
        valid=valid,
        problem=None if valid else " ".join(reasons.replace("*", " ").split()) or "LoadGen gave no reason",
        batch_fill=float(sizes.mean()),
        service_ms=float(np.median(seconds)) * 1e3,
    )


def _entries(log: Path) -> dict[str, Any]:
    """The last value of each key in LoadGen's detailed log: one JSON object a line, after a marker."""
    lines = (line.partition(":::MLLOG ")[2] for line in log.read_text().splitlines())
    return {entry["key"]: entry["value"] for entry in map(json.loads, filter(None, lines))}
