"""torch.compile: torch's compiler at its user's door. Triton kernels on a GPU, C++ on a CPU, compiled once and kept.

AOTInductor (`inductor`) packs the same kernels without the model's code. This one needs that code to load, compiles
faster, and knows CUDA graphs.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from tuner.errors import CandidateError
from tuner.forms.torch import EXPORTED, TORCH, TorchSession, loaded
from tuner.forms.torch_device import no_torch_device, no_triton, untuned
from tuner.forms.torch_export import zeros
from tuner.model import Form, Model
from tuner.plugin import Backend, Precision, Session
from tuner.system.said import first_line
from tuner.target import Target
from tuner.tensors import TensorSpec

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

    accepts: ClassVar[tuple[Form, ...]] = (TORCH, EXPORTED)
    slow: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    @property
    def label(self) -> str:
        modes = {"default": "", "reduce-overhead": "-graphs", "max-autotune": "-autotune"}
        return f"compile{modes[self.mode]}" + ("" if self.precision == "f32" else f"-{self.precision}")

    @property
    def arithmetic(self) -> Precision:
        return self.precision

    @property
    def untuned(self) -> bool:
        return untuned(self, self.precision)

    def unavailable(self, target: Target) -> str | None:
        return no_torch_device(target, self.precision) or no_triton(target)

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
        module = loaded(folder / TORCH.file, inputs, self.precision, target)
        compiled: Any = torch.compile(module, mode=self.mode, dynamic=False)
        try:
            with torch.inference_mode():
                compiled(*zeros(inputs, batch_size, self.precision, target))
        except TorchDynamoException as error:
            said = first_line(error)
            raise CandidateError("compile", f"torch.compile cannot compile this model: {said}") from error
        return compiled
