"""What answers a request, however it came: the model, its batcher, and the account of how each request ended."""

import asyncio
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from numpy.typing import NDArray

from tuner.errors import CandidateError
from tuner.serve.batcher import Batcher, Work
from tuner.serve.cache import Cache, key_of
from tuner.serve.metrics import Metrics
from tuner.serve.model import VERSION, Model
from tuner.serve.protocol import Inference, Refusal
from tuner.system.environment import library_versions
from tuner.tensors import Arrays

_DISTRIBUTION = "inference-tuner"
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")  # W3C's traceparent
_LONGEST_ID = 128
_OPEN = 2048  # requests at once: each may hold a body
_OUTCOMES = {408: "timeout", 499: "cancelled", 500: "failed", 503: "refused", 504: "timeout"}  # else: invalid
_LOG = logging.getLogger("tuner.serve")
_T = TypeVar("_T")
Gone = Callable[["asyncio.Future[Any]"], Awaitable[None]]
"""Cancels that future as soon as nobody waits for it."""


class ClientGone(Exception):
    """Nobody waits for the answer."""


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
    def of(cls, headers: Mapping[str, str]) -> "Seen":
        """The ids that came with the request; of those that did not, new ones."""
        traced = _TRACE.fullmatch(headers.get("traceparent", ""))
        given = headers.get("x-request-id", "")
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
    """Answers inferences with what a batcher gives, and counts how each request ended."""

    def __init__(self, model: Model, batcher: Batcher, metrics: Metrics, limits: Limits, cache: Cache | None) -> None:
        self.model, self.limits, self.metrics = model, limits, metrics
        self._batcher, self._cache = batcher, cache
        self.draining_since: float | None = None
        self._open = 0

    @property
    def ready(self) -> bool:
        return bool(self._batcher.ready) and self.draining_since is None

    def drain(self) -> None:
        """From now on no request is accepted; those that were are answered."""
        self.draining_since = time.monotonic() if self.draining_since is None else self.draining_since

    def accept(self) -> None:
        """Raises Refusal where the server is about to end, or reads too many already. Called before the inputs are
        read."""
        if self.draining_since is not None:
            raise Refusal(503, "the server is ending", 1)
        if self._open > _OPEN:
            raise Refusal(503, f"{_OPEN} requests are under way", 1)

    def metadata(self, extensions: list[str]) -> dict[str, Any]:
        """Of the server."""
        version = library_versions({_DISTRIBUTION})[_DISTRIBUTION]
        return {"name": "tune serve", "version": version, "extensions": extensions}

    def allow(self, authorization: str) -> None:
        """Raises Refusal unless it shows the key, where there is one."""
        key = self.limits.api_key
        given = authorization.removeprefix("Bearer ")
        if key is not None and not hmac.compare_digest(given.encode(), key.encode()):
            raise Refusal(401, "the header Authorization must be Bearer and the server's API key")

    def known(self, model: str, version: str) -> None:
        """Raises Refusal where it is not the one that is served."""
        if model != self.model.name:
            raise Refusal(404, f"model {model!r}: there is {self.model.name}")
        if version not in ("", VERSION):
            raise Refusal(404, f"version {version!r}: there is {VERSION}")

    async def ended(
        self,
        seen: Seen,
        answer: Callable[[], Awaitable[_T]],
        failed: Callable[[Refusal], _T],
        status: Callable[[_T], int],
    ) -> _T:
        """The answer, or what `failed` makes of why there is none; counted and logged."""
        self.metrics.received.inc()
        self._open += 1
        code = 499
        try:
            response = await self._answered(seen, answer, failed)
            code = status(response)
            return response
        except Exception:  # a fault of the server's own, which its log tells
            code = 500
            raise
        finally:
            self._open -= 1
            self.metrics.requests[seen.outcome].inc()
            self.metrics.stages["total"].observe(seen.total_s)
            if not self.limits.quiet or seen.outcome in ("failed", "timeout"):
                fields = {k: v for k, v in vars(seen).items() if k != "began"}
                _LOG.info(json.dumps({**fields, "status": code, "total_ms": round(seen.total_s * 1e3, 3)}))

    async def _answered(self, seen: Seen, answer: Callable[[], Awaitable[_T]], failed: Callable[[Refusal], _T]) -> _T:
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                response = await answer()
        except Refusal as error:
            refusal = error
        except TimeoutError:
            limit_s = self.limits.timeout_s
            missed = "no answer" if seen.samples else "the body did not arrive"
            refusal = Refusal(504 if seen.samples else 408, f"{missed} within {limit_s:g} s")
        except ClientGone:
            refusal = Refusal(499, "the client has gone")
        except asyncio.CancelledError:
            seen.outcome = "cancelled"
            raise
        except CandidateError as error:
            refusal = Refusal(500, f"the model failed: {error.sentence}")
        else:
            seen.outcome = "answered"
            self.metrics.samples.inc(seen.samples)
            return response
        seen.outcome = _OUTCOMES.get(refusal.status, "invalid")
        return failed(refusal)

    async def outputs(self, inference: Inference, seen: Seen, gone: Gone | None = None) -> Arrays:
        """What the model answers. Raises Refusal, ClientGone and CandidateError."""
        names = [name for name, _, _ in self.model.outputs]
        if unknown := [wanted.name for wanted in inference.outputs or () if wanted.name not in names]:
            raise Refusal(400, f"output {unknown[0]!r}: there are {', '.join(names)}")
        try:
            specs, count = self.model.artifact.fit(inference.inputs)
        except ValueError as error:
            raise Refusal(400, str(error)) from error
        seen.samples = count
        work = Work(inference.inputs, specs, count, asyncio.get_running_loop().create_future())
        if self._cache is None:
            return await self._computed(work, seen, gone)
        key = key_of(work.inputs)
        kept = self._cache.get(key)
        self.metrics.cached[kept is not None].inc()
        if kept is not None:
            return kept
        outputs = await self._computed(work, seen, gone)
        self._cache.put(key, outputs)
        self.metrics.cache_bytes.set(self._cache.bytes)
        return outputs

    async def _computed(self, work: Work, seen: Seen, gone: Gone | None) -> Arrays:
        watch = None if gone is None else asyncio.ensure_future(gone(work.answer))
        try:
            arrays: list[NDArray[Any]] = await self._batcher.submit(work)
        except asyncio.CancelledError:
            if watch is not None and watch.done():
                raise ClientGone from None
            raise
        finally:
            if watch is not None:
                watch.cancel()
        seen.queue_ms = round((work.begun - work.arrived) * 1e3, 3)
        self.metrics.stages["queue"].observe(work.begun - work.arrived)
        return {name: array for (name, _, _), array in zip(self.model.outputs, arrays, strict=True)}
