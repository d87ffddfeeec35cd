"""The bundled data: scikit-learn's handwritten digits, as they are and made harder.

1,797 real scans of 8x8 pixels (UCI, Alpaydin and Kaynak, 1998), shipped inside scikit-learn, so nothing is
downloaded. The scans are dealt to the roles once, stratified by class: 719 judge, 128 calibrate, 950 train.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import ArraySamples, Dataset, Role
from tuner.system.fields import AtLeast

EVALUATION_SCANS = 719
CALIBRATION_SCANS = 128


@dataclass(frozen=True)
class Digits(Dataset):
    """The scans as they are: input `x`, float32 (1, 8, 8) in 0..1."""

    def load(self, role: Role) -> ArraySamples:
        images, labels = scans(role)
        return ArraySamples({"x": images[:, None]}, labels)


@dataclass(frozen=True)
class DistortedDigits(Dataset):
    """The scans at 32x32, turned, scaled, shifted and noisy: input `x`, float32 (1, 32, 32).

    A scan is rotated by up to `rotation` degrees, scaled by 0.8 to 1.2, shifted by up to `shift` pixels
    either way and covered with Gaussian noise of standard deviation `noise` (the ink is 1). Training sees
    every scan `training_copies` times, each copy distorted in its own way; the other roles twice. One `seed`
    gives one data set, to the bit on one version of numpy and scipy.
    """

    noise: Annotated[float, AtLeast(0)] = 0.35
    rotation: float = 30.0
    shift: float = 3.0
    training_copies: Annotated[int, AtLeast(1)] = 6
    seed: Annotated[int, AtLeast(0)] = 0

    def load(self, role: Role) -> ArraySamples:
        copies = self.training_copies if role == "training" else 2
        images, labels = scans(role)
        stream = np.random.default_rng([self.seed, ("evaluation", "calibration", "training").index(role)])
        distorted = self._distort(np.tile(images, (copies, 1, 1)), stream)
        return ArraySamples({"x": distorted[:, None]}, np.tile(labels, copies))

    def _distort(self, images: NDArray[Any], stream: np.random.Generator, size: int = 32) -> NDArray[Any]:
        from scipy.ndimage import map_coordinates  # type: ignore[import-untyped]

        count, source = len(images), images.shape[-1]
        angle = np.deg2rad(stream.uniform(-self.rotation, self.rotation, count))
        # one 8x8 image spans the `size` pixels at scale 1
        step = source / size / stream.uniform(0.8, 1.2, count)
        moved = stream.uniform(-self.shift, self.shift, (2, count))
        # for each output pixel, the place in the scan that it shows
        axis = np.arange(size) - (size - 1) / 2
        y = axis[None, :, None] - moved[0][:, None, None]
        x = axis[None, None, :] - moved[1][:, None, None]
        cos, sin = (f(angle)[:, None, None] * step[:, None, None] for f in (np.cos, np.sin))
        centre = (source - 1) / 2
        which = np.broadcast_to(np.arange(count)[:, None, None], (count, size, size))
        places = np.stack([which, cos * y - sin * x + centre, sin * y + cos * x + centre])
        shown = map_coordinates(images, places, order=1, mode="constant", output=np.float32)
        noise = stream.standard_normal(shown.shape, dtype=np.float32)
        return np.asarray(shown + self.noise * noise, dtype=np.float32)


def scans(role: Role) -> tuple[NDArray[Any], NDArray[Any]]:
    """The scans of a role, float32 (n, 8, 8) in 0..1, and their classes, int64. No scan has two roles."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    classes = data.target
    rest, evaluation = train_test_split(
        np.arange(len(classes)), test_size=EVALUATION_SCANS, stratify=classes, random_state=0
    )
    training, calibration = train_test_split(rest, test_size=CALIBRATION_SCANS, stratify=classes[rest], random_state=0)
    chosen = {"evaluation": evaluation, "calibration": calibration, "training": training}[role]
    images = (data.images[chosen] / 16).astype(np.float32)
    return images, classes[chosen].astype(np.int64)
