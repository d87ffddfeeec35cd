"""The addresses of the server over HTTP: health, metadata, inference, metrics."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tuner.serve.model import VERSION
from tuner.serve.protocol import HEADER_LENGTH, Refusal, answered, parsed
from tuner.serve.service import ClientGone, Seen, Service


class App:
    """Answers the protocol's requests over REST."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def starlette(self) -> Starlette:
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
        return Response(status_code=200 if self._service.ready else 503)

    async def _model_ready(self, request: Request) -> Response:
        self._allow(request)
        self._known(request)
        return await self._ready(request)

    async def _server(self, request: Request) -> Response:
        self._allow(request)
        return JSONResponse(self._service.metadata(["binary_tensor_data"]))

    async def _metadata(self, request: Request) -> Response:
        self._allow(request)
        self._known(request)
        return JSONResponse(self._service.model.metadata())

    async def _metrics_text(self, request: Request) -> Response:
        self._allow(request)
        return Response(self._service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _infer(self, request: Request) -> Response:
        seen = Seen.of(request.headers)
        response = await self._service.ended(
            seen, lambda: self._answer(request, seen), _response_to, lambda response: response.status_code
        )
        response.headers["x-request-id"] = seen.request_id
        return response

    async def _answer(self, request: Request, seen: Seen) -> Response:
        self._allow(request)
        self._known(request)
        self._service.accept()
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "the body is compressed, which this server does not read: send it as it is")
        try:
            body = await self._body(request)
        except ClientDisconnect:
            raise ClientGone from None
        inference = parsed(body, request.headers.get(HEADER_LENGTH))

        async def gone(answer: "asyncio.Future[Any]") -> None:
            """The body has been read: what the connection says next is that the client has gone."""
            while (await request.receive())["type"] != "http.disconnect":
                pass
            answer.cancel()

        outputs = await self._service.outputs(inference, seen, gone)
        body, headers = answered(inference.id, (self._service.model.name, VERSION), outputs, inference)
        return Response(body, headers=headers)

    async def _body(self, request: Request) -> bytes:
        most, batch_size = self._service.limits.body_bytes, self._service.model.artifact.batch_size
        sentence = f"the body is larger than {most} bytes; this artifact takes {batch_size} samples"
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
        self._service.allow(request.headers.get("authorization", ""))

    def _known(self, request: Request) -> None:
        asked: Mapping[str, str] = request.path_params
        self._service.known(asked["model"], asked.get("version", VERSION))


def _response_to(refusal: Refusal) -> Response:
    if refusal.status == 499:
        return Response(status_code=499)  # nobody reads it
    response = _error(refusal.status, refusal.sentence)
    if refusal.retry_after_s is not None:
        response.headers["retry-after"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return _response_to(refusal)


async def _told(request: Request, error: Exception) -> Response:
    """An address or method that there is not."""
    assert isinstance(error, HTTPException)
    return _error(error.status_code, f"{request.method} {request.url.path}: {error.detail}", error.headers)


def _error(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": " ".join(sentence.split())}, status, dict(headers or {}))
