"""Dynamic batching in front of the replicas. A batch forms while every one of them is busy; when one is free,
`tuner.measure.batching` says whether what waits goes, as it does in the simulation that promised a rate.

A request is accepted only if the latency predicted for it, queue and call, is within what is allowed.
"""

import asyncio
import math
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner import artifact
from tuner.errors import CandidateError
from tuner.measure.batching import Pace
from tuner.serve.estimates import CallTime
from tuner.serve.metrics import Metrics
from tuner.serve.protocol import Refusal
from tuner.serve.replica import Layout, Replica
from tuner.tensors import Arrays, TensorSpec

_HANG_S = 10.0
_HANG_CALLS = 50.0  # a call that takes as long as so many, and longer than that many seconds, hangs
_START_S = 300.0
_BACKOFF_S = (0.0, 0.1, 0.5, 2.0, 5.0, 15.0)
_ATTEMPTS = 3  # batches that a request may see die
_GONE = ("crash", "killed", "timeout")


@dataclass(eq=False)
class Work:
    """A request in the queue: `count` samples of these shapes."""

    inputs: Arrays
    specs: tuple[TensorSpec, ...]
    count: int
    answer: "asyncio.Future[list[NDArray[Any]]]"
    arrived: float = field(default_factory=time.monotonic)
    begun: float = 0.0
    attempts: int = 0

    def layout(self, count: int) -> Layout:
        return [(spec.name, spec.full(count), spec.dtype) for spec in self.specs]


class Batcher:
    """The queue in front of the replicas, on one event loop. `wait_s` fixes the longest wait, None leaves it to `Pace`;
    `queue_s` is the longest predicted latency of a request that is accepted. Calls of up to `smaller` samples are
    answered by a smaller recipe, and tell nothing of how long a whole batch takes."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        batch_size: int,
        axes: Sequence[int | None],
        call_time: CallTime,
        metrics: Metrics,
        smaller: int = 0,
    ) -> None:
        self.wait_s: float | None = None
        self.queue_s = math.inf
        self._replicas, self._size, self._axes = replicas, batch_size, axes
        self._call_time, self._metrics, self._smaller = call_time, metrics, smaller
        self._queue: deque[Work] = deque()
        self._news = asyncio.Event()
        self._went = -math.inf  # when the last whole call began
        self._ready: set[Replica] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> int:
        """The replicas that answer."""
        return len(self._ready)

    def run(self) -> None:
        """From now on the replicas, which have been started, answer."""
        self._ready = set(self._replicas)
        self._metrics.ready.set(len(self._ready))
        for replica in self._replicas:
            replica.on_gone = self._news.set
        self._tasks = [asyncio.create_task(self._serve(replica)) for replica in self._replicas]
        for task in self._tasks:
            task.add_done_callback(_end_of_a_bug)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def submit(self, work: Work) -> list[NDArray[Any]]:
        """The outputs for these samples. Raises Refusal where they would wait too long for others.

        Cancelled, it leaves the queue; what is being computed already is thrown away.
        """
        predicted = self.predicted_s(work.count)
        self._metrics.predicted.set(predicted)
        # where nobody is before it, it goes: only calls tell that they are no longer slow
        if predicted > self.queue_s and (self._queue or len(self._busy()) >= len(self._ready)):
            wait_s = max(1, math.ceil(predicted - self.queue_s))
            raise Refusal(503, f"the queue is full: an answer would take {predicted * 1e3:.0f} ms", wait_s)
        self._queue.append(work)
        self._changed()
        try:
            return await work.answer
        finally:
            if work in self._queue:
                self._queue.remove(work)
                self._changed()

    def predicted_s(self, count: int) -> float:
        """The latency of a request that came now, s: the calls before its own, and its own."""
        ahead = sum(work.count for work in self._queue) + count
        calls = math.ceil(ahead / self._size) / max(1, len(self._ready))
        return (math.ceil(calls) + (len(self._busy()) >= len(self._ready))) * self._call_time.mean_s

    def _busy(self) -> set[Replica]:
        return {replica for replica in self._ready if replica.calling}

    def _changed(self) -> None:
        self._metrics.queued.set(sum(work.count for work in self._queue))
        self._news.set()

    async def _serve(self, replica: Replica) -> None:
        """Takes batches for as long as the server runs; begins the replica anew when it dies."""
        failures = 0
        while True:
            batch = await self._batch(replica)
            if not batch:
                failures = await self._revive(replica, failures)
                continue
            try:
                await self._call(replica, batch)
                failures = 0
            except CandidateError as error:
                if error.kind not in _GONE:
                    for work in batch:
                        _fail(work, error)
                    continue
                self._again(batch, error)
                failures = await self._revive(replica, failures)

    async def _revive(self, replica: Replica, failures: int) -> int:
        """Until it answers; how often it failed in a row."""
        self._ready.discard(replica)
        self._metrics.deaths.inc()
        while replica not in self._ready:
            self._metrics.ready.set(len(self._ready))
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures += 1
            try:
                await replica.start(_START_S)
            except CandidateError:
                continue  # its log says why; it is tried again, ever more seldom
            self._ready.add(replica)
        self._metrics.ready.set(len(self._ready))
        return failures

    async def _batch(self, replica: Replica) -> list[Work]:
        """The next requests that go together, once it is time; none where the replica is gone before."""
        while not replica.gone:
            wait_s = self.hold_s(time.monotonic())
            if wait_s <= 0:
                return self._taken()
            self._news.clear()
            try:
                async with asyncio.timeout(None if wait_s == math.inf else wait_s):
                    await self._news.wait()
            except TimeoutError:
                continue
        return []

    def hold_s(self, now: float) -> float:
        """How long a free replica waits for more requests; infinity where there is none, 0 where it is to go."""
        if not self._queue:
            return math.inf
        first = self._queue[0]
        waiting = sum(work.count for work in self._queue)
        if waiting >= self._size or self._goes_alone(first):
            return 0.0
        if self.wait_s is not None:
            return max(0.0, first.arrived + self.wait_s - now)
        pace = Pace.of(self._size, len(self._ready), self._call_time.mean_s, self._smaller)
        return pace.hold(waiting, now - self._went if self._busy() else math.inf)

    def _goes_alone(self, work: Work) -> bool:
        """A replica died of its batch, or nobody can share its call: an input is of a whole batch. An output without a
        batch axis is the same for every sample, which was tried when the model came in."""
        return work.attempts > 0 or None in {spec.batch_axis for spec in work.specs}

    def _taken(self) -> list[Work]:
        """The oldest request, and those behind it that can share its call."""
        first = self._queue.popleft()
        batch, count = [first], first.count
        if not self._goes_alone(first):
            for work in list(self._queue):
                if count + work.count <= self._size and work.specs == first.specs and not work.attempts:
                    batch.append(work)
                    count += work.count
                if count == self._size:
                    break
            taken = {id(work) for work in batch}
            self._queue = deque(work for work in self._queue if id(work) not in taken)
        if count > self._smaller:
            self._went = time.monotonic()
        self._changed()
        return batch

    async def _call(self, replica: Replica, batch: Sequence[Work]) -> None:
        """Answers a batch. Raises CandidateError."""
        count, start = sum(work.count for work in batch), time.monotonic()
        layout = batch[0].layout(count)
        buffers = replica.buffers(layout)
        row = 0
        for work in batch:
            work.begun = start
            for spec in work.specs:
                artifact.cut(buffers[spec.name], spec.batch_axis, row, row + work.count)[...] = work.inputs[spec.name]
            row += work.count
        outputs = await replica.call(layout, max(_HANG_S, _HANG_CALLS * self._call_time.mean_s))
        seconds = time.monotonic() - start
        if count > self._smaller:
            self._call_time.add(seconds)
        self._metrics.batches.observe(count)
        self._metrics.stages["call"].observe(seconds)
        axes, row = self._axes or (0,) * len(outputs), 0
        for work in batch:
            if not work.answer.done():  # its client may have gone
                work.answer.set_result(
                    [np.array(artifact.cut(o, a, row, row + work.count)) for o, a in zip(outputs, axes, strict=True)]
                )
            row += work.count

    def _again(self, batch: Sequence[Work], error: CandidateError) -> None:
        """Requests whose replica died go first and alone: the one that killed it takes no other along again."""
        for work in reversed(batch):
            work.attempts += 1
            if work.attempts >= _ATTEMPTS:
                _fail(work, error)
            elif not work.answer.done():
                self._metrics.retried.inc()
                self._queue.appendleft(work)
        self._changed()


def _end_of_a_bug(task: "asyncio.Task[None]") -> None:
    """A replica that nobody serves would leave requests waiting: the server ends, and who runs it begins it anew."""
    if not task.cancelled() and (error := task.exception()) is not None:
        traceback.print_exception(error)
        os.kill(os.getpid(), signal.SIGTERM)


def _fail(work: Work, error: CandidateError) -> None:
    if not work.answer.done():
        work.answer.set_exception(error)
