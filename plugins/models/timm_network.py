"""A network of timm's, with weights from a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tuner.dataset import Dataset
from tuner.errors import RequestError
from tuner.forms.torch import TORCH, save
from tuner.model import Form, ModelSource
from tuner.plugin import missing
from tuner.plugins.models.torch_module import fill_weights
from tuner.system.files import require_file
from tuner.system.said import first_line
from tuner.system.worker import Progress
from tuner.tensors import FreeSpec


@dataclass(frozen=True)
class TimmModel(ModelSource):
    """`timm.create_model(architecture, num_classes=classes)` with the state dict in `weights`."""

    architecture: str
    weights: str
    classes: int | None = None
    label: str | None = None

    form: ClassVar[Form] = TORCH

    def __post_init__(self) -> None:
        super().__post_init__()
        require_file(self.weights, "model.weights")

    @property
    def name(self) -> str:
        return self.label or self.architecture.partition(".")[0]

    def declares(self) -> tuple[FreeSpec, ...]:
        declared = self._network().default_cfg
        mean, std = (tuple(declared.get(key) or ()) for key in ("mean", "std"))
        return (FreeSpec("image", tuple(declared["input_size"]), "float32", mean=mean, std=std),)

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        network = self._network()
        fill_weights(network, Path(self.weights))
        save(network, out)

    def _network(self) -> Any:
        if reason := missing("timm", "inference-tuner[timm]"):
            raise RequestError(f"model=timm: {reason}")
        import timm

        more = {} if self.classes is None else {"num_classes": self.classes}
        try:
            return timm.create_model(self.architecture, pretrained=False, **more)
        except Exception as error:  # each architecture has its own
            raise RequestError(
                f"model.architecture={self.architecture}: timm cannot make it ({first_line(error)})"
            ) from error
