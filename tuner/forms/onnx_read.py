"""A user's ONNX file as it is read: refused where it is none that can be tuned, its weights drawn in."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tuner.errors import RequestError
from tuner.forms.onnx import INLINE_BYTES, real_inputs
from tuner.system.said import first_line
from tuner.tensors import Arrays

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training"} | {
    "com.microsoft",
    "com.microsoft.experimental",
    "com.microsoft.nchwc",
    "com.ms.internal.nhwc",
    "org.pytorch.aten",
}


def read(source: Path, where: str) -> Any:
    """The graph, its weights where they are. Raises RequestError."""
    import onnx

    if not source.is_file():
        raise RequestError(f"{where}: no such file")
    try:
        onnx.checker.check_model(str(source))
        return onnx.load(str(source), format="protobuf", load_external_data=False)
    except (onnx.checker.ValidationError, OSError) as error:
        said = first_line(error, lines=2)
        raise RequestError(
            f"{where} is not a valid ONNX model: {said}; export it again, its external data files beside it"
        ) from error


def running(file: Path) -> Callable[[Arrays], list[Any]]:
    """What answers inputs as the graph does, its outputs in order: to compare it with what it was converted from."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda inputs: list(session.run(None, inputs))


def unknown_operators(proto: Any) -> list[str]:
    """Those of the graph that no operator set has."""
    import onnx

    known = onnx.defs.has
    return sorted({node.op_type for node in proto.graph.node if not known(node.op_type, node.domain)})


def require_usable(source: Path, where: str) -> None:
    """Refuses, before any sample is read, what the file alone tells: what cannot be read, operators and versions that
    nothing here knows, strings, maps and sequences."""
    proto = read(source, where)
    refuse_what_is_no_tensor(proto, where)
    _refuse_unknown(proto, where)


def _refuse_unknown(proto: Any, where: str) -> None:
    """Operators of a library that ONNX Runtime does not have, and sets of operators that ONNX does not know yet."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if versions := [opset.version for opset in proto.opset_import if not opset.domain and opset.version > newest]:
        raise RequestError(
            f"{where}: its opset {versions[0]} is newer than {newest}, the newest that is known here; "
            "export it again with an older one"
        )
    own = {(function.domain, function.name) for function in proto.functions}
    for node in proto.graph.node:
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in own:
            raise RequestError(
                f"{where}: its operator {node.domain}:{node.op_type} is none of ONNX or ONNX Runtime; "
                "export it again without custom operators"
            )


def refuse_what_is_no_tensor(proto: Any, where: str) -> None:
    """Strings, and the maps and sequences that some exporters end with."""
    from onnx import TensorProto

    if not proto.graph.output:
        raise RequestError(f"{where} has no outputs; export it again with what it is to answer")
    if not real_inputs(proto):
        raise RequestError(f"{where} has no inputs; export it again with its weights as initializers")
    for kind, values in (("input", real_inputs(proto)), ("output", proto.graph.output)):
        for value in values:
            if not value.type.HasField("tensor_type"):
                raise RequestError(
                    f"{where}: {kind} {value.name!r} is a {value.type.WhichOneof('value')[:-5]}, not a tensor; "
                    "export it again without (scikit-learn: options={'zipmap': False})"
                )
            if value.type.tensor_type.elem_type == TensorProto.STRING:
                mend = {
                    "input": "drop the encoder from the graph, and give the codes that it makes",
                    "output": "export it again with class numbers, or without that output",
                }[kind]
                raise RequestError(f"{where}: {kind} {value.name!r} holds strings, which cannot be tuned; {mend}")


def draw_in(proto: Any, source: Path, folder: Path, where: str) -> None:
    """Weights of external files go into the graph, or, where they are too many for one file, their files into the
    folder."""
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data

    tensors = [tensor for tensor in _tensors(proto.graph) if uses_external_data(tensor)]
    files = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    size = proto.ByteSize() + sum((source.parent / file).stat().st_size for file in files)
    if size <= INLINE_BYTES:
        load_external_data_for_model(proto, str(source.parent))
        return
    for file in files:
        place = folder / file
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.parent / file, place)


def _tensors(graph: Any) -> Iterator[Any]:
    from onnx.external_data_helper import _get_all_tensors

    class Wrapped:
        def __init__(self) -> None:
            self.graph, self.functions = graph, ()

    yield from _get_all_tensors(Wrapped())
