"""The Open Inference Protocol, version 2, over REST: what a request says, and how it is answered.

Tensors come as JSON, or as bytes behind the JSON header (the binary tensor extension; `Inference-Header-Content-Length`
tells where they begin). Nothing is cast: a tensor of another datatype or shape is refused with a sentence.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tuner.tensors import Arrays

HEADER_LENGTH = "inference-header-content-length"
DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
DATATYPE_OF = {dtype: datatype for datatype, dtype in DATATYPES.items()}
_AXES = 64  # NumPy has no array of more axes, …
_MOST_BYTES = 2**62  # … and none whose axes that are not empty make more bytes
_LONGEST_ID = 256
_LONGEST_NUMBER = 20  # digits


class Refusal(Exception):
    """A request that gets no answer: an HTTP status, one sentence, and for a full server when to come again (s)."""

    def __init__(self, status: int, sentence: str, retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Wanted:
    """An output that was asked for, and whether as bytes."""

    name: str
    binary: bool


@dataclass(frozen=True)
class Inference:
    """A request. `outputs` is None where all are wanted, in the form that `binary` says."""

    id: str
    inputs: Arrays
    outputs: tuple[Wanted, ...] | None
    binary: bool


def parsed(body: bytes, header_length: str | None) -> Inference:
    """What the request says. Raises Refusal(400)."""
    header, tail = _parts(body, header_length)
    try:
        value = orjson.loads(header)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"the request is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refusal(400, "the request must be a JSON object with inputs")
    identity = value.get("id", "")
    if not isinstance(identity, str) or len(identity) > _LONGEST_ID:
        raise Refusal(400, f"id must be a string of at most {_LONGEST_ID} characters")
    binary = _flag(_parameters(value, "the request"), "binary_data_output", False)
    outputs = tuple(_wanted(each, binary) for each in _objects(value, "outputs")) or None
    return Inference(identity, _inputs(_objects(value, "inputs"), tail), outputs, binary)


def _parts(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    """The JSON header and the bytes behind it."""
    whole = memoryview(body)
    if header_length is None:
        return whole, whole[len(whole) :]
    digits = header_length.isascii() and header_length.isdigit() and len(header_length) <= _LONGEST_NUMBER
    if not digits or int(header_length) > len(body):
        raise Refusal(400, f"{HEADER_LENGTH} must be a number of bytes of the body, which has {len(body)}")
    return whole[: int(header_length)], whole[int(header_length) :]


def _objects(value: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects with distinct names under that key."""
    objects = value.get(key, [])
    if not isinstance(objects, list) or not all(isinstance(each, dict) for each in objects):
        raise Refusal(400, f"{key} must be a list of objects")
    names = [each.get("name") for each in objects]
    if not all(isinstance(name, str) for name in names):
        raise Refusal(400, f"each of {key} needs a name")
    if len({*names}) < len(names):
        raise Refusal(400, f"{key} has the same name twice")
    return objects


def _parameters(value: Mapping[str, Any], whose: str) -> Mapping[str, Any]:
    parameters = value.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refusal(400, f"parameters of {whose} must be an object")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, usual: bool) -> bool:
    flag = parameters.get(name, usual)
    if not isinstance(flag, bool):
        raise Refusal(400, f"{name} must be true or false")
    return flag


def _wanted(value: Mapping[str, Any], binary: bool) -> Wanted:
    """`binary` is what the request says of all outputs."""
    name = str(value["name"])
    parameters = _parameters(value, f"output {name!r}")
    refuse_extensions(f"output {name!r}", parameters)
    return Wanted(name, _flag(parameters, "binary_data", binary))


def _inputs(objects: Sequence[Mapping[str, Any]], tail: memoryview) -> Arrays:
    """The tensors, those with a `binary_data_size` from the bytes behind the header, in their order."""
    arrays: Arrays = {}
    for value in objects:
        name = str(value["name"])
        label = f"input {name!r}"
        shape: Any = value.get("shape")
        dtype = dtype_of(label, value.get("datatype"), shape)
        parameters = _parameters(value, label)
        refuse_extensions(label, parameters)
        size = parameters.get("binary_data_size")
        if size is None:
            arrays[name] = _from_json(label, value.get("data"), dtype, shape)
            continue
        if type(size) is not int or not 0 <= size <= len(tail):
            raise Refusal(400, f"{label}: binary_data_size must be a number of the {len(tail)} bytes that are left")
        arrays[name] = from_bytes(label, tail[:size], dtype, shape)
        tail = tail[size:]
    if len(tail):
        raise Refusal(400, f"{len(tail)} bytes behind the header belong to no input")
    return arrays


def refuse_extensions(label: str, parameters: Container[str]) -> None:
    """Raises Refusal(400) where a tensor asks for what this server has not."""
    for parameter in ("classification", "shared_memory_region"):
        if parameter in parameters:
            raise Refusal(400, f"{label}: {parameter} is an extension that this server has not")


def dtype_of(label: str, datatype: Any, shape: Any) -> np.dtype[Any]:
    """The dtype of a tensor that is described so. Raises Refusal(400) where that describes none."""
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise Refusal(400, f"{label}: datatype must be one of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or len(shape) > _AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise Refusal(400, f"{label}: shape must be a list of at most {_AXES} sizes, 0 or more")
    dtype = np.dtype(DATATYPES[datatype])
    if values_of([size for size in shape if size]) * dtype.itemsize > _MOST_BYTES:
        raise Refusal(400, f"{label}: shape {shape} is larger than any array")
    return dtype


def values_of(shape: Sequence[int]) -> int:
    """The number of values; of any size, unlike NumPy's."""
    count = 1
    for size in shape:
        count *= size
    return count


def from_bytes(label: str, raw: memoryview, dtype: np.dtype[Any], shape: list[int]) -> NDArray[Any]:
    if values_of(shape) * dtype.itemsize != len(raw):
        raise Refusal(400, f"{label}: shape {shape} of {dtype} is not {len(raw)} bytes")
    if dtype == np.bool_ and len(raw) and max(raw) > 1:
        raise Refusal(400, f"{label}: a byte of BOOL must be 0 or 1")
    # the request's bytes may begin anywhere: what is not aligned is copied
    return np.require(np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape), dtype, ["A"])


def _from_json(label: str, data: Any, dtype: np.dtype[Any], shape: list[int]) -> NDArray[Any]:
    """Numbers in row-major order, flat or nested as the shape is."""
    if not isinstance(data, list):
        raise Refusal(400, f"{label}: data must be a list, or binary_data_size say how many bytes it has")
    types = _types_within(data)
    refusal = Refusal(400, f"{label}: data must be {DATATYPE_OF[dtype.name]} values, flat or nested as the shape is")
    if not types <= _TAKEN[dtype.kind]:
        raise refusal
    # for small numbers beside some of 64 bits NumPy would choose a float, which rounds
    wide = np.dtype(np.uint64) if dtype == np.uint64 else None
    try:
        values = np.array(data, wide) if types else np.zeros(0, dtype)
    except (ValueError, OverflowError) as error:
        raise refusal from error
    if values.shape not in (tuple(shape), (values_of(shape),)) and values.size:
        raise Refusal(400, f"{label}: data has shape {list(values.shape)}, not {shape}")
    if values.size != values_of(shape):
        raise Refusal(400, f"{label}: data has {values.size} values; shape {shape} needs {values_of(shape)}")
    with np.errstate(over="ignore"):
        array = values.astype(dtype)
    if dtype.kind in "iuf" and not _kept(values, array):
        raise Refusal(400, f"{label}: a value is too large for {DATATYPE_OF[dtype.name]}")
    return array.reshape(shape)


_TAKEN: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
"""What values of JSON may become a dtype of that kind."""


def _types_within(data: list[Any]) -> set[type]:
    """The types of all that lies in nested lists; before NumPy, which would give every text the room of the longest."""
    types: set[type] = set()
    level = [data]
    while level:
        found = {kind for each in level for kind in map(type, each)}
        types |= found - {list}
        level = [inner for each in level for inner in each if type(inner) is list] if list in found else []
    return types


def _kept(values: NDArray[Any], array: NDArray[Any]) -> bool:
    """Whether numbers that became an array of another dtype are within its range."""
    return bool(np.isfinite(array).all() if array.dtype.kind == "f" else (values == array).all())


def answered(
    identity: str, model: tuple[str, str], outputs: Mapping[str, NDArray[Any]], request: Inference
) -> tuple[bytes, dict[str, str]]:
    """The body and headers of an answer. Raises Refusal where an output cannot be told in the form that is wanted."""
    wanted = request.outputs or tuple(Wanted(name, request.binary) for name in outputs)
    described: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for each in wanted:
        array = outputs[each.name]
        tensor: dict[str, Any] = {"name": each.name, "datatype": DATATYPE_OF[array.dtype.name], "shape": array.shape}
        if each.binary:
            tail.append(array.tobytes())
            tensor["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            if not np.isfinite(array).all():
                raise Refusal(
                    422, f"output {each.name!r} is not finite everywhere, which JSON cannot say: ask for bytes"
                )
            tensor["data"] = array.ravel().tolist()
        described.append(tensor)
    value = {"model_name": model[0], "model_version": model[1], "id": identity, "outputs": described}
    header = orjson.dumps(value)
    if not tail:
        return header, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
    return b"".join([header, *tail]), headers


def encoded(inputs: Arrays) -> tuple[bytes, dict[str, str]]:
    """The body and headers of a request that asks for every output, all in bytes: what a client sends."""
    described = [
        {
            "name": name,
            "datatype": DATATYPE_OF[array.dtype.name],
            "shape": array.shape,
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in inputs.items()
    ]
    header = orjson.dumps({"inputs": described, "parameters": {"binary_data_output": True}})
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
    return b"".join([header, *(array.tobytes() for array in inputs.values())]), headers
