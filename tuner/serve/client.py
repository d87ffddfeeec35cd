"""A client of any server that speaks the Open Inference Protocol, version 2, over REST: what a model there takes, and
requests for it."""

import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson

from tuner.errors import RequestError
from tuner.serve.protocol import DATATYPE_OF, DATATYPES, encoded
from tuner.serve.settings import KEY_VARIABLE
from tuner.system.said import shortened
from tuner.tensors import Arrays

DIFFERENT = 64
"""Requests with inputs of their own, which are sent in turn."""
_ADDRESS = re.compile(r"(https?://[^/]+)(/v2/models/[^/]+(?:/versions/[^/]+)?)(?:/infer)?/?")
_BINARY = "binary_tensor_data"
Request = tuple[bytes, dict[str, str]]
"""A body and its headers."""


@dataclass(frozen=True)
class Input:
    """As the server's metadata has it; -1 is a size that is free."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Endpoint:
    """A model at an address; `server` is what answers there, `binary` whether it takes tensors in bytes."""

    url: str
    server: str
    binary: bool
    inputs: tuple[Input, ...]

    def requests(self, batch: int, file: Path | None) -> list[Request]:
        """Of so many samples each, with the arrays of that npz file, or made up. Raises RequestError."""
        samples = self._made(batch) if file is None else self._read(batch, file)
        return [encoded(inputs) if self.binary else _in_json(inputs) for inputs in samples]

    def samples(self, batch: int) -> int:
        """How many a request of so many has: a server may take batches of one size only."""
        sizes = {spec.shape[0] for spec in self.inputs if spec.shape and spec.shape[0] > 0}
        return sizes.pop() if len(sizes) == 1 else batch

    def _made(self, batch: int) -> list[Arrays]:
        """Floats are normal, whole numbers 0 or 1: of any vocabulary."""
        random = np.random.default_rng(0)
        specs = [(spec, np.dtype(DATATYPES[spec.datatype]), _full(spec, batch)) for spec in self.inputs]
        return [
            {
                spec.name: np.asarray(
                    random.normal(size=shape) if dtype.kind == "f" else random.integers(0, 2, shape), dtype
                )
                for spec, dtype, shape in specs
            }
            for _ in range(DIFFERENT)
        ]

    def _read(self, batch: int, file: Path) -> list[Arrays]:
        """Samples along the first axis of every array; the first follow the last again."""
        try:
            with np.load(file) as arrays:
                lacking = [spec.name for spec in self.inputs if spec.name not in arrays.files]
                if lacking:
                    raise RequestError(f"inputs={file}: has no {lacking[0]}, which the model takes")
                rows = {spec.name: arrays[spec.name] for spec in self.inputs}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise RequestError(f"inputs={file}: cannot be read as npz, one array for each input") from error
        for spec in self.inputs:
            if DATATYPE_OF.get(rows[spec.name].dtype.name) != spec.datatype or not rows[spec.name].ndim:
                raise RequestError(f"inputs={file}: {spec.name} is {rows[spec.name].dtype}, not {spec.datatype}")
        counts = {len(array) for array in rows.values()}
        if len(counts) != 1 or counts == {0}:
            raise RequestError(f"inputs={file}: its arrays must have as many samples each, and at least one")
        count = counts.pop()
        picks = [np.arange(n * batch, (n + 1) * batch) % count for n in range(DIFFERENT)]
        return [{name: array[pick] for name, array in rows.items()} for pick in picks]


async def endpoint(session: aiohttp.ClientSession, url: str, binary: bool | None) -> Endpoint:
    """What answers at `…/v2/models/NAME`. `binary` is None where the server is to say it. Raises RequestError."""
    match = _ADDRESS.fullmatch(url)
    if match is None:
        raise RequestError(f"{url}: must be the address of a model, http://HOST:PORT/v2/models/NAME")
    server = await _json(session, f"{match[1]}/v2")
    model = await _json(session, match[1] + match[2])
    try:
        inputs = tuple(Input(i["name"], i["datatype"], tuple(map(int, i["shape"]))) for i in model["inputs"])
        said = _BINARY in server.get("extensions", ())
        name = f"{server['name']} {server.get('version', '')}".strip()
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{url}: what answers there is no server of the Open Inference Protocol") from error
    for each in inputs:
        if each.datatype not in DATATYPES:
            raise RequestError(f"{url}: input {each.name} is {each.datatype}, which tune bench cannot send")
    return Endpoint(match[1] + match[2], name, said if binary is None else binary, inputs)


def authorization() -> dict[str, str]:
    """The header that shows the key of the environment, if there is one."""
    key = os.environ.get(KEY_VARIABLE)
    return {"authorization": f"Bearer {key}"} if key else {}


async def _json(session: aiohttp.ClientSession, url: str) -> Mapping[str, Any]:
    try:
        async with session.get(url) as response:
            text = await response.text()
            if response.status != 200:
                raise RequestError(f"{url}: status {response.status}, {sentence(text)}")
            value = orjson.loads(text)
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError, orjson.JSONDecodeError) as error:
        raise RequestError(f"{url}: no server of the Open Inference Protocol answers there ({error})") from error
    return value if isinstance(value, dict) else {}


def sentence(text: str) -> str:
    """What a server says for an error, on one line."""
    return shortened(text, 200) or "without a word"


def _full(spec: Input, batch: int) -> Sequence[int]:
    """The shape of so many samples, which stand along the first axis."""
    if any(size < 0 for size in spec.shape[1:]):
        raise RequestError(f"inputs=FILE.npz must be given: input {spec.name} has a free length, {list(spec.shape)}")
    if spec.shape[:1] == (-1,):
        return (batch, *spec.shape[1:])
    if batch not in (1, *spec.shape[:1]):
        raise RequestError(f"batch={batch}: input {spec.name} is always {list(spec.shape)}")
    return spec.shape


def _in_json(inputs: Arrays) -> Request:
    described = [
        {"name": name, "datatype": DATATYPE_OF[a.dtype.name], "shape": a.shape, "data": a.ravel().tolist()}
        for name, a in inputs.items()
    ]
    return orjson.dumps({"inputs": described}), {"content-type": "application/json"}
