"""A backend whose speed is known: it does a fixed amount of arithmetic a call, and answers nothing of use."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuner.forms.onnx import ONNX
from tuner.forms.openvino import OPENVINO
from tuner.forms.torch import TORCH
from tuner.model import Form, Model
from tuner.plugin import Backend, Session
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec

WORK_FILE = "work.json"


@dataclass(frozen=True)
class Planted(Backend):
    """`work` small matrix products a call; `twin` tells equal ones apart."""

    work: int
    twin: str = ""

    accepts: ClassVar[tuple[Form, ...]] = (TORCH, ONNX, OPENVINO)

    @property
    def label(self) -> str:
        return f"planted{self.work}{self.twin}"

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        (out / WORK_FILE).write_text(json.dumps(self.work))

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        return _Session(json.loads((folder / WORK_FILE).read_text()), batch_size)


class _Session(Session):
    def __init__(self, work: int, batch_size: int) -> None:
        self._work, self._batch_size = work, batch_size
        self._matrix = np.eye(16, dtype=np.float32)

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        matrix = self._matrix
        for _ in range(self._work):
            matrix = matrix @ self._matrix
        outputs = np.zeros((self._batch_size, 10), np.float32)
        outputs[:, 0] = next(iter(inputs.values())).reshape(self._batch_size, -1).sum(axis=1) + matrix[0, 0]
        return [outputs]
