"""A model repository of NVIDIA Triton: config.pbtxt, and the files of a runtime that it has, or a model in Python."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from tuner.deploy.deployment import Batching, Deployment
from tuner.deploy.format import Format
from tuner.errors import RequestError
from tuner.plugin import Native
from tuner.tensors import TensorSpec

_TYPES = {
    "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64", "int8": "TYPE_INT8", "int16": "TYPE_INT16", "int32": "TYPE_INT32", "int64": "TYPE_INT64",
    "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64",
}  # fmt: skip
_SERVED = Path(__file__).parents[1] / "triton_served.py"


class Triton(Format):
    name: ClassVar[str] = "triton"
    batching: ClassVar[Batching] = Batching.EAGER

    def write(self, deployment: Deployment, out: Path) -> list[str]:
        candidate, place = deployment.manifest.candidate, out / deployment.name / "1"
        native = _native(deployment)
        if isinstance(native, Native):
            shutil.copytree(deployment.files, place)
        else:
            place.mkdir(parents=True)
            installed = deployment.copy_with_code(place, 1)  # each instance is a process with one session
            shutil.copyfile(_SERVED, place / "model.py")
            lines = deployment.requirements("packaging", "psutil", *installed)
            (out / deployment.name / "requirements.txt").write_text("\n".join(lines) + "\n")
        config = "\n".join(_config(deployment, native if isinstance(native, Native) else None)) + "\n"
        (out / deployment.name / "config.pbtxt").write_text(config)
        notes = [
            f"docker run -v {out}:/models:ro -p 8000:8000 -p 8001:8001 -p 8002:8002 "
            "nvcr.io/nvidia/tritonserver:VERSION-py3 tritonserver --model-repository=/models"
        ]
        if isinstance(native, Native):
            measured, libraries = deployment.facts["versions"], candidate.backend.libraries
            versions = [f"{name} {measured[name]}" for name in measured if name.startswith(libraries)]
            notes.append(f"Triton brings a {native.runtime} of its own; measured was {', '.join(versions)}")
        else:
            notes.append(
                f"it runs in Triton's Python backend: {native}; pip install -r requirements.txt in the server's image, "
                f"whose Python must be {deployment.facts['versions'].get('python', 'the one it was made with')}"
            )
        return notes


def _native(deployment: Deployment) -> Native | str:
    """How Triton runs the files by itself; else why it cannot."""
    manifest, backend = deployment.manifest, deployment.manifest.candidate.backend
    native = backend.native(Triton.name, deployment.files, manifest.target, manifest.candidate.replicas)
    if isinstance(native, str):
        return native
    if not native.any_batch:
        return f"the model takes batches of {deployment.batch_size} only, and Triton fills none up"
    if len(native.outputs) != len(deployment.outputs):
        return "the files name other outputs than were measured"
    return native


def _config(deployment: Deployment, native: Native | None) -> Iterator[str]:
    manifest = deployment.manifest
    joined = Triton.batching.joins(manifest.inputs, deployment.axes)
    names = native.outputs if native else tuple(f"output_{i}" for i in range(len(deployment.outputs)))
    yield f"name: {_text(deployment.name)}"
    yield f"backend: {_text(native.runtime if native else 'python')}"
    yield f"max_batch_size: {deployment.batch_size if joined else 0}"
    for spec in manifest.inputs:
        yield from _tensor("input", spec.name, spec.dtype, _takes(deployment, spec, joined))
    for name, output, axis in zip(names, deployment.outputs, deployment.axes, strict=True):
        free = [-1 if place == axis or manifest.shapes else size for place, size in enumerate(output.shape)]
        yield from _tensor("output", name, output.dtype.name, free[1:] if joined else free)
    kind = "KIND_CPU" if manifest.target.hardware.host else "KIND_GPU"
    yield f"instance_group [ {{ count: {manifest.candidate.replicas} kind: {kind} }} ]"
    if joined and deployment.batch_size > 1:
        yield from _batching(deployment)
    for name, value in (native.settings if native else {}).items():
        yield f"parameters {{ key: {_text(name)} value {{ string_value: {_text(value)} }} }}"


def _batching(deployment: Deployment) -> Iterator[str]:
    """A batch forms while the instances are busy and nobody waits besides, as in the model that tells the capacity; who
    cannot be answered within the limit any more is refused."""
    yield "dynamic_batching {"
    yield f"  preferred_batch_size: [ {deployment.batch_size} ]"
    yield "  max_queue_delay_microseconds: 0"
    limit_ms = deployment.limit_ms
    if limit_ms is not None and (left_ms := limit_ms - deployment.calls.p99_ms) > 0:
        queue = max(deployment.manifest.candidate.at_once, int(deployment.calls.throughput * limit_ms / 1e3))
        yield "  default_queue_policy {"
        yield "    timeout_action: REJECT"
        yield f"    default_timeout_microseconds: {round(left_ms * 1e3)}"
        yield f"    max_queue_size: {queue}"
        yield "  }"
    yield "}"


def _takes(deployment: Deployment, spec: TensorSpec, joined: bool) -> list[int]:
    """The axes of an input: -1 where the batch stands, unless it is Triton's, and where declared lengths differ."""
    every = [other for shape in deployment.manifest.shapes for other in shape.inputs if other.name == spec.name]
    shapes = [other.shape if joined else other.full(-1) for other in every or [spec]]
    return [sizes[0] if len({*sizes}) == 1 else -1 for sizes in zip(*shapes, strict=True)]


def _tensor(what: str, name: str, dtype: str, dims: Sequence[int]) -> Iterator[str]:
    if dtype not in _TYPES:
        raise RequestError(f"Triton has no type for {what} {name!r}, {dtype}: --format docker serves it")
    shape = f"dims: [ {', '.join(map(str, dims))} ]" if dims else "dims: [ 1 ] reshape { shape: [ ] }"
    yield f"{what} [ {{ name: {_text(name)} data_type: {_TYPES[dtype]} {shape} }} ]"


def _text(value: str) -> str:
    """A string as protobuf's text format has it."""
    return json.dumps(value, ensure_ascii=False)
