"""A model of torch as a program of `torch.export` for one batch size: what other compilers for torch begin with."""

from collections.abc import Sequence
from typing import Any

from tuner.errors import CandidateError
from tuner.forms.torch import loaded, torch_dtype
from tuner.model import Model
from tuner.plugin import Precision
from tuner.system.said import first_line
from tuner.target import Target
from tuner.tensors import TensorSpec


def exported(model: Model, batch_size: int, target: Target) -> Any:
    """The `torch.export.ExportedProgram`, in float32: it takes the inputs in order and changes none, and gives the
    outputs as a flat tuple. Raises CandidateError where torch cannot follow the model."""
    import torch
    from torch._dynamo.exc import TorchDynamoException
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
    from torch.utils._pytree import tree_leaves

    called = loaded(model.path, model.inputs, "f32", target)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.called = called

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            # a copy: what a program does to its inputs would be among its outputs
            result = self.called(*(tensor.clone() for tensor in tensors))
            return tuple(leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))

    module = Plain()
    for part in called.modules():  # what compiles the program looks for every buffer among those that are saved
        part._non_persistent_buffers_set = set()
    module.training = False  # not `eval`, which a program of torch.export has none of
    try:
        with torch.no_grad():
            return torch.export.export(module, zeros(model.inputs, batch_size, "f32", target))
    except (TorchDynamoException, GuardOnDataDependentSymNode) as error:
        raise CandidateError("unsupported_op", f"torch.export cannot follow this model: {first_line(error)}") from error


def zeros(inputs: Sequence[TensorSpec], batch_size: int, precision: Precision, target: Target) -> tuple[Any, ...]:
    """A tensor for each input, of the shape and kind that a compiler is to compile for."""
    import torch

    tensors = (
        torch.zeros(spec.full(batch_size), dtype=getattr(torch, spec.dtype), device=target.hardware.torch)
        for spec in inputs
    )
    return tuple(t.to(torch_dtype(precision)) if t.is_floating_point() else t for t in tensors)
