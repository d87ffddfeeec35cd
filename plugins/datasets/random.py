"""Made-up inputs, for a first look at speed: they tell nothing of accuracy."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

import numpy as np

from tuner.dataset import ArraySamples, Dataset, Role, unlabelled
from tuner.errors import RequestError
from tuner.system.fields import AtLeast
from tuner.tensors import FreeSpec

_CALIBRATION = 32


@dataclass(frozen=True)
class Random(Dataset):
    """`count` samples of noise in the shapes that the model declares: numbers of a normal distribution, whole ones
    from 0 to less than `below`, bytes of all values. `axes` are the sizes of its free axes, by name; `inputs` are
    shapes by name for a model that declares nothing, `dtypes` theirs where they are not float32.
    """

    count: Annotated[int, AtLeast(2)] = 128
    seed: Annotated[int, AtLeast(0)] = 0
    below: Annotated[int, AtLeast(1)] = 2
    axes: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, list[int]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    declared: tuple[Any, ...] = ()

    made_up: ClassVar[bool] = True

    def fitting(self, inputs: tuple[FreeSpec, ...]) -> Dataset:
        return replace(self, declared=tuple((spec.name, list(spec.axes), spec.dtype) for spec in inputs))

    def load(self, role: Role) -> ArraySamples | None:
        if role == "training":
            return None
        count = self.count if role == "evaluation" else _CALIBRATION
        random = np.random.default_rng([self.seed, len(role)])
        return ArraySamples(
            {name: self._noise(random, (count, *shape), np.dtype(dtype)) for name, shape, dtype in self._specs()},
            unlabelled(count),
        )

    def _specs(self) -> list[tuple[str, list[int], str]]:
        """Each input with its shape a sample. Raises RequestError where something of it is free."""
        given = {name: (shape, self.dtypes.get(name, "float32")) for name, shape in self.inputs.items()}
        specs = [(name, *given.get(name, (axes, dtype))) for name, axes, dtype in self.declared]
        specs += [(name, *spec) for name, spec in given.items() if name not in {known for known, *_ in specs}]
        if not specs:
            raise RequestError(
                "dataset.inputs must be given, for this model does not say what it takes: "
                "dataset.inputs.NAME=[3,224,224], and dataset.dtypes.NAME=int64 where it is not float32"
            )
        free = sorted({axis for _, axes, _ in specs for axis in axes if isinstance(axis, str)} - self.axes.keys())
        if free:
            takes = ", ".join(f"{name} ({', '.join(map(str, axes))})" for name, axes, _ in specs)
            raise RequestError(
                f"dataset.axes must say how long {free[0]!r} is, for the model takes {takes}: "
                f"'dataset.axes={{{free[0]}:128}}'"
            )
        return [(name, [self.axes.get(axis, axis) for axis in axes], dtype) for name, axes, dtype in specs]

    def _noise(self, random: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
        if dtype.kind == "f":
            return random.standard_normal(shape, np.float32).astype(dtype)
        high = 256 if dtype == np.uint8 else 2 if dtype.kind == "b" else self.below
        return random.integers(0, high, shape).astype(dtype)
