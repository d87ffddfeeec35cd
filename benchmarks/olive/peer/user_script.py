"""What Olive calls back into: the calibration samples, and the accuracy on the whole evaluation set.

Olive runs in a folder with `model.onnx`, this file and `data.npz`, the very samples that the tuner is given.
"""

import numpy as np
from olive.data.registry import Registry
from torch.utils.data import Dataset

DATA = np.load("data.npz")
BATCH = 64


class _Samples(Dataset):
    def __init__(self, images, labels):
        self._images, self._labels = images, labels

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return {"x": self._images[index]}, int(self._labels[index])


@Registry.register_dataset()
def calibration_samples(data_dir=None, **_):
    return _Samples(DATA["calibration_x"], DATA["calibration_label"])


def top1(model, device, execution_providers, **_):
    """The share of the evaluation set that an Olive model handler answers rightly."""
    session = model.prepare_session(
        inference_settings=model.inference_settings, device=device, execution_providers=execution_providers
    )
    images, labels = DATA["evaluation_x"], DATA["evaluation_label"]
    right = 0
    for start in range(0, len(images), BATCH):
        (scores,) = session.run(None, {"x": images[start : start + BATCH]})
        right += int((scores.argmax(-1) == labels[start : start + BATCH]).sum())
    return right / len(labels)
