"""What goes into a model: names, shapes and dtypes of its inputs, and where their batch stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """One named input: its shape *per sample*, without the batch, and its numpy dtype. `batch_axis` is where the batch
    stands among the axes that the model takes; None where it takes one sample as it is, and no batch."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    batch_axis: int | None = 0

    def full(self, count: int) -> tuple[int, ...]:
        """The shape of so many samples, as the model takes them."""
        if self.batch_axis is None:
            return self.shape
        return (*self.shape[: self.batch_axis], count, *self.shape[self.batch_axis :])

    def cut(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Samples along the first axis, cut to this shape: the first of each axis that is longer."""
        return samples[(slice(None), *map(slice, self.shape))]

    def placed(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Samples along the first axis, cut and as the model takes them."""
        samples = self.cut(samples)
        return np.asarray(samples[0]) if self.batch_axis is None else np.moveaxis(samples, 0, self.batch_axis)

    def to_json(self) -> dict[str, Any]:
        """Its fields; the batch axis where it is not the first."""
        value: dict[str, Any] = {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}
        return value if self.batch_axis == 0 else {**value, "batch_axis": self.batch_axis}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TensorSpec":
        return cls(value["name"], tuple(value["shape"]), value["dtype"], value.get("batch_axis", 0))


@dataclass(frozen=True)
class FreeSpec:
    """One input as a model declares it: its axes *per sample*, of a fixed size or by the name of a free one.

    Where the model says so, `columns` are the names of the numbers along its only axis, in their order; `mean` and
    `std`, of each channel, are what a picture is normalised by whose black is 0 and white 1; `missing`: NaN is one of
    its values; `classes` are the texts that it tells apart, in its numbering.
    """

    name: str
    axes: tuple[int | str, ...]
    dtype: str
    columns: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    missing: bool = False
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shape:
    """One of the shapes that inputs of variable lengths are tuned at, and how many calls of each round are of it."""

    inputs: tuple[TensorSpec, ...]
    calls: int = 1

    def to_json(self) -> dict[str, Any]:
        return {"calls": self.calls, "inputs": [spec.to_json() for spec in self.inputs]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Shape":
        return cls(tuple(map(TensorSpec.from_json, value["inputs"])), value["calls"])


def samples_in(batch: Arrays, specs: Sequence[TensorSpec]) -> int:
    """How many samples a batch has, as the model takes it; 1 where no input has an axis for them."""
    return next((batch[spec.name].shape[spec.batch_axis] for spec in specs if spec.batch_axis is not None), 1)
