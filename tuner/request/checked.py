"""From a composed configuration to checked values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
from omegaconf import DictConfig, OmegaConf

from tuner import catalog
from tuner.dataset import Dataset
from tuner.errors import RequestError
from tuner.figures import TABLE, figures
from tuner.goal import Goal
from tuner.metrics import AUTO, UNJUDGED, find, named, short
from tuner.model import Form, ModelSource
from tuner.plugin import Backend
from tuner.request.request import Request
from tuner.request.schema import limit_keys
from tuner.request.tracking import tracking
from tuner.result import StudyFolder
from tuner.search.space import Space
from tuner.system.fields import shown
from tuner.system.files import folder
from tuner.system.loader import build, fill, mapping
from tuner.system.names import LONGEST
from tuner.system.spelling import unknown_name
from tuner.target import Target
from tuner.task import Call, Task
from tuner.trial import TrialLimits
from tuner.workload import Workload

_CHOICES = {
    "sampler": ("auto", "gp", "tpe", "nsga2", "random", "brute"),
    "install": ("ask", "auto"),
    "promote": ("ask", "auto"),
}
_FROM_TO = {"n_trials": (1, 10**6), "timeout_s": (1, 10**8), "patience": (1, 10**6), "seed": (0, 2**32 - 1)}
_LONGEST_LABEL = 200
_RESERVED = ("mlflow.db", "mlartifacts", "optuna.journal")  # other things in out_dir begin so


@dataclass(frozen=True)
class _Sampler:
    name: str


def from_config(config: DictConfig, overrides: tuple[str, ...]) -> Request:
    """Builds and checks every value of a composed configuration."""
    values = _resolved(config)
    out_dir = folder(values["out_dir"])
    where = tracking(values["tracking"], out_dir)
    sampler = fill(_Sampler, mapping(values["sampler"], "sampler"), "sampler").name
    _check_keys({**values, "sampler": sampler})
    workload = _workload(values)
    if not workload.judged:
        _check_claims(values, overrides)
    _check_drop(values["accuracy_drop"], workload)
    target = _target(values["target"])
    return Request(
        target=target,
        workload=workload,
        goal=_goal(values),
        space=Space.parse(values["search_space"]),
        reference=_reference(values["reference"], workload.model.form, target),
        sampler=sampler,
        n_trials=values["n_trials"],
        timeout_s=values["timeout_s"],
        patience=values["patience"],
        stop_when_feasible=values["stop_when_feasible"],
        warm_start=values["warm_start"],
        limits=_trial_limits(values["trial"] or {}),
        seed=values["seed"],
        install=values["install"],
        compile_only=values["compile_only"],
        promote=values["promote"],
        watch=values["watch"],
        on_regression=values["on_regression"],
        study=values["study"],
        out_dir=out_dir,
        cache_dir=folder(values["cache_dir"]),
        tracking=where,
        executor=mapping(values["executor"], "executor"),
        overrides=overrides,
        resolved=_without_others(values),
    )


def _target(node: Any) -> Target:
    target: Target = build(node, Target, "target")
    if (target.memory_gb_s is None) == bool(target.peak_tflops):
        raise RequestError(
            "target.peak_tflops and target.memory_gb_s: give both, or neither to have them measured on a CPU"
        )
    return target


def _resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain JSON. Raises RequestError where a key still has to be given."""
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise RequestError(f"{missing[0]} must be given: {missing[0]}=…")
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def _check_keys(values: Mapping[str, Any]) -> None:
    """What a type alone does not say of the keys at the top."""
    for key, (least, most) in _FROM_TO.items():
        if values[key] is not None and not least <= values[key] <= most:
            raise RequestError(f"{key}={shown(values[key])} must be {least} or more, and {most} at most")
    for key, choices in _CHOICES.items():
        if values[key] not in choices:
            raise RequestError(unknown_name(values[key], choices, f"{key}="))
    if not str(values["out_dir"]).strip() or not str(values["cache_dir"]).strip():
        raise RequestError("out_dir and cache_dir must name a folder")
    if values["study"] is not None:
        _check_study(values["study"], folder(values["out_dir"]))


def _check_study(name: str, out_dir: Path) -> None:
    """Raises RequestError unless that may be the folder of a study."""
    if not re.fullmatch(r"\w[\w.\-]*", name) or len(name.encode()) > LONGEST:
        raise RequestError(
            f"study={shown(name)} must be letters, digits, '.', '_' and '-', a letter, digit or '_' first, and "
            f"{LONGEST} bytes at most"
        )
    there = StudyFolder(out_dir / name)
    taken = there.path.exists() and there.read_request() is None
    if taken and there.path.is_dir():
        taken = any(not path.name.startswith(".") for path in there.path.iterdir())
    if taken or name.startswith(_RESERVED):
        raise RequestError(f"study={name}: out_dir keeps something else by that name; choose another")


def _goal(values: Mapping[str, Any]) -> Goal:
    limits = {name: values[name] for name in limit_keys()}
    return Goal(limits, values["latency_percentile"], values["scenario"], values["objective"])


def _check_claims(values: dict[str, Any], overrides: tuple[str, ...]) -> None:
    """Drops the limit on accuracy, which made-up inputs say nothing of; refuses one that is asked for."""
    for key in ("accuracy_drop", "metric", "metric_output"):
        if any(o.startswith(f"{key}=") and not o.endswith("=null") for o in overrides):
            raise RequestError(f"{key}: made-up inputs say nothing of accuracy; leave it out, or name your dataset")
    values["accuracy_drop"] = None


def _check_drop(limit: float | None, workload: Workload) -> None:
    """Refuses a limit that no loss of accuracy could break."""
    within = (0.0, 1.0) if workload.metric == AUTO else find(workload.metric).within
    if limit is not None and within is not None and limit > within[1] - within[0]:
        raise RequestError(
            f"accuracy_drop={limit:g}: metric={short(workload.metric)} lies from {within[0]:g} to {within[1]:g}, where "
            "0.01 is one point; accuracy_drop=null is no limit"
        )


def _without_others(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values less the usual task, and the limits that a package with figures of its own adds and nobody sets: they
    make no other study."""
    outside = figures().keys() - {figure.name for figure in TABLE}
    there = {key: value for key, value in values.items() if value is not None or key not in outside}
    if build(values["task"], Task, "task") == Call():
        del there["task"]
    return there


def _workload(values: Mapping[str, Any]) -> Workload:
    model, dataset = build(values["model"], ModelSource, "model"), build(values["dataset"], Dataset, "dataset")
    if not model.name.strip() or not model.name.isprintable() or len(model.name) > _LONGEST_LABEL:
        raise RequestError(
            f"model.label={shown(model.name)} must be a name of 1 to {_LONGEST_LABEL} characters that can be printed"
        )
    wanted = dataset.metric if values["metric"] == AUTO and dataset.metric else values["metric"]
    metric = UNJUDGED if dataset.made_up else named(wanted)
    if metric != AUTO:
        find(metric)
    return Workload(model, dataset, metric, build(values["task"], Task, "task"), values["metric_output"])


def _reference(specs: Mapping[str, Any], given: Form, target: Target) -> dict[str, Backend]:
    """The reference backends by name of form, that of the form in which the model is `given` among them."""
    forms = [form.name for form in catalog.values(Form)]
    if (only := target.hardware.reference) is not None:
        return {form: build({"_target_": only}, Backend, "reference") for form in forms}
    if unknown := specs.keys() - set(forms):
        raise RequestError(unknown_name(f"reference.{min(unknown)}", [f"reference.{form}" for form in forms]))
    if given.name not in specs:
        raise RequestError(
            f"reference.{given}: the model is given as {given}; name a backend that runs that: "
            f"+reference.{given}._target_=…"
        )
    return {form: build(spec, Backend, f"reference.{form}") for form, spec in specs.items()}


def _trial_limits(values: Mapping[str, Any]) -> TrialLimits:
    """What one trial may use; unless it is given, three quarters of the machine's memory."""
    if values.get("memory_mb") is None:
        values = {**values, "memory_mb": 0.75 * psutil.virtual_memory().total / 1e6}
    return fill(TrialLimits, values, "trial")
