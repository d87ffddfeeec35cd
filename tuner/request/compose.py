"""Where Hydra is: from the command line and conf/ to a request of checked values.

Everything wrong with a request is a RequestError with one message that names the key and the nearest valid
spelling, before anything is spent or written.
"""

import importlib.resources
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from tuner import catalog
from tuner.dataset import Dataset
from tuner.errors import RequestError
from tuner.request import former
from tuner.request.checked import from_config
from tuner.request.reading import check_hydra, limited
from tuner.request.request import Request
from tuner.request.schema import GROUPS, keys, schema, truths
from tuner.request.spelling import explained, group_options, known_keys
from tuner.request.tracking import Tracking, default_uri, tracking
from tuner.system.code import importable
from tuner.system.files import folder
from tuner.system.loader import build
from tuner.system.secret import masked
from tuner.system.spelling import unknown_name
from tuner.target import Target

_SPACE = "search_space."
_ABSENT = object()
# a field that is a mapping: what it may have, the plugin knows
_OPEN = re.compile(r"^((model|dataset)\.\w+(\.|=\{)|target\.(peak_tflops|memory_gb_s|tvm|remote)[.=])")

_DATASET = re.compile(r"[+~]*dataset(@[\w.]+)?=")


def request(overrides: Sequence[str], config: DictConfig | None = None) -> Request:
    """The request that those command-line overrides make; `config` is what was composed of them already. Raises
    RequestError."""
    importable()
    overrides = former.present(overrides)
    config = composed(overrides) if config is None else config
    return from_config(config, tuple(map(masked, overrides)))  # they are recorded


def recorded(overrides: Sequence[str]) -> tuple[Path, Tracking]:
    """`out_dir` and where its studies are recorded, for commands that look at them. Raises RequestError, also where
    nothing was recorded there yet."""
    config = composed(overrides)
    if "tracking.uri" in OmegaConf.missing_keys(config):
        raise RequestError("tracking.uri must be given: tracking.uri=…")
    out_dir = folder(config.out_dir)
    where = tracking(config.tracking, out_dir)
    if where.uri == default_uri(out_dir) and not (out_dir / "mlflow.db").exists():
        raise RequestError(f"out_dir={out_dir}: no study has been recorded there; run one, or name its out_dir=")
    return out_dir, where


def targets(overrides: Sequence[str]) -> dict[str, Target]:
    """Every target of conf/target, and of the folders that `hydra.searchpath` adds, by name. Raises RequestError."""
    _register()
    searched = [override for override in overrides if override.startswith("hydra.searchpath=")]
    with initialize_config_module(config_module="tuner.conf", version_base="1.3"):
        # in one composition, for each takes a tenth of a second
        names = group_options("target")
        nodes = compose(overrides=[*searched, "+search_space=default", *(f"+target@{name}={name}" for name in names)])
    return {name: build(OmegaConf.to_container(nodes[name]), Target, f"target={name}") for name in names}


def missing(config: DictConfig) -> list[str]:
    """The keys that still have to be given."""
    return sorted(OmegaConf.missing_keys(config))


def composed(overrides: Sequence[str]) -> DictConfig:
    """conf/ with the overrides applied. Raises RequestError for a key, value, group or type that does not fit."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra ends the process itself
    _register()
    overrides = [*_told_by_file(overrides), *former.present(overrides)]
    peaks_given = any(o.startswith(("target.peak_tflops", "target.memory_gb_s")) for o in overrides)
    overrides = [_OPEN.sub(r"++\g<0>", override) for override in overrides]
    with initialize_config_module(config_module="tuner.conf", version_base="1.3"), limited(overrides):
        check_hydra(overrides)
        _check_overrides(overrides)
        try:
            config = compose("config", overrides=[o for o in overrides if not o.startswith(_SPACE)])
            if peaks_given and "peak_device_name" in config.target:
                config.target.peak_device_name = None  # they are of the device that is here
            _replace_in_space(config, [o for o in overrides if o.startswith(_SPACE)])
            OmegaConf.to_container(config, resolve=True)  # what it refers to is there
        except RequestError:
            raise
        except Exception as error:  # of Hydra, OmegaConf, YAML, a resolver: a file or an override is wrong
            raise RequestError(explained(error, overrides)) from error
    for key in config:
        if key not in keys():
            raise RequestError(unknown_name(str(key), keys()))
    if lacking := [key for key in keys() if key not in config]:
        raise RequestError(f"~{lacking[0]}: the key must stay; {lacking[0]}=… gives it another value")
    return config


def _told_by_file(overrides: Sequence[str]) -> list[str]:
    """The kind of dataset that the suffix of its file tells, where none is named: a model may pick another by
    itself."""
    path = next((o.partition("=")[2] for o in reversed(overrides) if o.startswith("dataset.path=")), None)
    if path is None or any(_DATASET.match(override) for override in overrides):
        return []
    suffix = Path(path.strip("'\"")).suffix.lower()
    kind = catalog.first(Dataset, lambda kind: suffix in kind.suffixes)
    return [] if kind is None else [f"dataset={kind.suffixes[suffix]}"]


def _check_overrides(overrides: Sequence[str]) -> None:
    """What Hydra would take, and do something else with. Raises RequestError."""
    for override in overrides:
        key, mark, value = override.partition("=")
        if mark and not key.strip("+~ "):
            raise RequestError(f"{override!r} is no override; overrides read key=value")
        if key in GROUPS and (value in ("", "null") or value.startswith(("{", "["))):
            raise RequestError(f"{override}: must be one of {', '.join(group_options(key))}; {key}.NAME=… sets a field")
        if key in truths() and re.fullmatch(r"[+-]?[\d.]+", value) and value not in ("0", "1"):
            raise RequestError(f"{override}: must be true or false")


def printed(overrides: Sequence[str]) -> str:
    """The same as YAML, without passwords."""
    return masked(OmegaConf.to_yaml(composed(overrides)))


def _replace_in_space(config: DictConfig, overrides: Sequence[str]) -> None:
    """Sets nodes of the search space. Hydra would merge them: a choice could not take the place of a range."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = str(override.key_or_group)
        if OmegaConf.select(config, key, default=_ABSENT) is _ABSENT:
            raise RequestError(unknown_name(key, known_keys([])))
        OmegaConf.update(config, key, override.value(), merge=False)


@cache
def _register() -> None:
    store = ConfigStore.instance()
    store.store(name="schema", node=schema())
    # an ordinary Hydra group, although the files lie in the top-level search_spaces/
    for file in importlib.resources.files("tuner.search_spaces").iterdir():
        if file.name.endswith(".yaml"):
            node = OmegaConf.create(file.read_text())
            store.store(group="search_space", name=file.name.removesuffix(".yaml"), node=node)
