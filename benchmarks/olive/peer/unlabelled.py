"""What Olive calls back into: the calibration samples, and how like the float model's answers others are.

Olive runs in a folder with `model.onnx`, `data.npz`, likeness.py and this file.
"""

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from olive.data.registry import Registry
from torch.utils.data import Dataset

sys.path.insert(0, str(Path.cwd()))

DATA = dict(np.load("data.npz"))


def samples(role: str) -> list[dict[str, Any]]:
    arrays = {name.partition(":")[2]: array for name, array in DATA.items() if name.startswith(f"{role}:")}
    count = len(next(iter(arrays.values())))
    return [{name: array[i] for name, array in arrays.items()} for i in range(count)]


class _Samples(Dataset):
    def __init__(self):
        self._samples = samples("calibration")

    def __len__(self):
        return len(self._samples)

    def __getitem__(self, index):
        return self._samples[index], 0


@Registry.register_dataset()
def calibration_samples(data_dir=None, **_):
    return _Samples()


@functools.cache
def right():
    return answers(onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"]))


def answers(session):
    batches = [{name: array[None] for name, array in sample.items()} for sample in samples("evaluation")]
    return [session.run(None, batch) for batch in batches]


def alike(model, device, execution_providers, **_):
    """From 0 to 1, of an Olive model handler."""
    from likeness import likeness

    session = model.prepare_session(
        inference_settings=model.inference_settings, device=device, execution_providers=execution_providers
    )
    return likeness(answers(session), right())
