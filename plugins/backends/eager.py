"""torch eager: the model as it is, run by torch's own kernels. What every speed-up is reported against."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from tuner.plugin import Backend, Precision, Session, one_of
from tuner.target import Target
from tuner.torch_form import called_by_name
from tuner.workload import FILES, Arrays, Form, Model, TensorSpec


@dataclass(frozen=True)
class Eager(Backend):
    """No compilation. `precision` is that of weights and activations, cast at load."""

    precision: Precision = "f32"

    accepts: ClassVar[tuple[Form, ...]] = ("torch",)
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    def __post_init__(self) -> None:
        one_of(self.precision, Precision, "eager: precision")

    @property
    def label(self) -> str:
        return "eager" if self.precision == "f32" else f"eager-{self.precision}"

    @property
    def arithmetic(self) -> Precision:
        return self.precision

    def unavailable(self, target: Target) -> str | None:
        try:
            import torch
        except (ImportError, OSError) as error:
            return f"torch does not import ({error}); pip install torch"
        if target.device == "cuda" and not torch.cuda.is_available():
            return f"torch {torch.__version__} sees no CUDA device; install a CUDA build of torch and the driver"
        return None

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        shutil.copyfile(model.path, out / FILES["torch"])

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        import torch

        torch.set_num_threads(target.cores)
        module = torch.load(folder / FILES["torch"], map_location=target.device, weights_only=False).eval()
        module = module.to(torch_dtype(self.precision))
        names = [spec.name for spec in inputs]
        call = in_order(module, names) if called_by_name(module, names) else module
        return TorchSession(call, names, self.precision, target.device)


class TorchSession(Session):
    """Runs a callable that takes torch tensors in the order of `names`; floating-point outputs come back as float32."""

    def __init__(self, call: Callable[..., Any], names: Sequence[str], precision: Precision, device: str) -> None:
        self._call, self._names, self._device = call, names, device
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


def torch_dtype(precision: Precision) -> Any:
    import torch

    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]


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
