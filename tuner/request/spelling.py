"""Hydra's complaints as one sentence, with the nearest valid spelling."""

import importlib.resources
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra import compose
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tuner.request.schema import keys
from tuner.system.said import first_line
from tuner.system.spelling import nearest, unknown_name


def explained(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's complaint as one message, with the nearest valid spelling where a key is unknown."""
    chain: Iterator[BaseException] = _causes(error)
    texts = [str(link) for link in chain]
    text = " ".join(texts)
    if match := re.search(r"Could not find '([\w/]+)/([^']*)'", text):
        group, value = match.groups()
        return unknown_name(value, group_options(group), f"{group}=")
    keys = known_keys(overrides)
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        unknown_key = key not in keys and key.replace("/", ".") not in keys
        if "=" not in override:
            return f"{override!r} is neither a command nor an override; overrides read key=value" + nearest(
                override, [*keys, *_commands()]
            )
        if key.startswith("hydra."):
            continue
        if unknown_key and (f"'{key}'" in text or "not in struct" in text or "Could not" in text):
            return unknown_name(key, keys)
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
    return first_line(first or type(error).__name__)


def _commands() -> list[str]:
    """The sub-commands: there is a file for each."""
    names = (file.name for file in importlib.resources.files("tuner.commands").iterdir())
    return [name.removesuffix(".py") for name in names if name.endswith(".py") and not name.startswith("_")]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def known_keys(overrides: Sequence[str]) -> list[str]:
    """Every dotted key of the configuration with the groups that were chosen, where those exist."""
    groups = {*keys(), "hydra.searchpath"}
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


def group_options(group: str) -> list[str]:
    from hydra.core.global_hydra import GlobalHydra

    options: list[str] = GlobalHydra.instance().config_loader().get_group_options(group)
    return options
