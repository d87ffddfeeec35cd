"""The addresses of the server: health, metadata, inference, metrics."""

import asyncio
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tuner.errors import CandidateError
from tuner.serve.batcher import Batcher, Work
from tuner.serve.cache import Cache, key_of
from tuner.serve.metrics import Metrics
from tuner.serve.model import VERSION, Model
from tuner.serve.protocol import HEADER_LENGTH, Inference, Refusal, answered, parsed
from tuner.system.environment import library_versions
from tuner.tensors import Arrays

_DISTRIBUTION = "inference-tuner"
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")  # W3C's traceparent
_LONGEST_ID = 128
_LOG = logging.getLogger("tuner.serve")


@dataclass
class Seen:
    """What is logged of a request: its identity as OpenTelemetry has it, and how it went."""

    request_id: str
    trace_id: str
    span_id: str
    outcome: str = "failed"
    samples: int = 0
    queue_ms: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, request: Request) -> "Seen":
        """The ids that came with the request; of those that did not, new ones."""
        traced = _TRACE.fullmatch(request.headers.get("traceparent", ""))
        given = request.headers.get("x-request-id", "")
        known = given if given.isprintable() and len(given) <= _LONGEST_ID else ""
        return cls(known or secrets.token_hex(8), traced[1] if traced else secrets.token_hex(16), secrets.token_hex(8))

    @property
    def total_s(self) -> float:
        return time.monotonic() - self.began


@dataclass(frozen=True)
class Limits:
    """Of one request: the size of its body, its seconds, and the key that it must show."""

    body_bytes: int
    timeout_s: float
    api_key: str | None
    quiet: bool


class Service:
    """Answers the protocol's requests with what a batcher gives."""

    def __init__(self, model: Model, batcher: Batcher, metrics: Metrics, limits: Limits, cache: Cache | None) -> None:
        self._model, self._batcher, self._metrics = model, batcher, metrics
        self._limits, self._cache = limits, cache
        self.draining = False

    def app(self) -> Starlette:
        one = "/v2/models/{model}"
        routes = [
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/v2", self._server),
            Route("/metrics", self._metrics_text),
        ]
        for path in (one, one + "/versions/{version}"):
            routes += [
                Route(path + "/ready", self._model_ready),
                Route(path + "/infer", self._infer, methods=["POST"]),
                Route(path, self._metadata),
            ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _told, Refusal: _refused})

    async def _live(self, request: Request) -> Response:
        return Response()

    async def _ready(self, request: Request) -> Response:
        return Response(status_code=200 if self._batcher.ready and not self.draining else 503)

    async def _model_ready(self, request: Request) -> Response:
        self._allow(request)
        self._known(request)
        return await self._ready(request)

    async def _server(self, request: Request) -> Response:
        self._allow(request)
        version = library_versions({_DISTRIBUTION})[_DISTRIBUTION]
        return JSONResponse({"name": "tune serve", "version": version, "extensions": ["binary_tensor_data"]})

    async def _metadata(self, request: Request) -> Response:
        self._allow(request)
        self._known(request)
        return JSONResponse(self._model.metadata())

    async def _metrics_text(self, request: Request) -> Response:
        self._allow(request)
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def _infer(self, request: Request) -> Response:
        seen = Seen.of(request)
        self._metrics.received.inc()
        try:
            response = await self._ended(request, seen)
        finally:
            self._metrics.requests[seen.outcome].inc()
            self._metrics.stages["total"].observe(seen.total_s)
        response.headers["x-request-id"] = seen.request_id
        if not self._limits.quiet or seen.outcome in ("failed", "timeout"):
            fields = {k: v for k, v in vars(seen).items() if k != "began"}
            status = response.status_code
            _LOG.info(json.dumps({**fields, "status": status, "total_ms": round(seen.total_s * 1e3, 3)}))
        return response

    async def _ended(self, request: Request, seen: Seen) -> Response:
        """The answer, or why there is none; `seen.outcome` says which."""
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                response = await self._answer(request, seen)
        except Refusal as refusal:
            seen.outcome = "refused" if refusal.status == 503 else "invalid"
            return await _refused(request, refusal)
        except TimeoutError:
            seen.outcome = "timeout"
            limit_s = self._limits.timeout_s
            if seen.samples:
                return _error(504, f"no answer within {limit_s:g} s")
            return _error(408, f"the body did not arrive within {limit_s:g} s")
        except ClientDisconnect:
            seen.outcome = "cancelled"
            return Response(status_code=499)  # nobody reads it
        except CandidateError as error:
            seen.outcome = "failed"
            return _error(500, f"the model failed: {error.sentence}")
        seen.outcome = "answered"
        self._metrics.samples.inc(seen.samples)
        return response

    async def _answer(self, request: Request, seen: Seen) -> Response:
        self._allow(request)
        self._known(request)
        if self.draining:
            raise Refusal(503, "the server is ending", 1)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "the body is compressed, which this server does not read: send it as it is")
        inference = parsed(await self._body(request), request.headers.get(HEADER_LENGTH))
        names = [name for name, _, _ in self._model.outputs]
        if unknown := [wanted.name for wanted in inference.outputs or () if wanted.name not in names]:
            raise Refusal(400, f"output {unknown[0]!r}: there are {', '.join(names)}")
        try:
            specs, count = self._model.artifact.fit(inference.inputs)
        except ValueError as error:
            raise Refusal(400, str(error)) from error
        seen.samples = count
        loop = asyncio.get_running_loop()
        outputs = await self._outputs(request, Work(inference.inputs, specs, count, loop.create_future()), seen)
        return self._response(inference, outputs)

    def _response(self, inference: Inference, outputs: Arrays) -> Response:
        body, headers = answered(inference.id, (self._model.name, VERSION), outputs, inference)
        return Response(body, headers=headers)

    async def _outputs(self, request: Request, work: Work, seen: Seen) -> Arrays:
        """From the cache where they are there, else from a replica. Raises ClientDisconnect when the client goes."""
        if self._cache is None:
            return await self._computed(request, work, seen)
        key = key_of(work.inputs)
        kept = self._cache.get(key)
        self._metrics.cached[kept is not None].inc()
        if kept is not None:
            return kept
        outputs = await self._computed(request, work, seen)
        self._cache.put(key, outputs)
        self._metrics.cache_bytes.set(self._cache.bytes)
        return outputs

    async def _computed(self, request: Request, work: Work, seen: Seen) -> Arrays:
        watch = asyncio.create_task(_cancel_when_gone(request, work.answer))
        try:
            arrays: list[NDArray[Any]] = await self._batcher.submit(work)
        except asyncio.CancelledError:
            if watch.done():
                raise ClientDisconnect from None
            raise
        finally:
            watch.cancel()
        seen.queue_ms = round((work.begun - work.arrived) * 1e3, 3)
        self._metrics.stages["queue"].observe(work.begun - work.arrived)
        return {name: array for (name, _, _), array in zip(self._model.outputs, arrays, strict=True)}

    async def _body(self, request: Request) -> bytes:
        most = self._limits.body_bytes
        sentence = (
            f"the body is larger than {most} bytes; this artifact takes {self._model.artifact.batch_size} samples"
        )
        if int(request.headers.get("content-length", "0")) > most:
            raise Refusal(413, sentence)
        chunks, size = [], 0
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise Refusal(413, sentence)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _allow(self, request: Request) -> None:
        key = self._limits.api_key
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key is not None and not hmac.compare_digest(given.encode(), key.encode()):
            raise Refusal(401, "the header Authorization must be Bearer and the server's API key")

    def _known(self, request: Request) -> None:
        asked: Mapping[str, str] = request.path_params
        if asked["model"] != self._model.name:
            raise Refusal(404, f"model {asked['model']!r}: there is {self._model.name}")
        if asked.get("version", VERSION) != VERSION:
            raise Refusal(404, f"version {asked['version']!r}: there is {VERSION}")


async def _cancel_when_gone(request: Request, answer: "asyncio.Future[Any]") -> None:
    """The body has been read: what the connection says next is that the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    answer.cancel()


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    response = _error(refusal.status, refusal.sentence)
    if refusal.retry_after_s is not None:
        response.headers["retry-after"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


async def _told(request: Request, error: Exception) -> Response:
    """An address or method that there is not."""
    assert isinstance(error, HTTPException)
    return _error(error.status_code, f"{request.method} {request.url.path}: {error.detail}", error.headers)


def _error(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": " ".join(sentence.split())}, status, dict(headers or {}))
