"""Every way in which a model or a plugin can go wrong, over the fakes."""

import ctypes
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import Dataset
from tuner.errors import CandidateError, RequestError
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model, ModelSource
from tuner.plugin import Session
from tuner.system.worker import Progress
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec
from tuner.testing.fakes import WEIGHTS, Null, Product, Rounding, write_linear

Fault = Literal["raise", "refuse", "memory_error", "segfault", "exit", "hang", "blow_up", "nan", "constant"]
KIND: dict[Fault, str] = {  # as the study is to record it
    "raise": "error",
    "refuse": "unsupported_op",
    "memory_error": "out_of_memory",
    "segfault": "crash",
    "exit": "crash",
    "hang": "timeout",
    "blow_up": "out_of_memory",
    "nan": "numerics",
    "constant": "numerics",
}


def fail(fault: Fault) -> None:
    """Goes wrong in that way; the last two go wrong in their outputs instead."""
    if fault == "raise":
        raise ValueError("three is not a colour")
    if fault == "refuse":
        raise CandidateError("unsupported_op", "Frobnicate has no kernel here; leave it in float")
    if fault == "memory_error":
        raise MemoryError
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "exit":
        os._exit(7)
    if fault == "hang":
        time.sleep(3600)
    if fault == "blow_up":
        _allocate_without_end()


def _allocate_without_end() -> NoReturn:
    kept = []
    while True:
        kept.append(np.ones(2_000_000))
        time.sleep(0.002)  # the limit must be what ends it, not the machine


@dataclass(frozen=True)
class Faulty(Null):
    """Goes wrong when it compiles, when it is loaded, or when it answers."""

    fault: Fault = "raise"
    where: Literal["compile", "load", "run"] = "run"

    @property
    def label(self) -> str:
        return f"{self.fault}-in-{self.where}"

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        if self.where == "compile":
            fail(self.fault)
        super().compile(model, batch_size, target, out, cache)

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        if self.where == "load":
            fail(self.fault)
        return _Faulty(np.load(folder / WEIGHTS), self.ms, self.fault if self.where == "run" else "raise")


class _Faulty(Product):
    def __init__(self, weights: NDArray[Any], ms: float, fault: Fault) -> None:
        super().__init__(weights, ms)
        self._fault = fault

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        fail(self._fault)
        (scores,) = super().run(inputs)
        if self._fault == "nan":
            scores[:, 0] = np.nan
        else:
            scores[:] = 1.0
        return [scores]


@dataclass(frozen=True)
class FaultyTransform(Rounding):
    """Goes wrong instead of compressing."""

    fault: Fault = "raise"

    @property
    def label(self) -> str:
        return f"transform-{self.fault}"

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        fail(self.fault)
        outputs = np.full_like(np.load(model.directory / WEIGHTS), np.nan if self.fault == "nan" else 0.0)
        write_linear(out, outputs)


@dataclass(frozen=True)
class Unloadable(ModelSource):
    """A model of one's own that is not what was hoped."""

    form: ClassVar[Form] = ONNX

    @property
    def name(self) -> str:
        return "unloadable"

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        raise RequestError("model.path=net.bin: it was written by a version from before the flood")


@dataclass(frozen=True)
class Absent(Null):
    """A backend whose library is not here."""

    def unavailable(self, target: Target) -> str | None:
        return "it needs a library that nobody has; pip install nobody-has-it"


@dataclass(frozen=True)
class Fickle(Null):
    """Finds the right classes, with other scores each time it is loaded."""

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        return Product(np.load(folder / WEIGHTS) * np.random.default_rng().uniform(1, 2), self.ms)


@dataclass(frozen=True)
class Moody(Null):
    """Changes after it was compiled, as with a new driver: a file says how, in `ms`, `confused` and `broken`."""

    mood: str = ""

    @property
    def label(self) -> str:
        return "moody"

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        mood = json.loads(Path(self.mood).read_text())
        if mood.get("broken"):
            raise CandidateError("error", "its driver is too old")
        weights = np.load(folder / WEIGHTS)
        return Product(np.roll(weights, 1, axis=1) if mood.get("confused") else weights, mood["ms"])
