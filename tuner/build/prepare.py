"""The float model on disk: loaded or trained, described and keyed, before the first trial."""

import contextlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tuner import catalog
from tuner.build.builder import Source
from tuner.build.overlap import shared
from tuner.build.samples import Kept, keep
from tuner.build.store import Store, content_digest
from tuner.dataset import ROLES, Dataset, Role, evaluation
from tuner.errors import CandidateError, RequestError
from tuner.model import Form, Model
from tuner.system.code import source_digest
from tuner.system.digests import digest, files_digest
from tuner.system.launcher import Launcher
from tuner.system.names import slug
from tuner.system.worker import Progress, Worker
from tuner.task import Call
from tuner.tensors import TensorSpec
from tuner.workload import Workload

_ARRAYS = "arrays"  # the stage of the store


@dataclass(frozen=True)
class Prepared:
    """The workload with its samples on disk, the float model there, how many samples each role has (0: none), and the
    digest of the files that hold them. `shared` says how many of another role are evaluation samples too."""

    workload: Workload
    source: Source
    samples: dict[Role, int]
    data: str
    shared: dict[Role, int]

    @property
    def content(self) -> dict[str, Any]:
        """What the study is about, by content: the model, the samples, the code of the metric and of a task that is not
        the usual one."""
        dataset, metric = self.workload.dataset, self.workload.metric
        content = {"model": self.source.model.key, "dataset": dataset.key()}
        task = {} if self.workload.task == Call() else {"task": self.workload.task.key()}
        output = {} if self.workload.metric_output is None else {"output": self.workload.metric_output}
        return {**content, "metric": metric, "code": source_digest(metric), **task, **output}

    def same_model(self, key: str) -> bool:
        """Whether that is the model's key, or was in the version before."""
        return key in (self.source.model.key, self.source.model.former)

    @property
    def digests(self) -> dict[str, str]:
        """The model and the data, each by what is in its files."""
        return {"model": self.source.model.key, "data": self.data}


def prepare(workload: Workload, store: Store, scratch: Path, launcher: Launcher, progress: Progress) -> Prepared:
    """Loads or trains the model in a worker. `progress` hears of training.

    Raises RequestError where the model, the dataset or the metric cannot be had, naming the key and the mend.
    """
    source, dataset = workload.model, workload.dataset
    log = store.root / f"{slug(workload.name)}.log"
    with contextlib.ExitStack() as stack:
        try:
            worker = stack.enter_context(launcher.near(source.form.ahead).open(log))
            at_home = worker
            if source.requirements:
                at_home = stack.enter_context(launcher.with_libraries_of(source).open(log))
            kept, made_from = _kept(dataset.fitting(at_home.run(source.declares)), store, scratch, worker, progress)
            made_up, dataset = dataset.made_up, Kept(kept, json.dumps(made_from), dataset.numbered)
            workload = replace(workload, dataset=dataset)
            samples, inputs = worker.run(_describe, dataset)
            seen = {} if made_up else worker.run(shared, dataset)
            key = source.key(dataset)
            if key is None:
                at_home.run_watched(progress, _write, workload, scratch)
                folder = scratch
            else:
                folder = store.make("float", key, lambda out: at_home.run_watched(progress, _write, workload, out))
            form = next((form for form in catalog.values(Form) if (folder / form.file).exists()), source.form)
            model = Model(form, folder, inputs)
            model, identity = worker.run(_described, model, dataset)
            content, former = (_content(name, model) for name in (identity, model.former))
        except CandidateError as error:
            raise RequestError(f"model {workload.name}: {error.sentence}; the log is {log}") from error
    return Prepared(
        workload, Source(replace(model, key=content, former=former), dataset), samples, content_digest(kept), seen
    )


def _content(identity: str, model: Model) -> str:
    return digest({"model": identity, "inputs": [spec.to_json() for spec in model.inputs]})


def _kept(
    dataset: Dataset, store: Store, scratch: Path, worker: Worker, progress: Progress
) -> tuple[Path, dict[str, Any]]:
    """Where the samples lie as arrays, and what decides them."""
    made_from = dataset.key()
    if made_from is not None:
        return store.make(_ARRAYS, made_from, lambda out: worker.run_watched(progress, keep, dataset, out)), made_from
    draft = scratch / "samples"
    draft.mkdir()
    worker.run_watched(progress, keep, dataset, draft)
    made_from = {"samples": files_digest(draft)}
    kept = store.make(_ARRAYS, made_from, lambda out: _move(draft, out))
    shutil.rmtree(draft)
    return kept, made_from


def _move(source: Path, out: Path) -> None:
    for path in source.iterdir():
        path.rename(out / path.name)


def _describe(dataset: Dataset) -> tuple[dict[Role, int], tuple[TensorSpec, ...]]:
    counts: dict[Role, int] = {}
    seen: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {}
    for role in ROLES:
        samples = dataset.load(role)
        counts[role] = 0 if samples is None else len(samples)
        if samples is not None and len(samples):
            inputs = {name: (value.shape, value.dtype.name) for name, value in samples[0][0].items()}
            if (first := seen.setdefault("evaluation", inputs)) != inputs:
                raise RequestError(f"dataset: its {role} samples have {inputs}, its evaluation samples {first}")
    if not counts["evaluation"]:
        raise RequestError("dataset: it has no evaluation samples")
    sample, _ = evaluation(dataset)[0]
    arrays = {name: np.asarray(value) for name, value in sample.items()}
    return counts, tuple(TensorSpec(name, array.shape, array.dtype.name) for name, array in arrays.items())


def _write(progress: Progress, workload: Workload, out: Path) -> None:
    workload.model.write(workload.dataset, out, progress)


def _described(model: Model, dataset: Dataset) -> tuple[Model, str]:
    model.form.check(model)
    model = model.form.described(model, evaluation(dataset))
    model = replace(model, output_names=model.form.output_names(model))
    return model, model.form.identity(model)
