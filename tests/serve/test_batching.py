"""When a batch goes, and what the output cache keeps."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.serve.batcher import Batcher, CallTime, Work
from tuner.serve.cache import Cache, key_of
from tuner.serve.metrics import Metrics
from tuner.serve.protocol import Refusal
from tuner.serve.replica import Layout, room, views
from tuner.testing.fakes import INPUTS

CALL_S, LIMIT_S, SIZE = 0.01, 0.05, 8


class Session:
    """In place of a process: it answers with what it was given, once it is told to."""

    calling = False

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.sizes: list[int] = []
        self._buffer = np.zeros(4096, np.uint8)

    def buffers(self, layout: Layout) -> Any:
        return views(self._buffer, layout)

    async def call(self, layout: Layout, limit_s: float) -> list[Any]:
        self.sizes.append(layout[0][1][0])
        self.calling = True
        await self.go.wait()
        self.calling = False
        return [array.copy() for array in self.buffers(layout).values()]


def work(identity: float, count: int = 1) -> Work:
    future = asyncio.get_running_loop().create_future()
    return Work({"x": np.full((count, 4), identity, np.float32)}, INPUTS, count, future)


def batching(test: Callable[[Batcher, Session], Awaitable[None]], queue_s: float = 10.0) -> None:
    async def run() -> None:
        session = Session()
        batcher = Batcher([session], SIZE, (0,), CallTime(CALL_S), Metrics(SIZE))  # type: ignore[list-item]
        batcher.limit_s, batcher.queue_s = LIMIT_S, queue_s
        batcher.run()
        try:
            await test(batcher, session)
        finally:
            await batcher.stop()

    asyncio.run(run())


def test_a_lone_request_waits_for_nobody() -> None:
    async def test(batcher: Batcher, session: Session) -> None:
        session.go.set()
        (answer,) = await batcher.submit(work(7))
        assert answer.tolist() == [[7] * 4]
        assert session.sizes == [1]

    batching(test)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, SIZE), min_size=1, max_size=12))
def test_a_batch_forms_while_the_session_is_busy_and_each_gets_its_own(counts: list[int]) -> None:
    async def test(batcher: Batcher, session: Session) -> None:
        first = asyncio.create_task(batcher.submit(work(-1)))
        while not session.sizes:
            await asyncio.sleep(0)
        waiting = [asyncio.create_task(batcher.submit(work(i, n))) for i, n in enumerate(counts)]
        await asyncio.sleep(0)
        session.go.set()
        await first
        for i, (count, (answer,)) in enumerate(zip(counts, await asyncio.gather(*waiting), strict=True)):
            assert answer.tolist() == [[i] * 4] * count
        assert sum(session.sizes) == 1 + sum(counts)
        assert max(session.sizes) <= SIZE
        assert len(session.sizes) <= 2 + 2 * sum(counts) // SIZE + 1  # two neighbours fill more than one batch

    batching(test)


def test_the_longest_wait_is_what_the_limit_leaves_after_a_call() -> None:
    async def test(batcher: Batcher, session: Session) -> None:
        busy = asyncio.create_task(batcher.submit(work(-1)))
        while not session.sizes:
            await asyncio.sleep(0)
        gone = [asyncio.create_task(batcher.submit(work(0, SIZE))) for _ in range(60)]  # 4.8 samples during a call
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        lone = work(0)
        waiting = [asyncio.create_task(batcher.submit(lone))]
        await asyncio.sleep(0)
        assert batcher.hold_s(lone.arrived) == pytest.approx(LIMIT_S - CALL_S)
        assert batcher.hold_s(lone.arrived + LIMIT_S - CALL_S) <= 0
        waiting += [asyncio.create_task(batcher.submit(work(i))) for i in range(4)]
        await asyncio.sleep(0)
        assert batcher.hold_s(lone.arrived) == 0  # as many as arrive during a call
        batcher.wait_s = 0.002
        assert batcher.hold_s(lone.arrived) == pytest.approx(0.002)
        session.go.set()
        await asyncio.gather(busy, *waiting)

    batching(test)


def test_who_goes_leaves_the_queue_and_who_would_wait_too_long_is_refused() -> None:
    async def test(batcher: Batcher, session: Session) -> None:
        busy = [asyncio.create_task(batcher.submit(work(i, SIZE))) for i in range(3)]
        while not session.sizes:
            await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await batcher.submit(work(9))
        assert (refused.value.status, refused.value.retry_after_s) == (503, 1)
        busy[-1].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = asyncio.create_task(batcher.submit(work(9)))
        session.go.set()
        await asyncio.gather(*busy[:2], waiting)
        assert session.sizes == [SIZE, SIZE, 1]

    batching(test, queue_s=3.5 * CALL_S)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20), st.floats(0, 3)), max_size=30))
def test_the_cache_keeps_within_its_memory_and_age(steps: list[tuple[int, int, float]]) -> None:
    now = 0.0
    cache = Cache(64, 5.0, lambda: now)
    made: dict[bytes, tuple[float, int]] = {}
    for name, size, pause in steps:
        now += pause
        key = bytes([name])
        kept = cache.get(key)
        assert kept is None or (now - made[key][0] <= 5 and kept["y"].nbytes == made[key][1])
        cache.put(key, {"y": np.zeros(size, np.uint8)})
        made[key] = now, size
        assert cache.bytes <= 64


def test_only_the_same_inputs_have_the_same_key() -> None:
    array = np.arange(4, dtype=np.int32)
    keys = {key_of({"x": a}) for a in (array, array.reshape(2, 2), array.view(np.float32), array + 1)}
    assert len(keys | {key_of({"y": array})}) == 5
    assert key_of({"x": array, "y": array}) == key_of({"y": array, "x": array[::1]})


@given(st.lists(st.tuples(st.sampled_from(["uint8", "float32", "int64"]), st.integers(0, 9)), min_size=1, max_size=4))
def test_arrays_in_shared_memory_do_not_overlap(kinds: list[tuple[str, int]]) -> None:
    layout = [(str(i), (count,), dtype) for i, (dtype, count) in enumerate(kinds)]
    placed = views(np.zeros(room(layout), np.uint8), layout)
    for number, array in enumerate(placed.values()):
        array[:] = number + 1
    assert all((array == number + 1).all() for number, array in enumerate(placed.values()))
