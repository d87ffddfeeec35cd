"""torch: a module saved whole (`torch.save`), and what the plugins agree on about calling it."""

import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from tuner.errors import RequestError
from tuner.plugin import Precision, Session, missing
from tuner.target import Target
from tuner.workload import Arrays, Form, Model, TensorSpec


@dataclass(frozen=True)
class TorchForm(Form):
    framework: ClassVar[bool] = True

    def check(self, model: Model) -> None:
        import torch

        module = torch.load(model.path, weights_only=False)
        doubles = [spec.name for spec in model.inputs if spec.dtype == "float64"]
        if doubles and not any(p.dtype == torch.float64 for p in module.parameters()):
            raise RequestError(
                f"dataset: {doubles[0]!r} is float64, the model is not; save it as array.astype('float32')"
            )

    def identity(self, model: Model) -> str:
        """By its structure, weights and code: its pickle differs between runs."""
        import torch

        module = torch.load(model.path, weights_only=False)
        seen = hashlib.sha256(repr(module).encode())
        for name, tensor in module.state_dict().items():
            seen.update(name.encode())
            seen.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        files = {inspect.getsourcefile(type(part)) for part in module.modules()}
        for file in sorted(f for f in files if f and "/torch/nn/" not in f):
            seen.update(Path(file).read_bytes())
        return seen.hexdigest()[:16]


TORCH = TorchForm("torch", "model.pt")


def called_by_name(module: Any, names: Iterable[str]) -> bool:
    """Whether a torch module's forward has a parameter for each of these input names.

    If not, it is called with the inputs in order.
    """
    return set(inspect.signature(module.forward).parameters).issuperset(names)


class TorchSession(Session):
    """Runs a callable that takes torch tensors in the order of `names`; floating-point outputs come back as float32."""

    def __init__(self, call: Callable[..., Any], names: Sequence[str], precision: Precision, target: Target) -> None:
        self._call, self._names, self._device = call, names, target.hardware.torch
        self._dtype = torch_dtype(precision)

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        import torch
        from torch.utils._pytree import tree_leaves

        with torch.inference_mode():
            result = self._call(*(self._tensor(inputs[name]) for name in self._names))
            # .cpu() waits for the device
            outputs = [leaf.cpu() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
            return [(o.float() if o.is_floating_point() else o).numpy() for o in outputs]

    def _tensor(self, array: NDArray[Any]) -> Any:
        import torch

        tensor = torch.tensor(array, device=self._device)  # a copy: a module may work in place
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


def no_torch_device(target: Target) -> str | None:
    """Why torch does not run on the target's device here, in one line with the mend; None if it does."""
    if reason := missing("torch"):
        return reason
    import torch

    name = target.hardware.torch
    if name is None:
        return f"torch does not run on {target.device} devices; use a backend that does"
    if name != "cpu" and not torch.get_device_module(name).is_available():
        return f"torch {torch.__version__} sees no {name} device; install a build of torch for it, and its driver"
    return None


def no_triton(target: Target) -> str | None:
    """Why torch's compiler writes no kernels for the target's device here, in one line; None if it does."""
    if target.hardware.host or importlib.util.find_spec("triton") is not None:
        return None
    return f"torch's compiler needs triton for {target.device} devices; pip install triton"


def torch_device(target: Target) -> str:
    """Where a transform computes with torch: on the target's device, or on the CPU where torch does not run there."""
    return target.hardware.torch or "cpu"


def torch_dtype(precision: Precision) -> Any:
    import torch

    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]


def loaded(file: Path, inputs: Sequence[TensorSpec], precision: Precision, target: Target) -> Any:
    """The module kept in `file`, on the target's device and in this precision; called with the inputs in order."""
    import torch

    module = torch.load(file, map_location=target.hardware.torch, weights_only=False).eval().to(torch_dtype(precision))
    names = [spec.name for spec in inputs]
    return in_order(module, names) if called_by_name(module, names) else module


def zeros(inputs: Sequence[TensorSpec], batch_size: int, precision: Precision, target: Target) -> tuple[Any, ...]:
    """A tensor for each input, of the shape and kind that a compiler is to compile for."""
    import torch

    tensors = (
        torch.zeros((batch_size, *spec.shape), dtype=getattr(torch, spec.dtype), device=target.hardware.torch)
        for spec in inputs
    )
    return tuple(t.to(torch_dtype(precision)) if t.is_floating_point() else t for t in tensors)


def in_order(module: Any, names: Sequence[str]) -> Any:
    """A module that takes in this order what `module` takes by name."""
    import torch

    class InOrder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> Any:
            return self.module(**dict(zip(names, tensors, strict=True)))

    return InOrder()
