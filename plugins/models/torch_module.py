"""A torch module of one's own."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tuner.errors import RequestError
from tuner.forms.torch import TORCH
from tuner.system.code import resolve, source_digest
from tuner.system.worker import Progress
from tuner.workload import Dataset, Form, ModelSource


@dataclass(frozen=True)
class TorchModel(ModelSource):
    """A torch module made by `factory`, and trained by `train` on first use where that is given.

    `factory` is `module:function` taking no argument; `train` is `module:function(module, samples, progress)`,
    which trains in place. Its result is kept until the code of either module file, or the dataset, changes.
    """

    factory: str
    train: str | None = None
    label: str | None = None

    form: ClassVar[Form] = TORCH

    @property
    def name(self) -> str:
        return self.label or self.factory.rpartition(":")[2]

    def modules(self) -> tuple[str, ...]:
        return (self.factory.partition(":")[0],)

    def key(self, dataset: Dataset) -> dict[str, Any] | None:
        if self.train is None:
            return None
        code = {ref: source_digest(ref) for ref in (self.factory, self.train)}
        return {"code": code, "dataset": dataset.key(), "torch": importlib.metadata.version("torch")}

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        import torch

        module = resolve(self.factory, "model.factory")()
        if not isinstance(module, torch.nn.Module):
            kind = type(module).__name__
            raise RequestError(f"model.factory={self.factory} returned a {kind}; it must return a torch.nn.Module")
        if self.train is not None:
            samples = dataset.load("training")
            if samples is None:
                raise RequestError(f"model.train={self.train} needs a dataset with training samples")
            resolve(self.train, "model.train")(module, samples, progress)
        torch.save(module.eval(), out / self.form.file)
