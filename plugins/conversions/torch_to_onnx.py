"""torch -> ONNX, by torch's own exporter."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tuner.errors import CandidateError
from tuner.forms.onnx import BATCH, ONNX, fixed_outputs, free_batch, save
from tuner.forms.torch import TORCH, called_by_name
from tuner.plugin import Conversion
from tuner.system.said import first_line
from tuner.workload import Form, Model, TensorSpec


@dataclass(frozen=True)
class TorchToOnnx(Conversion):
    """The graph's inputs bear the names of the model's."""

    takes: ClassVar[Form] = TORCH
    gives: ClassVar[Form] = ONNX
    libraries: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxscript")

    @property
    def label(self) -> str:
        return "torch-to-onnx"

    def convert(self, model: Model, out: Path) -> None:
        import torch

        module = torch.load(model.path, map_location="cpu", weights_only=False).eval()
        samples = {spec.name: torch.zeros(2, *spec.shape, dtype=_torch_dtype(spec)) for spec in model.inputs}
        by_name = called_by_name(module, samples)
        args, kwargs = ((), samples) if by_name else (tuple(samples.values()), {})
        export: Any = torch.export  # untyped
        free = export.ShapesCollection()
        for tensor in samples.values():
            free[tensor] = {0: export.Dim(BATCH)}
        with torch.no_grad():
            try:
                program = torch.onnx.export(
                    module,
                    args,
                    kwargs=kwargs,
                    input_names=list(samples),
                    dynamic_shapes=free.dynamic_shapes(module, args, kwargs),
                    dynamo=True,
                    external_data=False,
                    verbose=False,
                )
            except torch.onnx.OnnxExporterError as error:
                raise CandidateError(
                    "unsupported_op", f"torch cannot export this model to ONNX: {_reason(error)}"
                ) from error
        if program is None:
            raise CandidateError("unsupported_op", "torch returned no ONNX program for this model")
        proto = program.model_proto
        _forget_source(proto)
        if fixed := fixed_outputs(proto):
            raise CandidateError(
                "unsupported_op",
                f"output {fixed[0]!r} of the model does not begin with the batch axis; drop it from forward",
            )
        save(free_batch(proto), out / ONNX.file)


def _forget_source(proto: Any) -> None:
    """Drops the exporter's notes on every node, which quote the user's source files and their paths."""
    graphs = [proto.graph, *proto.functions]
    for graph in graphs:
        del graph.metadata_props[:]
        for part in [
            *graph.node,
            *getattr(graph, "input", ()),
            *getattr(graph, "output", ()),
            *graph.value_info,
        ]:
            if not isinstance(part, str):
                del part.metadata_props[:]
    del proto.metadata_props[:]


def _torch_dtype(spec: TensorSpec) -> Any:
    import torch

    return getattr(torch, spec.dtype)


def _reason(error: BaseException) -> str:
    """The innermost cause in one line: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error, lines=2)
