"""Stand-ins for this repository's own tests: they wait until they are told to go on, or keep real time."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.artifact import Artifact
from tuner.dataset import ArraySamples, Dataset, Role, unlabelled
from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.judging import Judging, Scores
from tuner.model import Model
from tuner.plugin import Precision, Session
from tuner.system.worker import Progress
from tuner.target import Target
from tuner.task import Call, Task
from tuner.tensors import Arrays, TensorSpec
from tuner.testing.fakes import CENTRES, WEIGHTS, Linear, Null, Points, Product, write_linear


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
class Halved(Null):
    """Says that it computes in half precision."""

    @property
    def arithmetic(self) -> Precision:
        return "bf16"

    @property
    def label(self) -> str:
        return f"halved-{self.ms:g}"


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
class Crossing(Null):
    """A backend that compiles for a device which is not here."""

    fails: bool = False

    @property
    def label(self) -> str:
        return "crossing" + "-fails" * self.fails

    def crosses(self, target: Target) -> str | None:
        return None

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        if self.fails:
            raise CandidateError("compile", "no such instruction")
        super().compile(model, batch_size, target, out, cache)


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
class Paced(Secluded):
    """A call takes as long as its library's version says."""

    @property
    def label(self) -> str:
        return "paced"

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        ms = importlib.import_module("tiny_runtime").MS
        return Null.load(replace(self, ms=ms), folder, inputs, batch_size, target)


@dataclass(frozen=True)
class Mislabelled(Points):
    """The points, their labels raised by so much, or drawn anew, or unknown."""

    offset: int | None = None
    unknown: bool = False

    def load(self, role: Role) -> ArraySamples | None:
        samples = super().load(role)
        if samples is None:
            return None
        if self.unknown:
            return replace(samples, labels=unlabelled(len(samples)))
        shuffled = np.random.default_rng(0).permutation(samples.labels)
        return replace(samples, labels=shuffled if self.offset is None else samples.labels + self.offset)


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

    def scores(self, loaded: Artifact, evaluation: Iterable[tuple[Arrays, Any]], judging: Judging) -> Scores:
        """A sample counts half: the other half is for being asked twice."""
        whole = Call().scores(loaded, evaluation, judging)
        return Scores.of(whole.samples / 2)


@dataclass(frozen=True)
class Sized(Null):
    """A backend that compiles for one batch size, which calls of its sessions tell in the first number of an answer.
    `off` is a batch size that it gets wrong, `dies` one at which its process ends."""

    off: int = 0
    dies: int = 0

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        super().compile(model, batch_size, target, out, cache)
        (out / "batch_size").write_text(str(batch_size))

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        assert (folder / "batch_size").read_text() == str(batch_size)
        if batch_size == self.dies:
            os._exit(1)
        return Product(np.load(folder / WEIGHTS) + (batch_size == self.off), self.ms)


@dataclass(frozen=True)
class Waking(Null):
    """A backend whose calls take real time, by the machine's clock."""

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        return _Waking(np.load(folder / WEIGHTS), self.ms)


class _Waking(Product):
    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        time.sleep(self._seconds)
        return super().run(inputs)

    def now(self) -> float:
        return time.perf_counter()


@dataclass(frozen=True)
class Labelled(Linear):
    """A model that is called whatever somebody calls it, or another one by the same name."""

    label: str = ""
    scale: float = 1.0

    @property
    def name(self) -> str:
        return self.label

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        write_linear(out, self.scale * CENTRES.T)


@dataclass(frozen=True)
class Stepping(Null):
    """Answers as the ONNX graph does, or `off` by that share. A call takes `ms` for each node of the graph, and on more
    than one thread a tenth of that."""

    off: float = 0.0

    @property
    def label(self) -> str:
        return f"stepping-{self.ms:g}" + f"-off-{self.off:g}" * bool(self.off)

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        shutil.copyfile(model.path, out / ONNX.file)

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        from onnx import load
        from onnx.reference import ReferenceEvaluator

        graph = load(str(folder / ONNX.file))
        ms = self.ms * len(graph.graph.node) / (10 if target.cores > 1 else 1)
        return Evaluated(ReferenceEvaluator(graph), ms, self.off)


class Evaluated(Product):
    """Its clock moves as `Product`'s does."""

    def __init__(self, evaluator: Any, ms: float, off: float) -> None:
        super().__init__(np.eye(1), ms)
        self._evaluator = evaluator
        self._off = off

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        super().run({"x": np.eye(1)})
        return [self._changed(output) for output in self._evaluator.run(None, inputs)]

    def _changed(self, output: NDArray[Any]) -> NDArray[Any]:
        noise = np.random.default_rng(0).normal(size=output.shape[1:])
        return np.asarray(output + self._off * np.abs(output).mean() * noise, output.dtype)
