"""The two seams: a transform changes a model, a backend compiles one and runs it.

A plugin is a frozen dataclass whose fields are its parameters (JSON values), in one file of its own under `plugins/`.
It imports its heavy library inside its methods, because the parent process builds candidates but must load no runtime.
It may raise `CandidateError` with a sentence for a person; anything else it raises is recorded as `error`.
"""

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from tuner.dataset import Dataset, Role
from tuner.model import Form, Model
from tuner.operators import OperatorTime
from tuner.system.loader import Checked
from tuner.system.said import last_line
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec

Precision = Literal["f32", "tf32", "bf16", "f16"]
"""Of arithmetic. tf32 keeps tensors in float32, and NVIDIA's tensor cores multiply them rounded to 10 bits."""
Quantized = Literal["int8", "int4", "f8"]
_LATER = "later"  # in the metadata of a field


@dataclass(frozen=True)
class Plugin(Checked):
    """What transforms and backends share. Two equal plugins give the same result.

    Fields are checked against their annotations: `Literal["f32", "bf16"]`, `Annotated[float, Above(0), Below(1)]` and
    so on (`tuner.system.loader`), and raise RequestError where they do not fit.
    """

    libraries: ClassVar[tuple[str, ...]] = ()
    """The distributions that do its work; their versions are part of every key and manifest."""
    requirements: ClassVar[tuple[str, ...]] = ()
    """For pip, where its libraries fit nobody else's: its workers then run in an environment that is made of them."""

    slow: ClassVar[bool] = False
    """Whether building with it takes half a minute or more, where others take seconds: a search begins with the others.
    """
    devices: ClassVar[tuple[str, ...] | None] = None
    """The names of the devices that it works for; None is any."""

    @property
    def label(self) -> str:
        """A few characters for tables and run names, such as `int8-static`. It tells equal classes apart by
        the parameters that matter to a reader."""
        return type(self).__name__.lower()

    @property
    def computes_in(self) -> str | None:
        """The precision that it has the device compute in; None where that is not its affair."""
        return None

    def elsewhere(self, target: Target) -> str | None:
        """Why it is not for the target's device, or computes in a precision that this has not, in one line; None if it
        is. Asked first, and without its library."""
        if self.devices is not None and target.device not in self.devices:
            places = " and ".join(self.devices)
            return f"{self.label} works for {places} devices only, and target={target.name} is {target.hardware.kind}"
        if target.precisions and self.computes_in not in (None, *target.precisions):
            native = ", ".join(target.precisions)
            return f"{self.label} computes in {self.computes_in}, and target={target.name} in {native} only"
        return None

    def unavailable(self, target: Target) -> str | None:
        """Why this plugin cannot work for the target on this machine, in one line with the mend; None if it can.

        Called in a worker before the first trial, and by `tune doctor`: it may import its library, and must not raise.
        """
        return None


class Transform(Plugin, ABC):
    """Model in, model out: a quantizer, a pruner, a distiller."""

    family: ClassVar[str] = "tuner.plugins.transforms"
    takes: ClassVar[Form]
    gives: ClassVar[Form]
    role: ClassVar[Role | None] = None
    """The samples it needs; without them it is left out of the space."""
    weights: ClassVar[Quantized | None] = None
    """What it stores weights as; None where it leaves them as they are."""
    activations: ClassVar[Quantized | None] = None
    """What flows between the layers that it quantizes: with weights alike, their arithmetic. None leaves it as it is,
    so that such a layer computes in the backend's precision."""
    hardest: ClassVar[Mapping[str, Literal["low", "high"]]] = {}
    """The fields (numbers) that say how hard it compresses, and the end at which it does most: a search soon tries it
    there, together with all else that compresses."""
    bound: ClassVar[str | None] = None
    """The field that bounds what it may do to the outputs: None is as it comes, and the less, the more careful. Where a
    candidate loses more accuracy than is allowed, a search soon tries the next that its space has."""

    @property
    def usual(self) -> bool:
        """Whether an engineer would try it first, alone on each backend: what quantizes, as it comes, unless a subclass
        knows better. A search begins with it."""
        return self.quantizes and as_it_comes(self)

    @property
    def computes_in(self) -> str | None:
        return self.activations

    @property
    def quantizes(self) -> bool:
        return self.weights is not None or self.activations is not None

    @abstractmethod
    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        """Writes the changed model as `out / gives.file`, its batch axis still free. Called once for every
        distinct model and parameters, in a worker; the engine keeps the result."""

    def stages(self) -> tuple["Transform", ...]:
        """What to apply for it, one after the other; itself, unless it trains.

        The first settles the structure, and with it the speed. Those that follow change weights only, each from what
        the one before left: a study measures the first, and goes on only while the candidate is worth it.
        """
        return (self,)

    def groundwork(self) -> "Transform | None":
        """What to apply before this stage, where other parameters need the same: it is done once for all of them."""
        return None


class Stage(Transform):
    """A part of a transform, which names it in `stages` or `groundwork`; a space never does."""

    family: ClassVar[str] = "tuner.plugins.transforms"


class Conversion(Transform):
    """The same model in another form: a transform without parameters, which no space names.

    The engine finds it by route: from the form that a model has to one that a transform takes or a backend accepts.
    """

    family: ClassVar[str] = "tuner.plugins.conversions"

    @abstractmethod
    def convert(self, model: Model, out: Path) -> None:
        """Writes the model as `out / gives.file`, its batch axis still free. Called once for every distinct model, in a
        worker. Raises CandidateError("unsupported_op") for what it cannot express."""

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        self.convert(model, out)


class Session(ABC):
    """A loaded artifact, ready to answer. Made and used in one process."""

    @abstractmethod
    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Answers one batch, shapes `spec.full(batch_size)`; returns when the outputs are in host memory.

        It never changes `inputs`; what it returns is the caller's, and no later call changes it: a runtime that hands
        out its own memory has it copied here, for what is timed is what is used.
        """

    def now(self) -> float:
        """What the time is by the clock that its calls are timed with, s: this machine's, unless it keeps its own, as a
        simulator does."""
        return time.perf_counter()


@dataclass(frozen=True)
class Native:
    """How another server runs what a backend compiled, with a runtime of the same kind: what it calls that `runtime`,
    the `settings` with which it computes as was measured, the names of the model's outputs in their order, and whether
    the files take a batch of any size."""

    runtime: str
    settings: Mapping[str, str]
    outputs: tuple[str, ...] = ()
    any_batch: bool = False


class Backend(Plugin, ABC):
    """A compiler and its runtime."""

    family: ClassVar[str] = "tuner.plugins.backends"
    variable: ClassVar[bool] = False
    """Whether what it compiles takes inputs of any length where the model does; else each declared length is compiled
    for itself."""
    records: ClassVar[tuple[str, ...]] = ()
    """The files in a folder of its `cache` that hold what it found out by tuning, and may be carried to another. Who
    writes them holds the lock of the file `lock` there; a file `imported` says that another machine measured some."""
    accepts: ClassVar[tuple[Form, ...]]
    """Forms it compiles, best first; the engine converts the model to one of them by the shortest route."""

    @property
    def arithmetic(self) -> Precision:
        """The precision in which it runs what no transform has quantized."""
        return "f32"

    @property
    def computes_in(self) -> str | None:
        return self.arithmetic

    @property
    def untuned(self) -> bool:
        """Whether an engineer has it so before tuning: in float32, and as it comes. To multiply that in TF32 is no
        tuning: some runtimes do by themselves."""
        return as_it_comes(self)

    @abstractmethod
    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        """Fills the folder `out` with what `load` needs. Called in a worker; the engine keeps the result.

        `cache` is a folder that outlives studies, private to this plugin's class (tuning records, say); it may be
        used by several processes at once.
        """

    def crosses(self, target: Target) -> str | None:
        """Why it cannot compile for the target where its device is not, in one line; None if it can. Called in a
        worker, for `compile_only=true`: it may import its library, and must not raise."""
        return f"{self.label} compiles only where its device is"

    def rungs(self) -> tuple["Backend", ...]:
        """Itself with less effort first (schedules tried, say), each starting from what the one before left in `cache`.

        A study climbs to the next rung only while the candidate is worth it.
        """
        return (self,)

    @abstractmethod
    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        """Loads what `compile` wrote. Called in fresh processes that import no search code; it imports this
        backend's own runtime and nothing it can do without."""

    def load_replicas(
        self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target, replicas: int
    ) -> list[Session]:
        """So many sessions that share the target's cores, each for a thread of its own. A runtime with streams of its
        own may do better than to load as many times."""
        return [self.load(folder, inputs, batch_size, target.share(replicas)) for _ in range(replicas)]

    def operator_times(
        self, folder: Path, inputs: tuple[TensorSpec, ...], target: Target, batch: Arrays
    ) -> list[OperatorTime]:
        """What each operator takes of a call with that whole batch, by the runtime's own clock, in the order in which
        they run; nothing where it has no such clock. Called once a study, to say why int8 gained what it did."""
        return []

    def native(self, server: str, folder: Path, target: Target, replicas: int) -> Native | str:
        """How a server ("triton", "openvino-model-server") runs by itself what `compile` wrote in `folder`, on the
        target's cores; else why it cannot, in a few words. Called by `tune export`."""
        return f"{server} has no runtime for what {self.label} compiles"

    def loader(self, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> str | None:
        """A few lines of Python that load, with nothing but `libraries`, what `compile` wrote in the folder `files`
        (a `Path` that is there), and define `run(inputs)` as `Session.run` is. None where it takes more than that, code
        of the model's own above all. Called by `tune export`."""
        return None


def missing(library: str, install: str | None = None) -> str | None:
    """Why a library does not import, in one line with the mend; None where it does.

    `install` is what pip is asked for, such as `inference-tuner[openvino]`; None is the library's own name.
    """
    try:
        importlib.import_module(library)
    except Exception as error:  # a broken installation raises whatever it likes
        return f"{library} does not import ({last_line(error)}); pip install '{install or library}'"
    return None


def as_it_comes(plugin: Plugin) -> bool:
    """Whether every parameter has its default."""
    return all(getattr(plugin, each.name) == each.default for each in fields(plugin))


def later(default: Any) -> Any:
    """The default of a field that a plugin got after it had been released: such a value is left out of the plugin's
    JSON, so that what was kept, or registered, before is still found."""
    return field(default=default, metadata={_LATER: True})


def encode(plugin: Plugin) -> dict[str, Any]:
    """The plugin as JSON: `_target_` and every field, defaults included, but for those that came `later`.
    `tuner.system.loader.build` reads it."""
    kind = type(plugin)
    values = {
        each.name: _plain(getattr(plugin, each.name))
        for each in fields(plugin)
        if not (_LATER in each.metadata and getattr(plugin, each.name) == each.default)
    }
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **values}


def _plain(value: Any) -> Any:
    return encode(value) if isinstance(value, Plugin) else value
