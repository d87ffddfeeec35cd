"""The server over gRPC: the same protocol, the same batches, another port."""

import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from tuner.errors import RequestError
from tuner.serve.model import VERSION
from tuner.serve.protocol import (
    DATATYPE_OF,
    Inference,
    Refusal,
    Wanted,
    dtype_of,
    from_bytes,
    refuse_extensions,
    values_of,
)
from tuner.serve.service import Seen, Service
from tuner.serve.settings import Settings

_PROTO = Path(__file__).with_name("inference.proto")
_MOST_BYTES = 2**31 - 1  # gRPC takes no larger limit
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_CONTENTS = {  # the field of InferTensorContents for each dtype; FP16 has none
    "bool": "bool_contents", "uint8": "uint_contents", "uint16": "uint_contents", "uint32": "uint_contents",
    "uint64": "uint64_contents", "int8": "int_contents", "int16": "int_contents", "int32": "int_contents",
    "int64": "int64_contents", "float32": "fp32_contents", "float64": "fp64_contents",
}  # fmt: skip

_HOLDS = {
    "bool_contents": "bool", "int_contents": "int32", "int64_contents": "int64", "uint_contents": "uint32",
    "uint64_contents": "uint64", "fp32_contents": "float32", "fp64_contents": "float64",
}  # fmt: skip


def server(service: Service, settings: Settings) -> grpc.aio.Server:
    """A server that listens at `settings.grpc_port`, not yet started. Raises RequestError where the port is taken."""
    messages, services = _compiled()
    most = min(service.limits.body_bytes, _MOST_BYTES)
    options = [
        ("grpc.max_receive_message_length", most),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
    ]
    made = grpc.aio.server(options=options)
    services.add_GRPCInferenceServiceServicer_to_server(_Servicer(service, messages), made)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    try:
        if settings.tls_certificate is None or settings.tls_key is None:
            made.add_insecure_port(address)
        else:
            ca = None if settings.tls_ca is None else Path(settings.tls_ca).read_bytes()
            pair = (Path(settings.tls_key).read_bytes(), Path(settings.tls_certificate).read_bytes())
            made.add_secure_port(address, grpc.ssl_server_credentials([pair], ca, ca is not None))
    except RuntimeError as error:
        raise RequestError(
            f"{address} cannot be had: another may have it (give another --grpc-port), or certificate and key are wrong"
        ) from error
    return made


def _compiled() -> tuple[Any, Any]:
    """The modules that protoc makes of the protocol, which it looks for along `sys.path`."""
    sys.path.insert(0, str(_PROTO.parent))
    try:
        return grpc.protos_and_services(_PROTO.name)  # type: ignore[no-any-return]
    finally:
        sys.path.pop(0)


class _Servicer:
    """The methods of `GRPCInferenceService`."""

    def __init__(self, service: Service, messages: Any) -> None:
        self._service, self._messages = service, messages

    async def ServerLive(self, request: Any, context: Any) -> Any:
        return self._messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return self._messages.ServerReadyResponse(ready=self._service.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        await self._checked(request.name, request.version, context)
        return self._messages.ModelReadyResponse(ready=self._service.ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        await self._checked(self._service.model.name, VERSION, context)
        return self._messages.ServerMetadataResponse(**self._service.metadata([]))

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        await self._checked(request.name, request.version, context)
        return self._messages.ModelMetadataResponse(**self._service.model.metadata())

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        headers = _headers(context)
        seen = Seen.of(headers)

        async def answer() -> Any:
            self._service.allow(headers.get("authorization", ""))
            self._service.known(request.model_name, request.model_version)
            self._service.accept()
            inference = _inference(request)
            return self._response(inference, await self._service.outputs(inference, seen))

        response = await self._service.ended(seen, answer, lambda refusal: refusal, _status)
        identity = ("x-request-id", seen.request_id)
        if isinstance(response, Refusal):
            await _abort(response, context, identity)
        context.set_trailing_metadata((identity,))
        return response

    def _response(self, inference: Inference, outputs: dict[str, NDArray[Any]]) -> Any:
        names = [wanted.name for wanted in inference.outputs or ()] or list(outputs)
        tensors = [
            {"name": name, "datatype": DATATYPE_OF[outputs[name].dtype.name], "shape": outputs[name].shape}
            for name in names
        ]
        return self._messages.ModelInferResponse(
            model_name=self._service.model.name,
            model_version=VERSION,
            id=inference.id,
            outputs=tensors,
            raw_output_contents=[outputs[name].tobytes() for name in names],
        )

    async def _checked(self, name: str, version: str, context: Any) -> None:
        try:
            self._service.allow(_headers(context).get("authorization", ""))
            self._service.known(name, version)
        except Refusal as refusal:
            await _abort(refusal, context)


def _headers(context: Any) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _status(response: Any) -> int:
    return response.status if isinstance(response, Refusal) else 200


async def _abort(refusal: Refusal, context: Any, *metadata: tuple[str, str]) -> None:
    code = _CODES.get(refusal.status, grpc.StatusCode.INVALID_ARGUMENT)
    if refusal.retry_after_s is not None:
        metadata += (("retry-after", str(refusal.retry_after_s)),)
    await context.abort(code, refusal.sentence, metadata)


def _inference(request: Any) -> Inference:
    """What the request says: tensors as raw bytes, all of them, or each in the field for its datatype. Raises
    Refusal(400)."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Refusal(400, f"raw_input_contents has {len(raw)} tensors, and there are {len(request.inputs)} inputs")
    arrays: dict[str, NDArray[Any]] = {}
    for number, tensor in enumerate(request.inputs):
        label, shape = f"input {tensor.name!r}", list(tensor.shape)
        if tensor.name in arrays:
            raise Refusal(400, "inputs has the same name twice")
        refuse_extensions(label, tensor.parameters)
        dtype = dtype_of(label, tensor.datatype, shape)
        if raw:
            arrays[tensor.name] = from_bytes(label, memoryview(raw[number]), dtype, shape)
        else:
            arrays[tensor.name] = _from_contents(label, tensor.contents, dtype, shape)
    for wanted in request.outputs:
        refuse_extensions(f"output {wanted.name!r}", wanted.parameters)
    outputs = tuple(Wanted(wanted.name, True) for wanted in request.outputs) or None
    return Inference(request.id, arrays, outputs, True)


def _from_contents(label: str, contents: Any, dtype: np.dtype[Any], shape: list[int]) -> NDArray[Any]:
    name = _CONTENTS.get(dtype.name)
    if name is None:
        raise Refusal(400, f"{label}: {DATATYPE_OF[dtype.name]} goes in raw_input_contents")
    values = np.array(getattr(contents, name), _HOLDS[name])
    if values.size != values_of(shape):
        raise Refusal(400, f"{label}: {name} has {values.size} values; shape {shape} needs another number")
    array = values.astype(dtype)
    if not np.array_equal(array, values, equal_nan=dtype.kind == "f"):
        raise Refusal(400, f"{label}: a value is too large for {DATATYPE_OF[dtype.name]}")
    return array.reshape(shape)
