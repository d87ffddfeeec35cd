"""What is tuned: a model, the dataset that judges it, and the metric.

Everything here is a small frozen value that pickles; arrays and modules come into being only in the worker
that calls `load` or `write`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from tuner.judging import Judging
from tuner.metrics import AUTO, UNJUDGED
from tuner.system.code import source_digest
from tuner.system.digests import digest, files_digest
from tuner.system.loader import Checked
from tuner.system.worker import Progress
from tuner.task import Call, Task
from tuner.tensors import FreeSpec as FreeSpec
from tuner.tensors import Shape as Shape
from tuner.tensors import TensorSpec as TensorSpec

Arrays = dict[str, NDArray[Any]]
Role = Literal["evaluation", "calibration", "training"]
LABEL = "label"  # among the names of a file's arrays; the others are inputs
ROLES: tuple[Role, ...] = ("evaluation", "calibration", "training")


@dataclass(frozen=True)
class Work:
    """The least that a model must do.

    `flops` per sample: two for each multiply-add of its convolutions and matrix products, in whatever precision they
    run. What is done element by element (activations, normalisations, pooling, softmax, quantization) is not counted,
    as is usual: compilers fuse it away. `weights` counts the constants of the graph and `weight_bytes` their size as
    stored. `activation_bytes` per sample are the model's own inputs and outputs; what passes between its layers may
    stay in a cache.
    """

    flops: int
    weights: int
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class Form:
    """What a model is on disk: a graph, a saved module, a folder of several files.

    A value at the top of a module of `tuner/forms/`, or of one that another distribution names by an entry point. What
    a form is asked, it is asked in a worker; `file` is the one in a model's folder that refers to the others.
    """

    name: str
    file: str

    family: ClassVar[str] = "tuner.forms"
    framework: ClassVar[bool] = False
    """Whether its models run, uncompiled, in the framework they were made in: then that is the first baseline."""
    counted: ClassVar[bool] = False
    """Whether `work` can tell."""

    def check(self, model: "Model") -> None:
        """Raises RequestError unless the float model takes what the samples give (`model.inputs`), with the mend."""

    def described(self, model: "Model", samples: "Samples") -> "Model":
        """The float model with what the form finds out about it: batch axes, the only batch size that it takes.
        `samples` are those that it is judged by."""
        return model

    def identity(self, model: "Model") -> str:
        """Hexadecimal digits that stand for the content of the float model, and not for how it came to be saved."""
        return digest({self.file: files_digest(model.directory)})

    def output_names(self, model: "Model") -> tuple[str, ...]:
        """The names of the float model's outputs, in the order in which they are answered, where it has names."""
        return ()

    def work(self, model: "Model") -> Work | None:
        """What the model must do for a sample; None where that cannot be counted."""
        return None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Model:
    """A model on disk: `directory` has the file that its form names, and what that refers to.

    `outputs` are the batch axes of its outputs, None where one has none; where it is empty they all begin with the
    batch. `batch_size` is the only one that it takes, and `fixed` says why in a line; None is any. `quantized`: it came
    as int8 already, and is taken as it is. `shapes` are those of inputs of variable lengths, and `inputs` then the
    largest; where it is empty there is but one. `key` stands for its content in the keys of what is made of it.
    `output_names` are there where the form has any.
    """

    form: Form
    directory: Path
    inputs: tuple[TensorSpec, ...]
    key: str = ""
    outputs: tuple[int | None, ...] = ()
    batch_size: int | None = None
    fixed: str = ""
    quantized: bool = False
    shapes: tuple[Shape, ...] = ()
    output_names: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return self.directory / self.form.file


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


def fed(samples: Samples, model: Model, batch_size: int) -> Iterator[Arrays]:
    """Whole batches in order, as the model takes them: of `batch_size`, unless it takes but one."""
    size = model.batch_size or batch_size
    for inputs, labels in batches(samples, size):
        if len(labels) == size:
            yield {spec.name: spec.placed(inputs[spec.name]) for spec in model.inputs}


class Dataset(Checked, ABC):
    """Where samples come from, by role. Without a training role, transforms that train are left out."""

    family: ClassVar[str] = "tuner.plugins.datasets"
    metric: ClassVar[str | None] = None
    """What judges answers for it where the configuration says nothing."""
    made_up: ClassVar[bool] = False
    """Whether its samples are noise, so that nothing is claimed of accuracy."""

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


class ModelSource(Checked, ABC):
    """Where the float model comes from."""

    family: ClassVar[str] = "tuner.plugins.models"
    form: ClassVar[Form]
    files: ClassVar[Mapping[str, str]] = {}
    """By the suffix of a file that it takes as `path`, the name of its YAML in conf/model; "/" is a folder."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def key(self, dataset: Dataset) -> dict[str, Any] | None:
        """What decides the result of `write`, as JSON, where that is costly and worth keeping; else None."""

    def declares(self) -> tuple[FreeSpec, ...]:
        """What the model declares that it takes; nothing where only samples tell. Called in a worker."""
        return ()

    def modules(self) -> tuple[str, ...]:
        """The modules of one's own code that the model needs when it is loaded again: they are registered with it."""
        return ()

    @abstractmethod
    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        """Writes the float model as `out / form.file`, or as the file of another form where only its content tells
        which it is. Called in a worker, once a study.

        Raises RequestError where the model cannot be loaded.
        """


@dataclass(frozen=True)
class Workload:
    """Model + dataset + metric + task. `metric` is `module:name` of one (`tuner.metrics`), accuracy is its value, and
    `metric_output` the name or the number of the output that it judges, where it is not to be found. `task` is what one
    timed unit of work is. `judging` is what the float model's answers settled of it."""

    model: ModelSource
    dataset: Dataset
    metric: str = AUTO
    task: Task = field(default_factory=Call)
    metric_output: str | None = None
    judging: Judging | None = None

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def judged(self) -> bool:
        """Whether anything is said of accuracy: nothing is where the inputs are made up."""
        return self.metric != UNJUDGED

    @property
    def judge(self) -> Judging:
        """How candidates are judged: known once the float model has answered."""
        assert self.judging is not None, "nothing is judged before the float model"
        return self.judging


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
