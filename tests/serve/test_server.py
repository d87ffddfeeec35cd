"""The server as a stranger meets it: Triton's own client, malformed requests, and faults under load."""

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import Waking
from tests.serve.serving import (
    HEADER_LENGTH,
    OPTIONS,
    Served,
    asked,
    encoded,
    identity_of,
    packaged,
    sample,
    serving,
)  # fmt: skip
from tests.serve.test_protocol import REQUESTS, written
from tests.study import Refused

pytestmark = pytest.mark.xdist_group("serve")
READY = "tune_serve_replicas_ready"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = packaged(tmp_path_factory.mktemp("served") / "artifact", replicas=2)
    with serving(folder, *OPTIONS, "--cache-mb", "1") as server:
        yield server


def test_tritons_client_talks_to_it(served: Served) -> None:
    triton = pytest.importorskip("tritonclient.http")
    with triton.InferenceServerClient(served.address.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("model")
        assert client.is_model_ready("model", "1")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("model")
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        assert metadata["outputs"] == [{"name": "output_0", "datatype": "FP32", "shape": [-1, 3]}]
        array = np.arange(12, dtype=np.float32).reshape(3, 4)
        for to in (True, False):
            for back in (True, False):
                tensor = triton.InferInput("x", array.shape, "FP32")
                tensor.set_data_from_numpy(array, binary_data=to)
                wanted = [triton.InferRequestedOutput("output_0", binary_data=back)]
                answer = client.infer("model", [tensor], outputs=wanted, request_id=f"{to}{back}")
                assert answer.get_response()["id"] == f"{to}{back}"
                assert (answer.as_numpy("output_0") == array[:, :3]).all()
        with pytest.raises(Exception, match="'other'"):
            client.infer("other", [tensor])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/model/versions/2", 404),
        ("GET", "/v2/models/model/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/anything", 404),
    ],
)
def test_an_address_that_is_not_there_is_told_in_one_sentence(
    served: Served, method: str, path: str, status: int
) -> None:
    told(requests.request(method, served.address + path, timeout=10), {status})


def told(response: requests.Response, statuses: set[int] | None = None) -> None:
    assert 400 <= response.status_code < 500, response.text
    assert not statuses or response.status_code in statuses
    (key,) = response.json()
    assert key == "error"
    assert response.json()["error"]
    assert "\n" not in response.json()["error"]


@pytest.mark.parametrize(
    ("change", "headers", "status"),
    [
        (b"x" * 200_000, {}, 413),
        (None, {"content-encoding": "gzip"}, 415),
        (None, {HEADER_LENGTH: "99999999999999999999999"}, 400),
        (None, {HEADER_LENGTH: "-1"}, 400),
        (None, {HEADER_LENGTH: "0" * 20 + "1" * 5000}, 400),
        (b"", {}, 400),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    served: Served, change: bytes | None, headers: dict[str, str], status: int
) -> None:
    body, usual = encoded(sample(1))
    told(requests.post(served.infer, body if change is None else change, headers=usual | headers, timeout=10), {status})


def test_more_samples_than_a_batch_and_other_inputs_are_refused(served: Served) -> None:
    told(asked(served, 1, count=9), {400})
    for inputs in ({"y": np.zeros((1, 4), np.float32)}, {"x": np.zeros((1, 4))}, {"x": np.zeros((0, 4), np.float32)}):
        body, headers = encoded(inputs)
        told(requests.post(served.infer, body, headers=headers, timeout=10), {400})


def test_whatever_is_sent_gets_a_sentence_and_never_a_500(served: Served) -> None:
    """MALFORMED=1000 sends more. The server keeps nothing of them."""
    whatever_is_sent(served, 20)  # what the first of them need stays
    before = memory_mb(served)
    whatever_is_sent(served, int(os.environ.get("MALFORMED", "60")))
    assert memory_mb(served) - before < 8


def memory_mb(served: Served) -> float:
    """What the server's own process has of memory."""
    return psutil.Process(served.process.pid).memory_info().rss / 1e6


def whatever_is_sent(served: Served, count: int) -> None:
    """So many requests, none of which has a whole batch for `x` of four numbers a sample."""

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(value=REQUESTS, cut=st.none() | st.integers(0, 120), tail=st.binary(max_size=9))
    def send(value: Any, cut: int | None, tail: bytes) -> None:
        if cut is None:
            body, headers = written(value) + tail, {}
        else:
            whole, headers = encoded(sample(1))
            body = whole[: min(cut, len(whole) - 1)]
        told(requests.post(served.infer, body, headers=headers, timeout=10))

    send()


def test_the_same_inputs_are_answered_from_the_cache(served: Served) -> None:
    before = served.counts()
    answers = [asked(served, 1234).content for _ in range(3)]
    assert len({*answers}) == 1
    after = served.counts()
    for found, more in (("true", 2), ("false", 1)):
        key = f'tune_serve_cache_total{{found="{found}"}}'
        assert after[key] - before[key] == more


def test_a_request_keeps_its_ids(tmp_path: Path) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with serving(packaged(tmp_path / "artifact"), env={"TUNE_API_KEY": "open sesame"}) as served:
        told(asked(served, 1), {401})
        told(asked(served, 1, headers={"authorization": "Bearer wrong"}), {401})
        headers = {"authorization": "Bearer open sesame", "traceparent": trace, "x-request-id": "mine"}
        assert asked(served, 1, headers=headers).headers["x-request-id"] == "mine"
        requests.get(f"{served.address}/v2/health/live", timeout=10).raise_for_status()
    log = (tmp_path / "server.log").read_text()
    assert '"trace_id": "0af7651916cd43dd8448eb211c80319c"' in log
    assert "open sesame" not in log


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--host", "0.0.0.0"], "TUNE_API_KEY"),
        (["--port", "x"], "port"),
        (["--queue-ms", "0"], "--queue-ms 0 must be a number of more than 0"),
        (["--drain-s", "inf"], "--drain-s inf must be a number"),
        (["--tls-certificate", "nowhere", "--tls-key", "k"], "--tls-certificate nowhere and --tls-key k cannot"),
        (["--wait"], "no such option"),
        (["--tls-key", "k"], "belong together"),
    ],
)
def test_a_wrong_option_is_refused(
    options: list[str], complaint: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNE_API_KEY", raising=False)
    assert complaint in refused("serve", "somewhere", *options)


async def flood(served: Served, count: int, rate: float) -> "Counter[int]":
    """So many requests at that rate, each of which must be answered with its own identity or refused with a 503."""
    statuses: Counter[int] = Counter()

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        body, headers = encoded(sample(number))
        await asyncio.sleep(number / rate)
        async with session.post(served.infer, data=body, headers=headers) as response:
            answer = await response.read()
            statuses[response.status] += 1
            if response.status == 200:
                assert identity_of(answer, response.headers[HEADER_LENGTH]) == [number]
            else:
                assert response.status == 503
                assert int(response.headers["Retry-After"]) >= 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session, number) for number in range(count)))
    return statuses


@pytest.mark.slow
def test_a_replica_that_is_killed_loses_no_request(tmp_path: Path) -> None:
    with serving(packaged(tmp_path / "artifact", Waking(20.0), replicas=2), "--quiet", "--queue-ms", "5000") as served:

        async def killed() -> "Counter[int]":
            load = asyncio.create_task(flood(served, 300, 300))
            for _ in range(2):
                await asyncio.sleep(0.3)
                served.replicas()[0].kill()
            return await load

        assert asyncio.run(killed()) == {200: 300}
        counts = served.counts()
        assert counts["tune_serve_replica_deaths_total"] == 2
        assert served.outcomes() == {"answered": 300}
        assert counts["tune_serve_samples_total"] == counts["tune_serve_received_total"] == 300
        end = time.monotonic() + 30
        while served.counts()[READY] < 2:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_an_idle_replica_that_dies_is_begun_anew_before_anybody_asks(tmp_path: Path) -> None:
    with serving(packaged(tmp_path / "artifact"), "--quiet") as served:
        served.replicas()[0].kill()
        end = time.monotonic() + 30
        while (counts := served.counts())["tune_serve_replica_deaths_total"] < 1 or not counts[READY]:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert asked(served, 7).status_code == 200
        assert served.counts()["tune_serve_retried_total"] == 0


def test_a_connection_that_sends_no_header_is_given_up(tmp_path: Path) -> None:
    with serving(packaged(tmp_path / "artifact"), "--quiet", "--timeout-s", "0.5") as served:
        host, port = served.address.removeprefix("http://").split(":")
        silent, slow = (socket.create_connection((host, int(port)), timeout=20) for _ in range(2))
        slow.sendall(b"POST /v2/models/model/infer HTTP/1.1\r\nHost: ")
        assert silent.recv(1) == slow.recv(1) == b"", "closed"
        assert asked(served, 7).status_code == 200


@pytest.mark.slow
def test_overload_slow_clients_and_clients_that_go_are_counted_exactly(tmp_path: Path) -> None:
    """A call of 100 ms with 8 samples: 80 a second. Three times as many come for 30 s; what is accepted is answered."""
    count, options = 7200, ("--quiet", "--queue-ms", "250", "--timeout-s", "10")
    with serving(packaged(tmp_path / "artifact", Waking(100.0)), *options) as served:
        body, _ = encoded(sample(1))
        slow = _begun(served, len(body))
        gone = _begun(served, len(body))
        gone.close()
        statuses = asyncio.run(flood(served, count, 240))
        assert statuses[200] + statuses[503] == count
        assert statuses[503] > count / 4
        assert b" 408 " in slow.recv(4096)
        outcomes = {"answered": statuses[200], "refused": statuses[503], "timeout": 1, "cancelled": 1}
        assert served.outcomes() == outcomes
        assert served.counts()["tune_serve_received_total"] == count + 2


def _begun(served: Served, size: int) -> socket.socket:
    """A connection on which a request has begun, and goes no further."""
    host, port = served.address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(f"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
    time.sleep(0.2)
    return connection


@pytest.mark.slow
def test_on_sigterm_what_was_accepted_is_answered(tmp_path: Path) -> None:
    with serving(packaged(tmp_path / "artifact", Waking(300.0)), "--quiet", "--queue-ms", "5000") as served:

        async def ended() -> "Counter[int]":
            load = asyncio.create_task(flood(served, 16, 1000))
            await asyncio.sleep(0.25)
            served.process.send_signal(signal.SIGTERM)
            return await load

        assert asyncio.run(ended()) == {200: 16}
        assert served.process.wait(20) == 0
