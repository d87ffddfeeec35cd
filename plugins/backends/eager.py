"""torch eager: the model as it is, run by torch's own kernels. What every speed-up is reported against."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tuner.forms.torch import EXPORTED, SCRIPT, TORCH, TorchSession, loaded
from tuner.forms.torch_device import no_torch_device, untuned
from tuner.model import Form, Model
from tuner.plugin import Backend, Precision, Session
from tuner.target import Target
from tuner.tensors import TensorSpec


@dataclass(frozen=True)
class Eager(Backend):
    """No compilation. `precision` is that of weights and activations, cast at load."""

    precision: Precision = "f32"

    variable: ClassVar[bool] = True
    accepts: ClassVar[tuple[Form, ...]] = (TORCH, SCRIPT, EXPORTED)
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    @property
    def label(self) -> str:
        return "eager" if self.precision == "f32" else f"eager-{self.precision}"

    @property
    def arithmetic(self) -> Precision:
        return self.precision

    @property
    def untuned(self) -> bool:
        return untuned(self, self.precision)

    def unavailable(self, target: Target) -> str | None:
        return no_torch_device(target, self.precision)

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        shutil.copyfile(model.path, out / TORCH.file)

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        import torch

        torch.set_num_threads(target.cores)
        module = loaded(folder / TORCH.file, inputs, self.precision, target)
        return TorchSession(module, [spec.name for spec in inputs], self.precision, target)
