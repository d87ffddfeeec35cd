"""When a batch goes, and what the output cache keeps."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serve import virtual
from tuner.measure.queueing import at_rate
from tuner.serve.batcher import Batcher, Work
from tuner.serve.cache import Cache, key_of
from tuner.serve.estimates import CallTime
from tuner.serve.metrics import Metrics
from tuner.serve.protocol import Refusal
from tuner.serve.replica import Layout, room, views
from tuner.testing.fakes import INPUTS

CALL_S, SIZE = 0.01, 8


class Session:
    """In place of a process: it answers with what it was given, once it is told to."""

    calling = gone = False

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.sizes: list[int] = []
        self._buffer = np.zeros(4096, np.uint8)

    def buffers(self, layout: Layout) -> Any:
        return views(self._buffer, layout)

    async def call(self, layout: Layout, limit_s: float) -> list[Any]:
        self.sizes.append(layout[0][1][0])
        self.calling = True
        await self.answered()
        self.calling = False
        return [array.copy() for array in self.buffers(layout).values()]

    async def answered(self) -> None:
        await self.go.wait()


class Prompt(Session):
    """A call takes as long as it says."""

    call_s = CALL_S

    async def answered(self) -> None:
        await asyncio.sleep(self.call_s)


def work(identity: float, count: int = 1) -> Work:
    future = asyncio.get_running_loop().create_future()
    return Work({"x": np.full((count, 4), identity, np.float32)}, INPUTS, count, future, time.monotonic())


@contextlib.asynccontextmanager
async def batching_to(sessions: Sequence[Session], size: int, smaller: int = 0) -> AsyncIterator[Batcher]:
    batcher = Batcher(sessions, size, (0,), CallTime(CALL_S), Metrics(size), smaller)  # type: ignore[arg-type]
    batcher.run()
    try:
        yield batcher
    finally:
        await batcher.stop()


def prompt(
    test: Callable[[Batcher, list[Prompt]], Awaitable[None]], size: int, replicas: int = 2, smaller: int = 0
) -> None:
    """By a clock of its own, by which a call takes exactly as long as it says."""

    async def run() -> None:
        sessions = [Prompt() for _ in range(replicas)]
        async with batching_to(sessions, size, smaller) as batcher:
            await test(batcher, sessions)

    virtual.run(run())


async def offered(batcher: Batcher, due: np.ndarray, counts: Mapping[float, int] | None = None) -> np.ndarray:
    """The latency in s of requests that come at those times, of one sample where `counts` does not say."""
    latency = np.zeros(len(due))

    async def ask(number: int) -> None:
        await batcher.submit(work(number, (counts or {}).get(due[number], 1)))
        latency[number] = time.monotonic() - due[number]

    tasks = []
    for number, at in enumerate(due):
        await asyncio.sleep(at - time.monotonic())
        tasks.append(asyncio.create_task(ask(number)))
    await asyncio.gather(*tasks)
    return latency


def batching(test: Callable[[Batcher, Session], Awaitable[None]], queue_s: float = 10.0) -> None:
    async def run() -> None:
        session = Session()
        async with batching_to([session], SIZE) as batcher:
            batcher.queue_s = queue_s
            await test(batcher, session)

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


@pytest.mark.slow
@pytest.mark.parametrize(("size", "load"), [(8, 0.05), (8, 0.3), (32, 0.7)])
def test_what_comes_at_random_is_answered_as_the_simulation_promises(size: int, load: float) -> None:
    rate = load * 2 * size / CALL_S

    async def test(batcher: Batcher, sessions: list[Prompt]) -> None:
        random = np.random.default_rng(0)
        latency = await offered(batcher, np.cumsum(random.exponential(1 / rate, size=20_000)))
        settled = latency[5_000:] * 1e3
        promised, at_once = (
            at_rate(np.array([CALL_S * 1e3]), size, rate, 1, replicas=2, paced=p) for p in (True, False)
        )
        assert np.percentile(settled, 50) == pytest.approx(promised.p50, rel=0.03)
        assert np.percentile(settled, 99) == pytest.approx(promised.p99, rel=0.03)
        assert promised.p99 < 0.9 * at_once.p99
        assert len(settled) / sum(len(session.sizes) for session in sessions) * 4 / 3 == pytest.approx(
            promised.batch_fill, rel=0.03
        )

    prompt(test, size)


def test_who_comes_after_a_batch_went_waits_until_a_share_of_a_call_has_passed() -> None:
    async def test(batcher: Batcher, sessions: list[Prompt]) -> None:
        latency = await offered(batcher, np.array([0.05, 0.1, 0.101]), {0.1: SIZE})
        assert latency[0] == pytest.approx(CALL_S, rel=1e-3), "no batch went of late"
        assert latency[-1] == pytest.approx(1.5 * CALL_S - 1e-3, rel=1e-3)

    prompt(test, SIZE)


@pytest.mark.parametrize(("replicas", "smaller"), [(1, 0), (2, 1)])
def test_a_single_replica_and_a_batch_that_a_smaller_recipe_answers_wait_for_nobody(
    replicas: int, smaller: int
) -> None:
    async def test(batcher: Batcher, sessions: list[Prompt]) -> None:
        latency = await offered(batcher, np.array([0.1, 0.101]), {0.1: SIZE})
        free_s = CALL_S - 1e-3 if replicas == 1 else 0.0
        assert latency[-1] == pytest.approx(free_s + CALL_S, rel=1e-3)

    prompt(test, SIZE, replicas, smaller)


def test_who_asks_one_request_at_a_time_never_waits() -> None:
    """Not even where calls take less than the share that they are apart: no replica is busy."""

    async def test(batcher: Batcher, sessions: list[Prompt]) -> None:
        call_s = 0.3 * CALL_S
        for session in sessions:
            session.call_s = call_s
        for number in range(20):
            start = time.monotonic()
            await batcher.submit(work(number))
            assert time.monotonic() - start == pytest.approx(call_s, rel=1e-3)

    prompt(test, SIZE)


def test_who_waits_goes_when_the_last_call_ends() -> None:
    """The other replica is free all the while."""

    async def test(batcher: Batcher, sessions: list[Prompt]) -> None:
        for session in sessions:
            session.call_s = 0.3 * CALL_S
        latency = await offered(batcher, np.array([0.1, 0.101]))
        assert latency[-1] == pytest.approx(0.6 * CALL_S - 1e-3, rel=1e-3)

    prompt(test, SIZE)


def test_a_fixed_wait_is_as_long_as_it_says() -> None:
    async def test(batcher: Batcher, sessions: list[Prompt]) -> None:
        batcher.wait_s = 0.3
        latency = await offered(batcher, np.array([0, 0.1, 2, *np.linspace(4, 4.1, SIZE)]))
        assert latency == pytest.approx([0.31, 0.21, 0.31, *np.linspace(0.11, 0.01, SIZE)], rel=1e-3)

    prompt(test, SIZE)


def test_how_long_a_call_takes_is_what_the_study_measured_until_it_was_observed() -> None:
    call_time = CallTime(1.0)
    assert call_time.mean_s == 1.0
    for _ in range(20):
        call_time.add(2.0)
    assert call_time.mean_s == 1.5
    for _ in range(200):
        call_time.add(3.0)
    assert call_time.mean_s == 3.0
    assert CallTime(None).mean_s == 0


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


def test_a_server_that_stalled_once_answers_again() -> None:
    """One call of a second makes the mean call longer than what may be waited for; only calls tell that it is over."""

    async def test(batcher: Batcher, sessions: list[Prompt]) -> None:
        batcher.queue_s = 3.5 * CALL_S
        sessions[0].call_s = 100 * CALL_S
        await batcher.submit(work(0))
        sessions[0].call_s = CALL_S
        assert batcher.predicted_s(1) > batcher.queue_s
        for number in range(220):
            assert (await batcher.submit(work(number)))[0][0, 0] == number
        assert batcher.predicted_s(1) == pytest.approx(CALL_S)

    prompt(test, SIZE, replicas=1)


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
