"""What range of each tensor of an ONNX graph is kept in int8, by ONNX Runtime's calibrators."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.plugins.transforms.layer_patches import Range
from tuner.tensors import Arrays

_PARTS = np.linspace(1, 0.2, 41).tolist()  # of a range, that may be enough


class Ranges:
    """Those of one graph, of several kinds: its activations are looked at once for each."""

    def __init__(self, prepared: Path, batches: Sequence[Arrays]) -> None:
        self._prepared = prepared
        self._batches = batches
        self._seen: dict[Any, Any] = {}
        self._found: dict[Any, dict[str, Any]] = {}

    def file(self, kind: str, operators: Sequence[str] | None, more: Mapping[str, Range]) -> Path:
        """Where they stand as ONNX Runtime's tools read them: those of what the operators take and give (None: all),
        and `more`, of tensors that the graph has not or that were others in it."""
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

        found = self._of(kind, operators)
        file = self._prepared.with_name(f"{kind}.json")
        others = {name: _arrays(ends) for name, ends in more.items()}
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, found | others), file)
        return file

    def _of(self, kind: str, operators: Sequence[str] | None) -> dict[str, Any]:
        from onnxruntime.quantization import CalibrationMethod

        if kind == "minmax":
            operators = None  # costs no more, and one look is for both
        key = kind, operators is None
        if key not in self._found:
            methods = {"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy}
            calibrator = self._calibrator(methods.get(kind, CalibrationMethod.Percentile), operators)
            if kind == "mse":
                counted = {name: kept[:4] for name, kept in calibrator.collector.histogram_dict.items()}
                found = {name: _arrays(least_squares(*kept)) for name, kept in counted.items()}
            else:
                found = {name: data.range_value for name, data in calibrator.compute_data().items()}
            self._found[key] = found
        return self._found[key]

    def _calibrator(self, method: Any, operators: Sequence[str] | None) -> Any:
        """ONNX Runtime's, which has looked at the activations: once for each method. It cannot count what reaches to
        the limits of a float, as masks do: those are hardly what the layers take."""
        from onnxruntime.quantization.calibrate import create_calibrator

        key = method, operators is None
        if key not in self._seen:
            augmented = self._prepared.with_name(f"{method.name}.onnx")
            calibrator = create_calibrator(
                self._prepared,
                op_types_to_calibrate=operators,
                augmented_model_path=str(augmented),
                calibrate_method=method,
                extra_options={"symmetric": False},
            )
            for batch in self._batches:  # one by one: all their activations do not fit into memory
                calibrator.collect_data(_reader([batch]))
            self._seen[key] = calibrator
        return self._seen[key]


def _arrays(ends: Range) -> tuple[NDArray[Any], ...]:
    return tuple(np.array(end, np.float32) for end in ends)


def least_squares(counts: NDArray[Any], edges: NDArray[Any], least: float, greatest: float) -> Range:
    """The part of a tensor's range, both ends cut alike, whose 256 steps give the least squared error: a step's square
    over twelve for what is inside, the distance for what is cut off."""
    values, least, greatest = (edges[:-1] + edges[1:]) / 2, float(least), float(greatest)

    def error(ends: Range) -> float:
        low, high = ends
        outside = np.square(values - np.clip(values, low, high))
        return float((counts * (outside + ((high - low) / 255) ** 2 / 12)).sum())

    return min(((least * part, greatest * part) for part in _PARTS), key=error)


def _reader(batches: Sequence[Arrays]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, left: Iterator[Arrays]) -> None:
            self._left = left

        def get_next(self) -> Arrays | None:
            return next(self._left, None)

    return Reader(iter(batches))
