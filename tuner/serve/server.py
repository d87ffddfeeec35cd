"""The server's process: it starts the replicas, listens, and drains when it is told to end."""

import asyncio
import contextlib
import logging
import math
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tuner import artifact
from tuner.errors import CandidateError, RequestError
from tuner.pool import Pool
from tuner.serve.app import App
from tuner.serve.batcher import Batcher
from tuner.serve.cache import Cache
from tuner.serve.estimates import CallTime
from tuner.serve.metrics import Metrics
from tuner.serve.model import Model
from tuner.serve.replica import Replica
from tuner.serve.service import Limits, Service
from tuner.serve.settings import Settings
from tuner.system import forked
from tuner.system.files import read_json
from tuner.system.said import last_line

_MB = 1e6
_START_S = 600.0
_JSON_BYTES = 32  # of a number, at most, and as much for a header of each request
_SMALLEST_BODY = 65_536
_QUEUE_LIMITS = 2.0  # a request may be foretold to take as long as so many latency limits, …
_QUEUE_S = 1.0  # … and where the study declared none, so long, or as long as so many calls


def serve(folder: Path, name: str, settings: Settings, key: str | None) -> None:
    """Serves the artifact in `folder` until SIGTERM or Ctrl-C, and returns when the last request has been answered.

    `key` is what each client must show. Raises RequestError where it cannot be loaded, or the address cannot be had.
    """
    _log()
    forked.preload(["tuner.artifact"])
    prefix = "tune-serve-log-"
    with (
        tempfile.TemporaryDirectory(prefix=prefix) as logs,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(folder, settings.name or name, settings, key, Path(logs)))


async def _serve(folder: Path, name: str, settings: Settings, key: str | None, logs: Path) -> None:
    manifest, facts = artifact.read_manifest(folder), read_json(folder / artifact.MANIFEST)
    candidate = manifest.candidate
    deployed = manifest.with_session(Pool(()))
    async with _started(folder, candidate.replicas, logs) as (replicas, loaded):
        metrics = Metrics(candidate.batch_size)
        calls = folder / artifact.CALLS
        measured_s = float(np.mean(np.load(calls))) / 1e3 if calls.exists() else loaded.seconds or None
        smaller = max((size for size, _ in manifest.smaller), default=0)
        call_time = CallTime(measured_s)
        batcher = Batcher(replicas, candidate.batch_size, deployed.outputs, call_time, metrics, smaller)
        batcher.wait_s = None if settings.wait_ms is None else settings.wait_ms / 1e3
        limit_ms = settings.latency_ms or facts.get("goal", {}).get("latency_ms")
        batcher.queue_s = _queue_s(settings, limit_ms, call_time.mean_s)
        cache = Cache(settings.cache_mb * _MB, settings.cache_s) if settings.cache_mb else None
        limits = Limits(_body_bytes(settings, deployed), settings.timeout_s, key, settings.quiet)
        model = Model(name, deployed, loaded.outputs, f"inference_tuner_{candidate.backend.label}")
        service = Service(model, batcher, metrics, limits, cache)
        batcher.run()
        try:
            server = _Server(_config(service, settings), service)
            async with _over_grpc(service, settings) as too:
                sys.stderr.write(f"{name} at {_address(settings)}/v2/models/{name}{too}; Ctrl-C or SIGTERM ends it\n")
                with _told_when_taken(settings):
                    await server.serve()
        finally:
            await batcher.stop()


def _queue_s(settings: Settings, limit_ms: float | None, call_s: float) -> float:
    if settings.queue_ms is not None:
        return settings.queue_ms / 1e3
    return max(_QUEUE_S, _QUEUE_LIMITS * call_s) if limit_ms is None else _QUEUE_LIMITS * limit_ms / 1e3


def _body_bytes(settings: Settings, deployed: artifact.Artifact) -> int:
    if settings.body_mb is not None:
        return int(settings.body_mb * _MB)
    return _SMALLEST_BODY + _JSON_BYTES * sum(math.prod(spec.full(deployed.batch_size)) for spec in deployed.inputs)


@contextlib.asynccontextmanager
async def _started(folder: Path, count: int, logs: Path) -> AsyncIterator[tuple[list[Replica], Any]]:
    """So many replicas that answer, and what one of them showed."""
    replicas = [Replica(folder, count, logs / f"replica-{number}.log") for number in range(count)]
    try:
        try:
            async with asyncio.TaskGroup() as group:
                loading = [group.create_task(replica.start(_START_S)) for replica in replicas]
        except* CandidateError as errors:
            error = errors.exceptions[0]
            assert isinstance(error, CandidateError)
            raise RequestError(f"{folder}: it cannot be served: {last_line(error.sentence)}") from error
        yield replicas, loading[0].result()
    finally:
        for replica in replicas:
            replica.close()


@contextlib.asynccontextmanager
async def _over_grpc(service: Service, settings: Settings) -> AsyncIterator[str]:
    """Answers there too, until the block ends and what was accepted is answered: in words, where."""
    if settings.grpc_port is None:
        yield ""
        return
    from tuner.serve.grpc_server import server

    listening = server(service, settings)
    await listening.start()
    try:
        yield f", and over gRPC at port {settings.grpc_port}"
    finally:
        since = service.draining_since
        await listening.stop(
            settings.drain_s - (0.0 if since is None else min(time.monotonic() - since, settings.drain_s))
        )


def _impatient(limit_s: float) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, which gives up a connection that sends no whole header in that time."""

    class Impatient(HttpToolsProtocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._wait()

        def on_headers_complete(self) -> None:
            self._come()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._come()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._come()
            self._waiting = self.loop.call_later(limit_s, self.transport.close)

        def _come(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()

    return Impatient


class _Server(uvicorn.Server):
    """uvicorn's, which tells those who ask that it is about to end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.drain()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """As uvicorn does, which at its end would raise what it has caught again: here it is an end like any other."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _config(service: Service, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        App(service).starlette(),
        host=settings.host,
        port=settings.port,
        http=_impatient(settings.timeout_s),
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ssl_ca_certs=settings.tls_ca,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_ca else ssl.CERT_NONE,
    )


def _address(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http{'s' * (settings.tls_certificate is not None)}://{host}:{settings.port}"


@contextlib.contextmanager
def _told_when_taken(settings: Settings) -> Any:
    """uvicorn logs why it cannot listen, and exits."""
    try:
        yield
    except SystemExit as error:
        raise RequestError(f"{_address(settings)} cannot be had, another may have it: give another --port") from error


def _log() -> None:
    """A line of JSON for each request, on standard error; what uvicorn and asyncio have to say, too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name, level in (("tuner.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
