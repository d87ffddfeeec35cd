"""torch.compile: torch's compiler at its user's door. Triton kernels on a GPU, C++ on a CPU, compiled once and kept.

AOTInductor (`inductor`) packs the same kernels without the model's code. This one needs that code to load, compiles
faster, and knows CUDA graphs.
"""

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from tuner.errors import CandidateError
from tuner.forms.torch import TORCH, TorchSession, called_by_name, in_order, no_torch_device, torch_dtype
from tuner.plugin import Backend, Precision, Session
from tuner.system.said import first_line
from tuner.target import Target
from tuner.workload import Form, Model, TensorSpec

_KERNELS = "kernels.bin"


@dataclass(frozen=True)
class TorchCompile(Backend):
    """`precision` is that of weights and activations. `mode` is torch's own: `reduce-overhead` replays CUDA graphs, and
    `max-autotune` times several kernels for each product, for minutes.

    What was compiled lies in the artifact; where it does not fit the machine that loads it, torch compiles again.
    Side effect: torch unpacks it into its cache (`TORCHINDUCTOR_CACHE_DIR`, else in the system's temporary directory).
    """

    precision: Precision = "f32"
    mode: Literal["default", "reduce-overhead", "max-autotune"] = "default"

    accepts: ClassVar[tuple[Form, ...]] = (TORCH,)
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    @property
    def label(self) -> str:
        modes = {"default": "", "reduce-overhead": "-graphs", "max-autotune": "-autotune"}
        return f"compile{modes[self.mode]}" + ("" if self.precision == "f32" else f"-{self.precision}")

    @property
    def arithmetic(self) -> Precision:
        return self.precision

    def unavailable(self, target: Target) -> str | None:
        if reason := no_torch_device(target):
            return reason
        if not target.hardware.host and importlib.util.find_spec("triton") is None:
            return "torch.compile needs triton for a GPU; pip install triton"
        return None

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        import torch

        shutil.copyfile(model.path, out / TORCH.file)
        self._compiled(out, model.inputs, batch_size, target)
        artifacts = torch.compiler.save_cache_artifacts()
        if artifacts is not None:
            (out / _KERNELS).write_bytes(artifacts[0])

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        import torch

        if (folder / _KERNELS).exists():
            torch.compiler.load_cache_artifacts((folder / _KERNELS).read_bytes())
        call = self._compiled(folder, inputs, batch_size, target)
        return TorchSession(call, [spec.name for spec in inputs], self.precision, target)

    def _compiled(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Any:
        """The module, compiled by a first call for inputs of these shapes."""
        import torch
        from torch._dynamo.exc import TorchDynamoException

        torch.set_num_threads(target.cores)
        module = torch.load(folder / TORCH.file, map_location=target.hardware.torch, weights_only=False).eval()
        module = module.to(torch_dtype(self.precision))
        names = [spec.name for spec in inputs]
        call = in_order(module, names) if called_by_name(module, names) else module
        compiled: Any = torch.compile(call, mode=self.mode, dynamic=False)
        samples = []
        for spec in inputs:
            shape, dtype = (batch_size, *spec.shape), getattr(torch, spec.dtype)
            sample = torch.zeros(shape, dtype=dtype, device=target.hardware.torch)
            samples.append(sample.to(torch_dtype(self.precision)) if sample.is_floating_point() else sample)
        try:
            with torch.inference_mode():
                compiled(*samples)
        except TorchDynamoException as error:
            said = first_line(error)
            raise CandidateError("compile", f"torch.compile cannot compile this model: {said}") from error
        return compiled
