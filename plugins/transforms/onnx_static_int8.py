"""Static int8 of ONNX Runtime: scales of activations are fixed beforehand, from calibration samples."""

import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tuner.dataset import Dataset, Role
from tuner.errors import CandidateError
from tuner.fidelity import unlikeness
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model, fed
from tuner.plugin import Quantized, Transform, later, missing
from tuner.plugins.transforms.equalising import equalised
from tuner.plugins.transforms.keep_float import kept_in_float
from tuner.plugins.transforms.onnx_quantizing import Quantizing, prepare
from tuner.plugins.transforms.onnx_ranges import Ranges
from tuner.plugins.transforms.smoothing import smoothed
from tuner.system.fields import AtLeast, Below
from tuner.tables import Cell, Table
from tuner.target import Target
from tuner.tensors import Arrays

_BATCH_SIZE = 32
_MOST_BATCHES = 16
_JUDGED = 32  # samples by which an error is told
_FEW = 8  # of them, by which layers are ranked
_LEARNED_FROM = 64  # the last ones, so that few are among those by which an error is told


@dataclass(frozen=True)
class OnnxStaticInt8(Transform):
    """Weights and activations in int8, as QuantizeLinear/DequantizeLinear pairs that a runtime fuses.

    `per_channel` scales each output channel of a weight by itself. `calibration` decides what range of activations is
    kept: all that occurs, what loses least information, 99.999 % of it, or what gives the least mean squared error. At
    most 512 samples are used. `layers_only`: what lies between convolutions and matrix products stays in float, which
    is where the gates of an attention or a mask of minus infinity lose most, and so do the sums of matrix products.
    The usual first choice for convolutional networks on a CPU with VNNI instructions; on an x86 without them weights
    have 7 bits, for sums would saturate.

    `max_error` climbs a ladder until the outputs are so near those of the float model (`tuner.fidelity.unlikeness`, on
    32 of the calibration samples): these fields as they are, then `layers_only`, then the other ranges; with the best
    of them cross-layer equalisation, SmoothQuant, rounding and biases that are learned layer by layer, each kept where
    it helps; at last layers that stay in float. Those that do most harm alone are the first; how many it takes is found
    by bisection. A table tells what was tried.
    """

    per_channel: bool = True
    calibration: Literal["minmax", "entropy", "percentile", "mse"] = "minmax"
    activation: Literal["uint8", "int8"] = "uint8"
    layers_only: bool = later(False)
    max_error: Annotated[float, AtLeast(1e-3), Below(1)] | None = None

    takes: ClassVar[Form] = ONNX
    gives: ClassVar[Form] = ONNX
    role: ClassVar[Role | None] = "calibration"
    weights: ClassVar[Quantized | None] = "int8"
    activations: ClassVar[Quantized | None] = "int8"
    bound: ClassVar[str | None] = "max_error"
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")

    @property
    def label(self) -> str:
        parts = ["int8-layers" if self.layers_only else "int8-static"]
        parts += ["tensor"] * (not self.per_channel)
        parts += [self.calibration] * (self.calibration != "minmax")
        parts += ["s8"] * (self.activation == "int8")
        parts += [] if self.max_error is None else [f"e{self.max_error:.2g}"]
        return "-".join(parts)

    def unavailable(self, target: Target) -> str | None:
        if reason := missing("onnxruntime.quantization", "onnxruntime"):
            return reason
        if not target.hardware.host and "TensorrtExecutionProvider" not in target.onnxruntime_providers:
            return (
                "onnxruntime has int8 kernels for CPUs and TensorRT only; put TensorrtExecutionProvider in the target"
            )
        return None

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        samples = dataset.load("calibration")
        if not samples:
            raise CandidateError("error", "static int8 needs calibration samples, and the dataset has none")
        size = min(_BATCH_SIZE, len(samples))
        batches = list(islice(fed(samples, model, size), _MOST_BATCHES))  # whole ones: histograms refuse a short one
        few = min(_FEW, len(samples))
        judged = list(islice(fed(samples, model, few), -(-_JUDGED // (model.batch_size or few))))

        def every() -> Iterator[Arrays]:
            return islice(fed(samples, model, 1), _BATCH_SIZE * _MOST_BATCHES)

        last = deque(every(), maxlen=-(-_LEARNED_FROM // (model.batch_size or 1)))
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            prepare(model.path, prepared)
            work = Quantizing(prepared, Ranges(prepared, batches), every, last, target.cores)
            if self.max_error is None:
                found = work.quantize(self, out / model.path.name)
            else:
                ladder = _Ladder(self.max_error, work, judged)
                work, best, left_in_float = ladder.climbed(self)
                ladder.table().write(out, "int8_ladder")
                found = work.quantize(best, out / model.path.name, left_in_float)
        if not found:
            raise CandidateError("unsupported_op", "static int8 found no operator to quantize in this model")


def _smooth(work: Quantizing, plugin: OnnxStaticInt8) -> tuple[Quantizing, OnnxStaticInt8] | None:
    """Without outliers all that occurs is the range to keep."""
    smooth = work.rewritten(smoothed)
    return None if smooth is None else (smooth, replace(plugin, calibration="minmax"))


def _equalise(work: Quantizing, plugin: OnnxStaticInt8) -> tuple[Quantizing, OnnxStaticInt8] | None:
    equal = work.rewritten(equalised)
    return None if equal is None else (equal, plugin)


def _learn(work: Quantizing, plugin: OnnxStaticInt8) -> tuple[Quantizing, OnnxStaticInt8]:
    return work.learned(plugin), plugin


_CHANGES: tuple[tuple[str, float, Callable[..., tuple[Quantizing, OnnxStaticInt8] | None]], ...] = (
    ("equalised", 1.0, _equalise),
    ("SmoothQuant", 0.95, _smooth),  # which costs a multiplication at every call, and must gain a twentieth
    ("learned rounding", 1.0, _learn),
)


class _Ladder:
    """From rung to rung, each only while none is within `max_error` on the batches `judged`."""

    def __init__(self, max_error: float, work: Quantizing, judged: Sequence[Arrays]) -> None:
        self._max_error = max_error
        self._work = work
        self._judged = judged
        self._right = work.answers(work.prepared, judged)
        self._rows: list[tuple[Cell, ...]] = []

    def climbed(self, plugin: OnnxStaticInt8) -> tuple[Quantizing, OnnxStaticInt8, Sequence[str]]:
        """What is near enough, and the layers that it leaves in float.

        Raises CandidateError where the error is above the bound even with a single layer quantized."""
        work, lowest, best = self._work, math.inf, replace(plugin, layers_only=True)
        changes: tuple[str, ...] = ()
        for rung in _rungs(plugin):
            if (error := self._error(work, rung)) <= self._max_error:
                return work, rung, []
            if rung.layers_only and error < lowest:  # what else is rounded, no layer in float makes up for
                lowest, best = error, rung
        for change, worth, make in _CHANGES:
            if (changed := make(work, best)) is not None:
                if (error := self._error(*changed, (*changes, change))) <= self._max_error:
                    return *changed, []
                if error < worth * lowest:
                    lowest, changes, (work, best) = error, (*changes, change), changed
        kept = kept_in_float(
            work.layers(),
            work.harm(best, self._judged[:1], self._right[:1]),
            lambda some: self._error(work, best, changes, some),
            self._max_error,
            "static int8",
        )
        return work, best, kept

    def table(self) -> Table:
        """All that was tried, in order."""
        columns = "quantized", "error", "layers in float"
        return Table("How far int8 is from the float model, by what was tried", columns, tuple(self._rows))

    def _error(
        self, work: Quantizing, plugin: OnnxStaticInt8, changes: Sequence[str] = (), without: Sequence[str] = ()
    ) -> float:
        work.quantize(plugin, work.trial, without)
        error = unlikeness(work.answers(work.trial, self._judged), self._right)
        told = ", ".join((replace(plugin, max_error=None).label, *changes))
        self._rows.append((told, error if math.isfinite(error) else None, len(without)))
        return error


def _rungs(plugin: OnnxStaticInt8) -> Iterator[OnnxStaticInt8]:
    """The cheapest to find first: what was seen of the activations serves two of them."""
    layers = replace(plugin, layers_only=True)
    fewer = (replace(layers, calibration="percentile"), replace(layers, calibration="mse"))
    yield from dict.fromkeys((plugin, layers, *fewer))
