"""A model, samples and plugins that need no library but NumPy, and every way in which a plugin can go wrong.

`tests/conf` has the YAML that names them; `study.overrides()` puts it on Hydra's search path.
"""

import ctypes
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from tuner.artifact import Artifact
from tuner.errors import CandidateError, RequestError
from tuner.forms.onnx import ONNX
from tuner.plugin import Backend, Session, Transform
from tuner.system.worker import Progress
from tuner.target import Target
from tuner.task import Call, Metric, Task
from tuner.workload import Arrays, ArraySamples, Dataset, Form, Model, ModelSource, Role, TensorSpec

CLASSES, FEATURES = 3, 4
CENTRES = 4.0 * np.eye(CLASSES, FEATURES, dtype=np.float32)
INPUTS = (TensorSpec("x", (FEATURES,), "float32"),)
WEIGHTS = "weights.npy"


@dataclass(frozen=True)
class Points(Dataset):
    """Points around three centres, far enough apart that `Linear` finds them all."""

    training: int = 0

    def load(self, role: Role) -> ArraySamples | None:
        count = {"evaluation": 120, "calibration": 16, "training": self.training}[role]
        if not count:
            return None
        random = np.random.default_rng([len(role), count])
        labels = np.arange(count) % CLASSES
        points = CENTRES[labels] + random.uniform(-1, 1, (count, FEATURES))
        return ArraySamples({"x": points.astype(np.float32)}, labels)


@dataclass(frozen=True)
class Linear(ModelSource):
    """One matrix product, as a real ONNX graph and, for the fakes, as an array beside it."""

    form: ClassVar[Form] = ONNX

    @property
    def name(self) -> str:
        return "linear"

    def key(self, dataset: Dataset) -> dict[str, Any] | None:
        return None

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        write_linear(out, CENTRES.T)


@dataclass(frozen=True)
class Acting(Target):
    """Instead of a study, does within a second what a scheduled run may do. It notes each start in `<stage>/started`.

    `wait` ends well once there is `<stage>/go`, and as a study does when it is interrupted.
    """

    act: Literal["wait", "champion", "infeasible", "crash", "hang"] = "champion"
    stage: str = "."

    def check(self) -> str:
        folder = Path(self.stage)
        with (folder / "started").open("a") as started:
            started.write(f"{os.getpid()}\n")
        print("on stage", flush=True)
        if self.act == "crash":
            raise ValueError("the stage is on fire")
        if self.act == "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen(["sleep", "3600"], start_new_session=True)
            time.sleep(3600)
        if self.act == "wait":
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            while not (folder / "go").exists():
                time.sleep(0.02)
        sys.exit(3 if self.act == "infeasible" else 0)


@dataclass(frozen=True)
class Unloadable(ModelSource):
    """A model of one's own that is not what was hoped."""

    form: ClassVar[Form] = ONNX

    @property
    def name(self) -> str:
        return "unloadable"

    def key(self, dataset: Dataset) -> dict[str, Any] | None:
        return None

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        raise RequestError("model.path=net.bin: it was written by a version from before the flood")


def write_linear(out: Path, weights: NDArray[Any], *, input_name: str = "x") -> None:
    """`weights` as `model.onnx`, its batch axis free, and as `weights.npy`."""
    from onnx import TensorProto, helper, numpy_helper, save

    graph = helper.make_graph(
        [helper.make_node("MatMul", [input_name, "w"], ["scores"])],
        "linear",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", len(weights)])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", weights.shape[1]])],
        [numpy_helper.from_array(np.ascontiguousarray(weights, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, str(out / ONNX.file))
    np.save(out / WEIGHTS, weights)


@dataclass(frozen=True)
class Null(Backend):
    """Answers rightly; a call takes `ms`, whatever the batch."""

    ms: float = 2.0

    accepts: ClassVar[tuple[Form, ...]] = (ONNX,)
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    @property
    def label(self) -> str:
        return f"null-{self.ms:g}"

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        shutil.copyfile(model.directory / WEIGHTS, out / WEIGHTS)

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        return Product(np.load(folder / WEIGHTS), self.ms)


@dataclass(frozen=True)
class TwoCalls(Task):
    """A unit of work that is two calls in a row; it tells what part of its time the second takes, less `least`."""

    least: float = 0.0

    def perform(self, session: Session, inputs: Arrays) -> dict[str, float]:
        start = session.now()
        session.run(inputs)
        between = session.now()
        session.run(inputs)
        end = session.now()
        return {"second_share": (end - between) / (end - start) - self.least}

    def scores(
        self, loaded: Artifact, evaluation: Iterable[tuple[Arrays, NDArray[Any]]], metric: Metric
    ) -> NDArray[Any]:
        """A sample counts half: the other half is for being asked twice."""
        return Call().scores(loaded, evaluation, metric) / 2


@dataclass(frozen=True)
class Slow(Null):
    """A backend that takes its time to load."""

    @property
    def label(self) -> str:
        return f"slow-{self.ms:g}"

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        time.sleep(0.6)
        return super().load(folder, inputs, batch_size, target)


@dataclass(frozen=True)
class Held(Null):
    """After `after` loads, a load waits until there is `<stage>/go`: its trial stays under way. It notes each in
    `<stage>/loaded`.
    """

    stage: str = "."
    after: int = 0

    @property
    def label(self) -> str:
        return f"held-{self.ms:g}"

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        stage = Path(self.stage)
        with (stage / "loaded").open("a") as loaded:
            loaded.write(f"{os.getpid()}\n")
        while len((stage / "loaded").read_text().split()) > self.after and not (stage / "go").exists():
            time.sleep(0.02)
        return super().load(folder, inputs, batch_size, target)


@dataclass(frozen=True, kw_only=True)
class Named(Null):
    """A backend that cannot be made without being told something."""

    name: str

    @property
    def label(self) -> str:
        return f"named-{self.name}"


@dataclass(frozen=True)
class Absent(Null):
    """A backend whose library is not here."""

    def unavailable(self, target: Target) -> str | None:
        return "it needs a library that nobody has; pip install nobody-has-it"


@dataclass(frozen=True)
class Waking(Null):
    """A backend whose calls take real time, by the machine's clock."""

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        return _Waking(np.load(folder / WEIGHTS), self.ms)


@dataclass(frozen=True)
class Secluded(Null):
    """A backend whose library fits nobody else's: it is in an environment of its own."""

    libraries: ClassVar[tuple[str, ...]] = ("tiny-runtime",)
    requirements: ClassVar[tuple[str, ...]] = ("tiny-runtime<2",)

    @property
    def label(self) -> str:
        return "secluded"

    def unavailable(self, target: Target) -> str | None:
        return None if importlib.util.find_spec("tiny_runtime") else "there is no tiny_runtime"

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        importlib.import_module("tiny_runtime")
        return super().load(folder, inputs, batch_size, target)


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


class Product(Session):
    """Takes no time: its clock moves by `ms` with each call, and up to a thousandth more: no two calls are alike."""

    def __init__(self, weights: NDArray[Any], ms: float) -> None:
        self._weights = weights
        self._seconds = ms / 1e3
        self._now = 0.0
        self._random = np.random.default_rng()

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        self._now += self._seconds * (1 + 1e-3 * self._random.random())
        return [inputs["x"] @ self._weights]

    def now(self) -> float:
        return self._now


class _Waking(Product):
    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        time.sleep(self._seconds)
        return super().run(inputs)

    def now(self) -> float:
        return time.perf_counter()


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
class Rounding(Transform):
    """Compression that costs no accuracy."""

    decimals: int = 1

    takes: ClassVar[Form] = ONNX
    gives: ClassVar[Form] = ONNX
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "onnx")

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        write_linear(out, np.round(np.load(model.directory / WEIGHTS), self.decimals))


@dataclass(frozen=True)
class Recovery(Rounding):
    """Compression that wants samples to train on."""

    role: ClassVar[Role | None] = "training"


@dataclass(frozen=True)
class Scrambling(Rounding):
    """Compression that costs all accuracy: every class is taken for the next."""

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        write_linear(out, np.roll(np.load(model.directory / WEIGHTS), 1, axis=1))


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
