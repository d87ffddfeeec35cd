"""torch -> ONNX, by torch's own exporter."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tuner.errors import CandidateError
from tuner.forms.lengths import variable
from tuner.forms.onnx import BATCH, ONNX, fixed_outputs, name_batch, save
from tuner.forms.torch import EXPORTED, SCRIPT, TORCH, called_by_name, load, parameters, program
from tuner.model import Form, Model
from tuner.plugin import Conversion
from tuner.system.said import first_line
from tuner.tensors import TensorSpec

_OPSET = 17  # of the former exporter


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

        size = model.batch_size or 2
        samples = {spec.name: torch.zeros(spec.full(size), dtype=_torch_dtype(spec)) for spec in model.inputs}
        proto = self._graph(model, samples)
        _forget_source(proto)
        if not model.outputs and (fixed := fixed_outputs(proto)):
            raise CandidateError(
                "unsupported_op",
                f"output {fixed[0]!r} of the model does not begin with the batch axis; drop it from forward",
            )
        if model.batch_size is None:
            name_batch(proto, model)
        save(proto, out / ONNX.file)

    def _graph(self, model: Model, samples: dict[str, Any]) -> Any:
        """The module as an ONNX graph, which takes batches of any size where the model does. Raises CandidateError."""
        import torch

        module = load(model.path)
        by_name = called_by_name(module, samples)
        args, kwargs = ((), samples) if by_name else (tuple(samples.values()), {})
        export: Any = torch.export  # untyped
        free = export.ShapesCollection()
        for spec in model.inputs:
            batch = {spec.batch_axis: export.Dim(BATCH)} if model.batch_size is None else {}
            free[samples[spec.name]] = batch | dict.fromkeys(variable(model.shapes, spec.name), export.Dim.DYNAMIC)
        shapes = free.dynamic_shapes(module, args, kwargs)
        return _exported(module, args, kwargs=kwargs, input_names=list(samples), dynamic_shapes=shapes)


@dataclass(frozen=True)
class ExportedToOnnx(TorchToOnnx):
    """A program of `torch.export`."""

    takes: ClassVar[Form] = EXPORTED

    @property
    def label(self) -> str:
        return "exported-to-onnx"

    def _graph(self, model: Model, samples: dict[str, Any]) -> Any:
        exported = program(model.path)
        names = exported.graph_signature.user_inputs
        return _exported(exported, input_names=list(names if set(names) == set(samples) else samples))


@dataclass(frozen=True)
class ScriptToOnnx(TorchToOnnx):
    """TorchScript, by torch's former exporter: the present one takes none."""

    takes: ClassVar[Form] = SCRIPT

    @property
    def label(self) -> str:
        return "script-to-onnx"

    def _graph(self, model: Model, samples: dict[str, Any]) -> Any:
        import onnx
        import torch

        module = load(model.path)
        by_name = called_by_name(module, samples)
        names = [name for name in parameters(module) if name in samples] if by_name else list(samples)
        axes: dict[str, dict[int, str]] = {}
        for spec in model.inputs:
            axes[spec.name] = {} if model.batch_size else {spec.batch_axis or 0: BATCH}
            axes[spec.name] |= {place: f"{spec.name}_{place}" for place in variable(model.shapes, spec.name)}
        graph = io.BytesIO()
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is the former one
                torch.onnx.export(
                    module,
                    tuple(samples[name] for name in names),
                    graph,  # type: ignore[arg-type]  # it takes a buffer too
                    input_names=names,
                    dynamic_axes=axes,
                    opset_version=_OPSET,
                    dynamo=False,
                )
        except (RuntimeError, ValueError, TypeError) as error:
            raise CandidateError(
                "unsupported_op", f"torch cannot export this TorchScript to ONNX: {first_line(error, lines=2)}"
            ) from error
        return onnx.load_from_string(graph.getvalue())


def _exported(*given: Any, **how: Any) -> Any:
    """What torch's exporter makes of it, as an ONNX graph. Raises CandidateError."""
    import torch

    try:
        with torch.no_grad():
            made = torch.onnx.export(*given, **how, dynamo=True, external_data=False, verbose=False)
    except torch.onnx.OnnxExporterError as error:
        raise CandidateError("unsupported_op", f"torch cannot export this model to ONNX: {_reason(error)}") from error
    if made is None:
        raise CandidateError("unsupported_op", "torch returned no ONNX program for this model")
    return made.model_proto


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
