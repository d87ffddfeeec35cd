"""What a model is, found out on made-up inputs before there are any samples."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.build.prepare import prepare
from tuner.build.routes import conversions
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.dataset import Dataset
from tuner.errors import CandidateError, RequestError
from tuner.evaluate.rig import Rig
from tuner.evaluate.standing import counted
from tuner.measure import host
from tuner.metrics import UNJUDGED
from tuner.model import Form, Model, ModelSource, Work
from tuner.plugin import Backend, Plugin, Transform
from tuner.search.space import Space
from tuner.system.launcher import Launcher
from tuner.system.names import slug
from tuner.target import Target
from tuner.tensors import FreeSpec
from tuner.trial import TrialLimits
from tuner.workload import Workload

TRIED = 16  # the size of a free axis, where the model is only looked at
_LIMIT_S = 120.0
_CALLS_S = 0.5


@dataclass(frozen=True)
class Description:
    """A model as it answered made-up inputs: `inputs` as it declares them, `outputs` as shapes and dtypes of a batch of
    `batch_size`, `size_mb` on disk. `call_ms` is the least duration of a call on the reference backend."""

    model: Model
    inputs: tuple[FreeSpec, ...]
    outputs: tuple[tuple[str, tuple[int, ...], str], ...]
    batch_size: int
    size_mb: float
    work: Work | None
    call_ms: float

    @property
    def free(self) -> list[str]:
        """The names of free axes."""
        return list(dict.fromkeys(axis for spec in self.inputs for axis in spec.axes if isinstance(axis, str)))


def launcher(environments: Path, model: ModelSource, say: Callable[[str], None]) -> Launcher:
    """How the model is looked at. The environment that it needs is made first, where it is not kept among
    `environments`, which `say` is told. Raises RequestError where it cannot be made."""
    import psutil

    started = Launcher(0.75 * psutil.virtual_memory().total / 1e6, {}, environments)
    started.provide(model, environments.parent / f"{slug(model.name)}.log", say)
    return started


def declared(model: ModelSource, launcher: Launcher) -> tuple[FreeSpec, ...]:
    """What the model declares that it takes. Raises RequestError."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with launcher.with_libraries_of(model).open(Path(scratch) / "log") as worker:
                return worker.run(model.declares)
        except CandidateError as error:
            raise RequestError(
                f"model {model.name} cannot be looked at: {error.sentence}; make its file anew"
            ) from error


def inspect(
    model: ModelSource,
    inputs: tuple[FreeSpec, ...],
    samples: Dataset,
    reference: Mapping[str, Backend],
    target: Target,
    limits: TrialLimits,
    launcher: Launcher,
) -> Description:
    """Runs the model, which declares those `inputs`, on samples once. Leaves nothing behind. Raises RequestError where
    it does not run."""
    with tempfile.TemporaryDirectory() as folder:
        scratch, store = Path(folder) / "model", Store(Path(folder))
        scratch.mkdir()
        prepared = prepare(Workload(model, samples, UNJUDGED), store, scratch, launcher, lambda *_: None)
        ready = prepared.source.model
        rig = Rig(prepared, target, store, launcher, limits, Path(folder))
        candidate = Candidate((), reference[ready.form.name], ready.batch_size or 1)
        try:
            with rig.hosting(rig.built(candidate), candidate, rig.deadline()) as worker:
                _, outputs = worker.run_for(_LIMIT_S, host.example)
                call_ms = worker.run_for(_LIMIT_S, host.warm_up, _CALLS_S)
        except CandidateError as error:
            raise RequestError(
                f"model {model.name} does not run on {candidate.backend.label} with made-up inputs: {error.sentence}"
            ) from error
        size_mb = sum(file.stat().st_size for file in ready.directory.rglob("*") if file.is_file()) / 1e6
        shapes = tuple((_called(ready, n), output.shape, output.dtype.name) for n, output in enumerate(outputs))
        return Description(ready, inputs, shapes, candidate.batch_size, size_mb, counted(rig, candidate), call_ms)


def takers(model: Model, space: Space, target: Target) -> dict[Plugin, str | None]:
    """The plugins of a space, each with why it does not take the model; None where it does."""
    reasons: dict[Plugin, str | None] = {}
    for plugin in space.plugins:
        forms = (
            plugin.accepts if isinstance(plugin, Backend) else (plugin.takes,) if isinstance(plugin, Transform) else ()
        )
        wanted = " or ".join(map(str, forms))
        other = None if conversions(model.form, forms) is not None else f"takes {wanted}, and the model is {model.form}"
        reasons[plugin] = plugin.elsewhere(target) or other
    return reasons


def _takes(plugin: Plugin) -> tuple[Form, ...]:
    return (plugin.takes,) if isinstance(plugin, Transform) else ()


def _called(model: Model, number: int) -> str:
    return model.output_names[number] if number < len(model.output_names) else f"output {number}"
