"""From a composed configuration to checked values."""

import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import psutil
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from tuner.errors import RequestError
from tuner.figures import TABLE, figures
from tuner.goal import Goal
from tuner.plugin import Backend
from tuner.request.request import Request
from tuner.request.schema import limit_keys
from tuner.request.spelling import unknown_name
from tuner.search.space import Space
from tuner.system import former
from tuner.system.code import resolve
from tuner.target import Target
from tuner.trial import TrialLimits
from tuner.workload import Dataset, Form, ModelSource, Workload

T = TypeVar("T")
_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")
PROMOTE = ("ask", "auto")
SAMPLERS = ("auto", "gp", "tpe", "nsga2", "random", "brute")


def from_config(config: DictConfig, overrides: tuple[str, ...]) -> Request:
    """Builds and checks every value of a composed configuration."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise RequestError(f"{missing[0]} must be given: {missing[0]}=…")
    try:
        values = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        raise RequestError(str(error).splitlines()[0]) from error
    uri = values["tracking"]["uri"]
    if uri is not None and uri.partition(":")[0] not in _SCHEMES:
        raise RequestError(f"tracking.uri={uri}: must begin with one of {', '.join(_SCHEMES)}")
    storage = values["tracking"]["storage"]
    if storage is not None and not storage.startswith("postgresql"):
        raise RequestError(
            f"tracking.storage={storage}: must begin with postgresql://, or be null for a file in out_dir"
        )
    for key, least in (("n_trials", 1), ("timeout_s", 1), ("patience", 1), ("seed", 0)):
        if values[key] is not None and values[key] < least:
            raise RequestError(f"{key}={values[key]} must be {least} or more")
    limits = dict(values["trial"] or {})
    if limits.get("memory_mb") is None:
        limits["memory_mb"] = 0.75 * psutil.virtual_memory().total / 1e6
    workload = Workload(
        built(values["model"], ModelSource, "model"), built(values["dataset"], Dataset, "dataset"), values["metric"]
    )
    resolve(workload.metric, "metric")
    sampler = str(values["sampler"].get("name"))
    if sampler not in SAMPLERS:
        raise RequestError(unknown_name(sampler, SAMPLERS, "sampler="))
    if values["promote"] not in PROMOTE:
        raise RequestError(unknown_name(values["promote"], PROMOTE, "promote="))
    if not str(values["out_dir"]).strip() or not str(values["cache_dir"]).strip():
        raise RequestError("out_dir and cache_dir must name a folder")
    if values["study"] is not None and not re.fullmatch(r"[\w.\-]+", values["study"]):
        raise RequestError(f"study={values['study']!r} must be letters, digits, '.', '_' and '-'")
    if unknown := values["reference"].keys() - set(get_args(Form)):
        raise RequestError(unknown_name(f"reference.{min(unknown)}", [f"reference.{form}" for form in get_args(Form)]))
    outside = figures().keys() - {figure.name for figure in TABLE}
    return Request(
        target=built(values["target"], Target, "target"),
        workload=workload,
        goal=Goal(
            {name: values[name] for name in limit_keys()},
            values["latency_percentile"],
            values["scenario"],
            values["objective"],
        ),
        space=Space.parse(values["search_space"]),
        reference={
            cast(Form, form): built(spec, Backend, f"reference.{form}") for form, spec in values["reference"].items()
        },
        sampler=sampler,
        n_trials=values["n_trials"],
        timeout_s=values["timeout_s"],
        patience=values["patience"],
        stop_when_feasible=values["stop_when_feasible"],
        warm_start=values["warm_start"],
        limits=_checked(limits, TrialLimits, "trial"),
        seed=values["seed"],
        promote=values["promote"],
        watch=values["watch"],
        on_regression=values["on_regression"],
        study=values["study"],
        out_dir=Path(values["out_dir"]).expanduser().absolute(),
        cache_dir=Path(values["cache_dir"]).expanduser().absolute(),
        tracking_uri=uri,
        storage=storage,
        experiment=values["tracking"]["experiment"],
        overrides=overrides,
        # a package that adds a figure makes no other study of what does not limit it
        resolved={key: value for key, value in values.items() if value is not None or key not in outside},
    )


def built(spec: Any, kind: type[T], key: str) -> T:
    """The value that a node with `_target_` stands for, its fields checked for name and type.

    Raises RequestError naming `key`.
    """
    if not isinstance(spec, Mapping) or "_target_" not in spec:
        raise RequestError(f"{key} must be a mapping with _target_; it is {spec!r}")
    path = former.present(str(spec["_target_"]))
    module_name, _, class_name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RequestError(f"{key}._target_={path}: no such class ({error})") from error
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise RequestError(f"{key}._target_={path} is not a {kind.__name__}")
    return _checked({str(k): v for k, v in spec.items() if k != "_target_"}, found, key)


def _checked(values: Mapping[str, Any], kind: type[T], key: str) -> T:
    known = [f.name for f in fields(cast(Any, kind))]
    for name in values:
        if name not in known:
            raise RequestError(unknown_name(f"{key}.{name}", [f"{key}.{k}" for k in known]))
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (key, *first["loc"]))
        raise RequestError(f"{where}={first['input']!r}: {first['msg']}") from error
