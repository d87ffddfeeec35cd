"""Axes of variable length: the sizes that are declared for them, and the shapes that they give the inputs."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.errors import RequestError
from tuner.forms.onnx import GraphInput
from tuner.tensors import Shape, TensorSpec


@dataclass(frozen=True)
class Lengths:
    """`axes`: how many of every round of calls have each size, by the name that the graph has for the axis."""

    inputs: Mapping[str, GraphInput]
    axes: Mapping[str, Mapping[int, int]]

    @classmethod
    def of(cls, inputs: Mapping[str, GraphInput], axes: Mapping[str, Mapping[int, int]]) -> "Lengths":
        """Raises RequestError for an axis that no input has."""
        free = sorted({dim for each in inputs.values() for dim in each.dims or () if isinstance(dim, str)})
        for name in axes:
            if name not in free:
                raise RequestError(f"model.axes.{name}: no input has an axis of that name; the free ones are {free}")
        return cls(inputs, axes)

    def names(self, spec: TensorSpec) -> dict[int, str]:
        """The variable axes of an input as the model takes it, by their place."""
        dims = enumerate(self.inputs[spec.name].dims or ())
        return {place: str(dim) for place, dim in dims if dim in self.axes and place != spec.batch_axis}

    def largest(self, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """The inputs at the largest size of every axis. Raises RequestError where the samples are shorter."""
        return self._at(specs, {name: max(sizes) for name, sizes in self.axes.items()})

    def shapes(self, specs: Sequence[TensorSpec]) -> tuple[Shape, ...]:
        """Every combination of sizes, and how many of a round of calls have it; none where nothing is variable."""
        if not self.axes:
            return ()
        every = [
            Shape(
                self._at(specs, dict(zip(self.axes, sizes, strict=True))),
                math.prod(calls[size] for calls, size in zip(self.axes.values(), sizes, strict=True)),
            )
            for sizes in itertools.product(*self.axes.values())
        ]
        common = math.gcd(*(shape.calls for shape in every))
        return tuple(replace(shape, calls=shape.calls // common) for shape in every)

    def _at(self, specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> tuple[TensorSpec, ...]:
        return tuple(self._sized(spec, sizes) for spec in specs)

    def _sized(self, spec: TensorSpec, sizes: Mapping[str, int]) -> TensorSpec:
        shape = list(spec.shape)
        for place, name in self.names(spec).items():
            after = spec.batch_axis is not None and place > spec.batch_axis
            if shape[place - after] < sizes[name]:
                raise RequestError(
                    f"model.axes.{name}: {sizes[name]} is declared, but the samples of input {spec.name!r} have "
                    f"{shape[place - after]} there; give them as long as the longest, padded as the model takes them"
                )
            shape[place - after] = sizes[name]
        return replace(spec, shape=tuple(shape))
