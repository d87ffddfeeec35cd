"""The studies of a sweep, from one command line."""

import itertools
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, RangeSweep, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf

from tuner.errors import RequestError
from tuner.request.reading import check_hydra, limited
from tuner.request.spelling import group_options, yaml_fault
from tuner.system.said import first_line
from tuner.system.spelling import unknown_name

_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)$)[A-Za-z_./][\w./:\-]*", re.IGNORECASE)  # needs no quotes
_MOST = 500  # studies of a sweep


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
            choices[key] = [f"{key}={_literal(value)}" for value in _choices(override, text)]
    if (many := math.prod(map(len, choices.values()))) > _MOST:
        raise RequestError(f"-m: the choices make {many:,} studies; a sweep has {_MOST} at most")
    varied = {key for key, values in choices.items() if len(values) > 1}
    return [
        Member(combination, " ".join(o for key, o in zip(choices, combination, strict=True) if key in varied))
        for combination in itertools.product(*choices.values())
    ]


def _choices(override: Override, text: str) -> list[Any]:
    """The values among which a sweep chooses. Raises RequestError where there are none, or too many."""
    span = override.value()
    if isinstance(span, RangeSweep):
        start, stop, step = float(span.start or 0), float(span.stop or 0), float(span.step)
        if not step or not abs(stop - start) / abs(step) <= _MOST:  # shuffled, it would be listed whole
            raise RequestError(f"{text}: a sweep has {_MOST} studies at most")
    values = list(itertools.islice(override.sweep_iterator(), _MOST + 1))
    if not values:
        raise RequestError(f"{text}: there is nothing to choose from")
    return values


def _named_sweep(name: str, given: Sequence[str]) -> list[str]:
    """conf/sweep/NAME.yaml as overrides; a list is a choice."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    searchpath = [o for o in given if o.startswith("hydra.searchpath=")]
    check_hydra(searchpath)
    with initialize_config_module(config_module="tuner.conf", version_base="1.3"), limited([f"sweep={name}"]):
        try:
            overrides = OmegaConf.to_container(compose(overrides=[*searchpath, f"+sweep={name}"]).sweep)
        except Exception as error:  # of Hydra, OmegaConf, YAML
            if f"'sweep/{name}'" in str(error):
                raise RequestError(unknown_name(name, group_options("sweep"), "sweep=")) from error
            why = yaml_fault(error) or f"sweep={name}: the file is not a mapping of overrides ({first_line(error)})"
            raise RequestError(why) from error
    if not isinstance(overrides, dict):
        raise RequestError(f"sweep={name}: the file is not a mapping of overrides")
    choices = {str(key): value if isinstance(value, list) else [value] for key, value in overrides.items()}
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
