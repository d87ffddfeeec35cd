"""Where Hydra is: from the command line and conf/ to a request of checked values.

Everything wrong with a request is a RequestError with one message that names the key and the nearest valid
spelling, before anything is spent or written.
"""

import difflib
import importlib
import importlib.resources
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import psutil
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, ValueType
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from tuner.constraints import Constraints, Objective
from tuner.errors import RequestError
from tuner.evaluate import Limits
from tuner.plugin import Backend
from tuner.secret import masked
from tuner.space import Space
from tuner.target import Target
from tuner.workload import Dataset, Form, ModelSource, Workload, importable, resolve

T = TypeVar("T")

_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")
_SPACE = "search_space."
_GROUPS = ("target", "model", "dataset", "search_space", "sampler", "executor", "tracking")
_ABSENT = object()
_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)$)[A-Za-z_./][\w./:\-]*", re.IGNORECASE)  # needs no quotes
PROMOTE = ("ask", "auto")
SAMPLERS = ("auto", "gp", "tpe", "nsga2", "random", "brute")


@dataclass
class Schema:
    """The keys of conf/config.yaml and their types, for OmegaConf."""

    latency_ms: float | None = None
    latency_percentile: int | None = None
    scenario: str = "SingleStream"
    accuracy_drop: float | None = 0.01
    size_mb: float | None = None
    memory_mb: float | None = None
    objective: str = "throughput"
    metric: str = "tuner.metrics:top1"
    n_trials: int = 40
    timeout_s: float = 360.0
    patience: int | None = 20
    stop_when_feasible: bool = False
    warm_start: bool = True
    seed: int = 0
    promote: str = "ask"
    watch: bool = False
    on_regression: str | None = None
    study: str | None = None
    out_dir: str = "outputs"
    cache_dir: str = "cache"
    plain: dict[str, Any] = field(default_factory=dict)
    target: Any = None
    model: Any = None
    dataset: Any = None
    search_space: Any = None
    sampler: Any = None
    executor: Any = None
    tracking: Any = None


@dataclass(frozen=True)
class Request:
    """Everything a study needs to know, checked. `resolved` is the configuration it came from, as plain JSON."""

    target: Target
    workload: Workload
    constraints: Constraints
    objective: Objective
    space: Space
    plain: dict[Form, Backend]
    sampler: Any
    n_trials: int
    timeout_s: float
    patience: int | None
    stop_when_feasible: bool
    warm_start: bool
    limits: Limits
    seed: int
    promote: str
    watch: bool
    on_regression: str | None
    study: str | None
    out_dir: Path
    cache_dir: Path
    tracking_uri: str | None
    storage: str | None
    experiment: str
    overrides: tuple[str, ...]
    resolved: dict[str, Any]


def request(overrides: Sequence[str]) -> Request:
    """The request that those command-line overrides make. Raises RequestError."""
    importable()
    return from_config(composed(overrides), tuple(map(masked, overrides)))  # they are recorded


def composed(overrides: Sequence[str]) -> DictConfig:
    """conf/ with the overrides applied. Raises RequestError for a key, value, group or type that does not fit."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra ends the process itself
    _register()
    with initialize_config_module(config_module="tuner.conf", version_base="1.3"):
        for override in overrides:
            group, _, value = override.partition("=")
            if group in _GROUPS and value in ("", "null"):
                raise RequestError(f"{override}: must be one of {', '.join(_options(group))}")
        try:
            config = compose("config", overrides=[o for o in overrides if not o.startswith(_SPACE)])
            _replace_in_space(config, [o for o in overrides if o.startswith(_SPACE)])
        except (HydraException, OmegaConfBaseException) as error:
            raise RequestError(_explained(error, overrides)) from error
    unknown = [str(key) for key in config if key not in {f.name for f in fields(Schema)}]
    if unknown:
        raise RequestError(_unknown(unknown[0], [f.name for f in fields(Schema)]))
    return config


@dataclass(frozen=True)
class Member:
    """One study of a sweep: its command line, and the part of it in which the members differ."""

    overrides: tuple[str, ...]
    chosen: str


def members(overrides: Sequence[str]) -> list[Member]:
    """The studies of a sweep: one for every combination of the choices that are written `key=a,b`.

    `sweep=NAME` stands for the overrides in conf/sweep/NAME.yaml; those given beside it win. Raises RequestError.
    """
    named = [o.removeprefix("sweep=") for o in overrides if o.startswith("sweep=")]
    given = [o for o in overrides if not o.startswith("sweep=")]
    if len(named) > 1:
        raise RequestError(f"sweep={named[1]}: one sweep at a time; sweep={named[0]} is given too")
    choices: dict[str, list[str]] = {}
    for text in [*(o for name in named for o in _named_sweep(name, given)), *given]:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            choices[text] = [text]  # composing it tells what is wrong
            continue
        key = override.get_key_element()
        if not override.is_sweep_override():
            choices[key] = [text]
        elif override.value_type in (ValueType.INTERVAL_SWEEP, ValueType.GLOB_CHOICE_SWEEP):
            raise RequestError(f"{text}: a sweep lists its choices, as in {key}=1,2,5")
        else:
            choices[key] = [f"{key}={_literal(value)}" for value in override.sweep_iterator()]
    varied = {key for key, values in choices.items() if len(values) > 1}
    return [
        Member(combination, " ".join(o for key, o in zip(choices, combination, strict=True) if key in varied))
        for combination in itertools.product(*choices.values())
    ]


def _named_sweep(name: str, given: Sequence[str]) -> list[str]:
    """conf/sweep/NAME.yaml as overrides; a list is a choice."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    searchpath = [o for o in given if o.startswith("hydra.searchpath=")]
    with initialize_config_module(config_module="tuner.conf", version_base="1.3"):
        try:
            found = OmegaConf.to_container(compose(overrides=[*searchpath, f"+sweep={name}"]).sweep)
        except (HydraException, OmegaConfBaseException, AttributeError) as error:
            if name not in (options := _options("sweep")):
                raise RequestError(_unknown(name, options, "sweep=")) from error
            raise RequestError(f"sweep={name}: the file is not a mapping of overrides ({error})") from error
    if not isinstance(found, dict):
        raise RequestError(f"sweep={name}: the file is not a mapping of overrides")
    choices = {str(key): value if isinstance(value, list) else [value] for key, value in found.items()}
    return [f"{key}={','.join(map(_literal, values))}" for key, values in choices.items()]


def _literal(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_literal, value)) + "]"
    if isinstance(value, QuotedString):
        value = value.text
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return str(QuotedString(value, Quote.single).with_quotes())
    return "null" if value is None else str(value)


def _replace_in_space(config: DictConfig, overrides: Sequence[str]) -> None:
    """Sets nodes of the search space. Hydra would merge them: a choice could not take the place of a range."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = str(override.key_or_group)
        if OmegaConf.select(config, key, default=_ABSENT) is _ABSENT:
            raise RequestError(_unknown(key, _known_keys([])))
        OmegaConf.update(config, key, override.value(), merge=False)


def from_config(config: DictConfig, overrides: tuple[str, ...]) -> Request:
    """Builds and checks every value of a composed configuration."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise RequestError(f"{missing[0]} must be given: {missing[0]}=…")
    try:
        plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        raise RequestError(str(error).splitlines()[0]) from error
    uri = plain["tracking"]["uri"]
    if uri is not None and uri.partition(":")[0] not in _SCHEMES:
        raise RequestError(f"tracking.uri={uri}: must begin with one of {', '.join(_SCHEMES)}")
    storage = plain["tracking"]["storage"]
    if storage is not None and not storage.startswith("postgresql"):
        raise RequestError(
            f"tracking.storage={storage}: must begin with postgresql://, or be null for a file in out_dir"
        )
    for key, least in (("n_trials", 1), ("timeout_s", 1), ("patience", 1), ("seed", 0)):
        if plain[key] is not None and plain[key] < least:
            raise RequestError(f"{key}={plain[key]} must be {least} or more")
    limits = dict(plain["executor"] or {})
    if limits.get("memory_mb") is None:
        limits["memory_mb"] = 0.75 * psutil.virtual_memory().total / 1e6
    workload = Workload(
        built(plain["model"], ModelSource, "model"), built(plain["dataset"], Dataset, "dataset"), plain["metric"]
    )
    resolve(workload.metric, "metric")
    sampler = str(plain["sampler"].get("name"))
    if sampler not in SAMPLERS:
        raise RequestError(_unknown(sampler, SAMPLERS, "sampler="))
    if plain["promote"] not in PROMOTE:
        raise RequestError(_unknown(plain["promote"], PROMOTE, "promote="))
    if not str(plain["out_dir"]).strip() or not str(plain["cache_dir"]).strip():
        raise RequestError("out_dir and cache_dir must name a folder")
    if plain["study"] is not None and not re.fullmatch(r"[\w.\-]+", plain["study"]):
        raise RequestError(f"study={plain['study']!r} must be letters, digits, '.', '_' and '-'")
    if unknown := plain["plain"].keys() - set(get_args(Form)):
        raise RequestError(_unknown(f"plain.{min(unknown)}", [f"plain.{form}" for form in get_args(Form)]))
    return Request(
        target=built(plain["target"], Target, "target"),
        workload=workload,
        constraints=Constraints(**{f.name: plain[f.name] for f in fields(Constraints)}),
        objective=Objective(plain["objective"]),
        space=Space.parse(plain["search_space"]),
        plain={cast(Form, form): built(spec, Backend, f"plain.{form}") for form, spec in plain["plain"].items()},
        sampler=sampler,
        n_trials=plain["n_trials"],
        timeout_s=plain["timeout_s"],
        patience=plain["patience"],
        stop_when_feasible=plain["stop_when_feasible"],
        warm_start=plain["warm_start"],
        limits=_checked(limits, Limits, "executor"),
        seed=plain["seed"],
        promote=plain["promote"],
        watch=plain["watch"],
        on_regression=plain["on_regression"],
        study=plain["study"],
        out_dir=Path(plain["out_dir"]).expanduser().absolute(),
        cache_dir=Path(plain["cache_dir"]).expanduser().absolute(),
        tracking_uri=uri,
        storage=storage,
        experiment=plain["tracking"]["experiment"],
        overrides=overrides,
        resolved=plain,
    )


def built(spec: Any, kind: type[T], key: str) -> T:
    """The value that a node with `_target_` stands for, its fields checked for name and type.

    Raises RequestError naming `key`.
    """
    if not isinstance(spec, Mapping) or "_target_" not in spec:
        raise RequestError(f"{key} must be a mapping with _target_; it is {spec!r}")
    path = str(spec["_target_"])
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
            raise RequestError(_unknown(f"{key}.{name}", [f"{key}.{k}" for k in known]))
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (key, *first["loc"]))
        raise RequestError(f"{where}={first['input']!r}: {first['msg']}") from error


def _register() -> None:
    store = ConfigStore.instance()
    store.store(name="schema", node=Schema)
    # an ordinary Hydra group, although the files lie in the top-level search_spaces/
    for file in importlib.resources.files("tuner.search_spaces").iterdir():
        if file.name.endswith(".yaml"):
            node = OmegaConf.create(file.read_text())
            store.store(group="search_space", name=file.name.removesuffix(".yaml"), node=node)


def _explained(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's complaint as one message, with the nearest valid spelling where a key is unknown."""
    chain: Iterator[BaseException] = _causes(error)
    texts = [str(link) for link in chain]
    text = " ".join(texts)
    if match := re.search(r"Could not find '([\w/]+)/([^']*)'", text):
        group, value = match.groups()
        return _unknown(value, _options(group), f"{group}=")
    known = _known_keys(overrides)
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        unknown_key = key not in known and key.replace("/", ".") not in known
        if "=" not in override:
            return f"{override!r} is neither a command nor an override; overrides read key=value" + _nearest(
                override, [*known, "doctor", "show", "ui", "promote", "rollback", "schedule", "cache"]
            )
        if key.startswith("hydra."):
            continue
        if unknown_key and (f"'{key}'" in text or "not in struct" in text or "Could not" in text):
            return _unknown(key, known)
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} cannot be read as key=value; quote brackets, blanks and commas in the value"
    if match := re.search(r"Ambiguous value for argument '(.*?)'", text):
        key = match.group(1)
        return f"{key}: must be one value (a number, a word); a list is written [1,2], a sweep of studies is `tune -m`"
    if emptied := next((o for o in overrides if o.endswith("=null")), None):
        return f"{emptied}: must be given; it cannot be null"
    first = texts[0].strip()
    for link in texts[::-1]:
        if match := re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", link):
            value, kind = match.groups()
            named = next((o.partition("=")[0] for o in overrides if o.endswith(f"={value}")), "a key")
            kinds = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false"}
            return f"{named}={value}: must be {kinds.get(kind, kind)}"
    return first.splitlines()[0] if first else type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """Every dotted key of the configuration with the groups that were chosen, where those exist."""
    groups = {f.name for f in fields(Schema)} | {"hydra.searchpath"}
    chosen = [o for o in overrides if o.partition("=")[0] in groups]
    try:
        with_defaults = compose("config", overrides=chosen)
    except (HydraException, OmegaConfBaseException):
        with_defaults = compose("config")

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key in node:
            dotted = f"{prefix}{key}"
            yield dotted
            if OmegaConf.is_dict(node) and not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
                yield from walk(node[key], dotted + ".")

    return list(walk(with_defaults, ""))


def _options(group: str) -> list[str]:
    from hydra.core.global_hydra import GlobalHydra

    found: list[str] = GlobalHydra.instance().config_loader().get_group_options(group)
    return found


def _unknown(name: str, known: Iterable[str], prefix: str = "") -> str:
    options = list(known)
    listed = f"there are {', '.join(options)}" if len(options) <= 12 else "tune --help lists them"
    nearest = _nearest(name, options)
    return f"{prefix}{name}: no such {'choice' if prefix else 'key'}{nearest or f'; {listed}'}"


def _nearest(name: str, options: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    # `latency` means `latency_ms`
    found = found or [option for option in options if option.startswith(name)][:1]
    return f"; did you mean {found[0]}?" if found else ""
