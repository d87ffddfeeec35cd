"""Axes of variable length: the sizes that are declared for them, and the shapes that they give the inputs."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner.errors import RequestError
from tuner.forms import batch_axis
from tuner.forms.batch_axis import Answer
from tuner.system.said import first_line
from tuner.tensors import Arrays, Shape, TensorSpec

Axes = Mapping[str, Mapping[int, int]]
"""How many of every round of calls have each size, by the name of the axis."""
_FILE = "axes.json"


def declared(axes: Mapping[str, Any]) -> Axes:
    """The sizes that a person gave, as a list or with how many calls of a round have each. Raises RequestError."""
    for name, sizes in axes.items():
        calls = _calls(sizes)
        if not calls or not all(type(n) is int and n > 0 for n in (*calls, *calls.values())):
            raise RequestError(
                f"model.axes.{name}={sizes}: it takes sizes, [32,128], or how many calls of a round have each, "
                "{32:7,128:3}; whole numbers of 1 or more"
            )
    return {name: _calls(sizes) for name, sizes in axes.items()}


def _calls(sizes: Any) -> dict[int, int]:
    """How many calls of a round have each size; empty for what is no such thing."""
    if isinstance(sizes, list):
        return dict.fromkeys(sizes, 1)
    return sizes if isinstance(sizes, dict) else {}


def keep(axes: Axes, folder: Path) -> None:
    """Beside a model whose own file has no names of axes."""
    if axes:
        (folder / _FILE).write_text(json.dumps({name: list(calls.items()) for name, calls in axes.items()}))


def kept(folder: Path) -> Axes:
    file = folder / _FILE
    return {name: dict(calls) for name, calls in json.loads(file.read_text()).items()} if file.exists() else {}


def require_running(answer: Answer, shapes: Sequence[Shape], samples: Sequence[Arrays]) -> None:
    """Raises RequestError where the model does not run on these samples at one of the lengths."""
    for shape in shapes:
        try:
            answer(batch_axis.stacked(shape.inputs, samples))
        except Exception as error:  # whatever a runtime says
            sizes = {spec.name: spec.shape for spec in shape.inputs}
            raise RequestError(f"model.axes: the model does not run at {sizes}: {first_line(error)}") from error


def variable(shapes: Sequence[Shape], name: str) -> list[int]:
    """Which axes of that input, as the model takes it, are not of the same length in all shapes."""
    full = [spec.full(1) for shape in shapes for spec in shape.inputs if spec.name == name]
    return [place for place, sizes in enumerate(zip(*full, strict=True)) if len(set(sizes)) > 1]


@dataclass(frozen=True)
class Lengths:
    """`dims` are the axes of every input as the model takes them, each of a size, of a name, or free without one."""

    dims: Mapping[str, Sequence[int | str | None]]
    axes: Axes

    @classmethod
    def of(cls, dims: Mapping[str, Sequence[int | str | None]], axes: Axes) -> "Lengths":
        """Raises RequestError for an axis that no input has."""
        free = sorted({dim for each in dims.values() for dim in each if isinstance(dim, str)})
        for name in axes:
            if name not in free:
                raise RequestError(f"model.axes.{name}: no input has an axis of that name; the free ones are {free}")
        return cls(dims, axes)

    @classmethod
    def by_size(cls, specs: Sequence[TensorSpec], axes: Axes) -> "Lengths":
        """Of a model that names no axis: in the samples an axis is as long as its longest size. Raises RequestError
        where none is, or several are."""
        names = {max(sizes): name for name, sizes in axes.items()}
        dims: dict[str, list[int | str | None]] = {}
        for spec in specs:
            found = [name for size in spec.shape if (name := names.get(size))]
            if len(found) != len(set(found)):
                raise RequestError(
                    f"model.axes.{found[0]}: of input {spec.name!r} {spec.shape} several axes are of its longest size, "
                    "and a torch module names none; export it to ONNX with that axis named, and take model=onnx"
                )
            dims[spec.name] = [names.get(size, size) for size in spec.shape]
            if spec.batch_axis is not None:
                dims[spec.name].insert(spec.batch_axis, None)
        there = {dim for each in dims.values() for dim in each}
        for name, sizes in axes.items():
            if name not in there:
                shapes = ", ".join(f"{spec.name} {spec.shape}" for spec in specs)
                raise RequestError(
                    f"model.axes.{name}: the samples have no axis of {max(sizes)} ({shapes}); give them as long as the "
                    "longest, padded as the model takes them, and each axis a longest size of its own"
                )
        return cls(dims, axes)

    def names(self, spec: TensorSpec) -> dict[int, str]:
        """The variable axes of an input as the model takes it, by their place."""
        dims = enumerate(self.dims[spec.name])
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
