"""Samples by role, and where they come from.

A dataset is a small frozen value that pickles; arrays come into being only in the worker that calls `load`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from tuner.system.code import source_digest
from tuner.system.loader import Checked
from tuner.tensors import Arrays, FreeSpec, Shape

Role = Literal["evaluation", "calibration", "training"]
LABEL = "label"  # among the names of a file's arrays; the others are inputs
ROLES: tuple[Role, ...] = ("evaluation", "calibration", "training")


class Samples(Protocol):
    """Map-style samples: the inputs by name (no batch axis) and the label; NaN where nobody knows it."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Arrays, Any]: ...


@dataclass(frozen=True)
class ArraySamples:
    """Samples held as arrays whose first axis counts them: all of them, or those `rows`. Arrays may lie on disk."""

    inputs: Arrays
    labels: NDArray[Any]
    rows: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.labels if self.rows is None else self.rows)

    def __getitem__(self, index: int) -> tuple[Arrays, Any]:
        row = index if self.rows is None else self.rows[index]
        return {name: array[row] for name, array in self.inputs.items()}, self.labels[row]

    def part(self, part: slice) -> tuple[Arrays, NDArray[Any]]:
        """Some of them at once."""
        rows = part if self.rows is None else self.rows[part]
        return {name: array[rows] for name, array in self.inputs.items()}, self.labels[rows]


def unlabelled(count: int) -> NDArray[Any]:
    """The labels of so many samples of which nobody knows what is right."""
    return np.full(count, np.nan)


def labelled(labels: NDArray[Any]) -> bool:
    """Whether somebody knows what is right for these samples."""
    return not (labels.dtype.kind == "f" and bool(np.isnan(labels).all()))


def not_finite(samples: Samples) -> str:
    """The first of their numbers that is NaN or infinite, for a sentence; empty where there is none."""
    done = 0
    for inputs, labels in batches(samples, 256):
        for name, array in inputs.items():
            if array.dtype.kind == "f" and not (finite := np.isfinite(array).reshape(len(array), -1).all(axis=1)).all():
                return (
                    f"input {name!r} of evaluation sample {done + int(finite.argmin())} is not finite: mend the dataset"
                )
        done += len(labels)
    return ""


def batches(samples: Samples, batch_size: int) -> Iterator[tuple[Arrays, NDArray[Any]]]:
    """Stacks samples in order; the last batch may be short."""
    for start in range(0, len(samples), batch_size):
        stop = min(start + batch_size, len(samples))
        if isinstance(samples, ArraySamples):
            yield samples.part(slice(start, stop))
            continue
        rows = [samples[i] for i in range(start, stop)]
        yield (
            {name: np.stack([inputs[name] for inputs, _ in rows]) for name in rows[0][0]},
            np.array([label for _, label in rows]),
        )


class Dataset(Checked, ABC):
    """Where samples come from, by role. Without a training role, transforms that train are left out."""

    family: ClassVar[str] = "tuner.plugins.datasets"
    metric: ClassVar[str | None] = None
    """What judges answers for it where the configuration says nothing."""
    made_up: ClassVar[bool] = False
    """Whether its samples are noise, so that nothing is claimed of accuracy."""
    suffixes: ClassVar[Mapping[str, str]] = {}
    """By the suffix of a `path` that no other dataset takes, the name of its YAML in conf/dataset."""

    @property
    def numbered(self) -> int | None:
        """How many classes it numbered by itself, in an order of its own, which may not be the model's; None where the
        labels are the user's own."""
        return None

    @abstractmethod
    def load(self, role: Role) -> Samples | None:
        """The samples of a role, or None where the dataset has none. Called in workers.

        The roles share no sample. The evaluation order is fixed: scores are compared sample by sample.
        Raises RequestError where a file is missing or malformed.
        """

    def fitting(self, inputs: tuple[FreeSpec, ...]) -> "Dataset":
        """The dataset for a model that declares those inputs; itself, unless its samples depend on them."""
        return self

    def key(self) -> dict[str, Any] | None:
        """What decides the samples, as JSON: the class, its fields and its code. None where only the samples
        themselves tell: they are then loaded for every study."""
        kind = type(self)
        settings = {f.name: getattr(self, f.name) for f in fields(cast(Any, self))}
        return {"class": kind.__qualname__, "code": source_digest(kind.__module__), **settings}


def shaped(samples: Samples, shapes: Sequence[Shape], batch_size: int) -> Iterator[tuple[Arrays, NDArray[Any]]]:
    """The samples in batches, samples first, each batch of one of the shapes: they are dealt to the shapes in rounds of
    as many as these have calls. The order does not depend on the batch size."""
    deal = [number for number, shape in enumerate(shapes) for _ in range(shape.calls)]
    for number, shape in enumerate(shapes):
        mine = [i for i in range(len(samples)) if deal[i % len(deal)] == number]
        for start in range(0, len(mine), batch_size):
            rows = [samples[i] for i in mine[start : start + batch_size]]
            stacked = {spec.name: spec.cut(np.stack([row[spec.name] for row, _ in rows])) for spec in shape.inputs}
            yield stacked, np.array([label for _, label in rows])


def evaluation(dataset: Dataset) -> Samples:
    samples = dataset.load("evaluation")
    assert samples is not None, "every dataset has evaluation samples"
    return samples
