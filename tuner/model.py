"""A model: where it comes from, what it is on disk, and what it must at least do.

Everything here is a small frozen value that pickles; modules come into being only in the worker that calls `write`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tuner.dataset import Dataset, Samples, batches
from tuner.system.digests import digest, files_digest
from tuner.system.loader import Checked
from tuner.system.worker import Progress
from tuner.tensors import Arrays, FreeSpec, Shape, TensorSpec


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
    ahead: ClassVar[tuple[str, ...]] = ()
    """What its models are read with, as it is imported, where that takes seconds and starts no thread: processes may be
    forked from one that has done so."""

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
    `output_names` are there where the form has any. `former` is the identity that the version before gave it, where it
    gave another: with it champions are registered.
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
    former: str = ""

    @property
    def path(self) -> Path:
        return self.directory / self.form.file


def fed(samples: Samples, model: Model, batch_size: int) -> Iterator[Arrays]:
    """Whole batches in order, as the model takes them: of `batch_size`, unless it takes but one."""
    size = model.batch_size or batch_size
    for inputs, labels in batches(samples, size):
        if len(labels) == size:
            yield {spec.name: spec.placed(inputs[spec.name]) for spec in model.inputs}


class ModelSource(Checked, ABC):
    """Where the float model comes from."""

    family: ClassVar[str] = "tuner.plugins.models"
    form: ClassVar[Form]
    files: ClassVar[Mapping[str, str]] = {}
    """By the suffix of a file that it takes as `path`, the name of its YAML in conf/model; "/config.json" is a folder
    that has such a file."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """The distributions that read it, where another version of one may be tried for it."""
    requirements: ClassVar[tuple[str, ...]] = ()
    """For pip, where its libraries fit nobody else's: `declares` and `write` are then called in an environment that is
    made of them, in which the tuner is found too."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    def key(self, dataset: Dataset) -> dict[str, Any] | None:
        """What decides the result of `write`, as JSON, where that is costly and worth keeping; else None."""
        return None

    def ahead(self) -> tuple[str, ...]:
        """Modules that take seconds to import, start no thread by that, and are needed by whoever loads the model as
        `form` has it."""
        return ()

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
