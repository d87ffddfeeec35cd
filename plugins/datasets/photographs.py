"""Pieces of the photographs that scikit-learn and scikit-image carry, without labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from tuner.dataset import ArraySamples, Dataset, Role, unlabelled
from tuner.errors import RequestError
from tuner.plugin import missing
from tuner.system.fields import AtLeast

_MEAN, _SPREAD = 127.0, 128.0
_ROLES = {"evaluation": 0, "calibration": 1}


@dataclass(frozen=True)
class Photographs(Dataset):
    """`count` squares of `size` pixels, cut out by `seed` and scaled from half to twice: input `image`, float32
    (3, size, size) from -1 to 1. Nobody knows what is on them: the float model's own answers are what is right."""

    count: Annotated[int, AtLeast(8)] = 256
    size: Annotated[int, AtLeast(8)] = 224
    seed: Annotated[int, AtLeast(0)] = 0

    def load(self, role: Role) -> ArraySamples | None:
        if role not in _ROLES:
            return None
        photographs = _photographs()
        count = self.count if role == "evaluation" else min(self.count, 64)
        random = np.random.default_rng([self.seed, _ROLES[role]])
        pieces = [self._piece(photographs[n % len(photographs)], random) for n in range(count)]
        return ArraySamples({"image": np.stack(pieces)}, unlabelled(count))

    def _piece(self, photograph: Any, random: np.random.Generator) -> Any:
        side = int(min(self.size * random.uniform(0.5, 2), *photograph.size))
        left, top = (int(random.integers(0, room - side + 1)) for room in photograph.size)
        piece = photograph.crop((left, top, left + side, top + side)).resize((self.size, self.size))
        return ((np.asarray(piece, np.float32) - _MEAN) / _SPREAD).transpose(2, 0, 1)


def _photographs() -> list[Any]:
    """Raises RequestError where scikit-image is not there."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    if reason := missing("skimage.data", "inference-tuner[efficientnet]"):
        raise RequestError(f"dataset=photographs: {reason}")
    import skimage.data

    files = sorted(Path(skimage.data.__file__).parent.glob("*.png")) + sorted(
        Path(skimage.data.__file__).parent.glob("*.jpg")
    )
    opened = [Image.open(file) for file in files]
    colours = [
        picture.convert("RGB") for picture in opened if picture.mode in ("RGB", "RGBA") and min(picture.size) > 99
    ]
    return [*(Image.fromarray(array) for array in load_sample_images().images), *colours]
