"""Hydra's complaints as one sentence, with the nearest valid spelling."""

import importlib.resources
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
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
        if "=" not in override and not override.startswith("~"):
            return f"{override!r} is neither a command nor an override; overrides read key=value" + nearest(
                override, [*keys, *_commands()]
            )
        if key.startswith("hydra."):
            continue
        complaint = not override.startswith("+") and ("not in struct" in text or "Could not" in text)
        if unknown_key and (f"'{key}'" in text or complaint):
            return unknown_name(key, keys)
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} cannot be read as key=value; {_quoting(str(error.override))}"
    if match := re.search(r"Ambiguous value for argument '(.*?)'", text):
        key = match.group(1)
        return f"{key}: must be one value (a number, a word); a list is written [1,2], a sweep of studies is `tune -m`"
    if file := yaml_fault(error):
        return file
    if emptied := next((o for o in overrides if o.endswith("=null")), None):
        return f"{emptied}: must be given; it cannot be null"
    full_keys = [getattr(link, "full_key", None) for link in _causes(error)]
    where: str | None = next(filter(None, full_keys), None)
    if match := re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", text):
        value, kind = match.groups()
        named = where or next((o.partition("=")[0] for o in overrides if o.endswith(f"={value}")), "a key")
        kinds = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false"}
        many = "; a sweep of studies is `tune -m`" if value.startswith("[") else ""
        return f"{named}={value}: must be {kinds.get(kind, kind)}{many}"
    if match := re.search(r"Missing mandatory value: ([\w.]+)", text):
        return f"{match.group(1)} must be given: {match.group(1)}=…"
    ours = [link for link in _causes(error) if isinstance(link, HydraException | OmegaConfBaseException)]
    told = [line for line in map(first_line, ours) if "$" not in line]  # some are templates still
    said = told[-1] if told else first_line(error)
    return f"{where or _culprit(error, overrides)}: {said}"


def _quoting(override: str) -> str:
    """How to write an override that could not be read."""
    key, _, value = override.partition("=")
    quoted = f"""{key}='{value}'"""
    try:
        OverridesParser.create().parse_override(quoted)
    except HydraException:
        return "quote brackets, blanks and commas in the value"
    if value.startswith(("[", "{")):
        return "quote brackets, blanks and commas in the value"
    strange = next((character for character in value if character in "=()[]{},:"), " ")
    written = shlex.quote(f'{key}="{value}"')
    return f"a value with {strange!r} in it is quoted, and that once more for a shell: {written}"


def yaml_fault(error: Exception) -> str | None:
    """What is wrong with a YAML file, and where; None where it is something else."""
    for link in _causes(error):
        mark = getattr(link, "problem_mark", None)
        if mark is not None:
            return f"{mark.name}, line {mark.line + 1}: {getattr(link, 'problem', None) or first_line(link)}"
    return None


def _culprit(error: Exception, overrides: Sequence[str]) -> str:
    """The override that fails in the same way without the others, or else conf/ itself."""
    where = [o for o in overrides if o.startswith("hydra.searchpath=")]
    for override in overrides:
        try:
            compose("config", overrides=[*where, *([override] if override not in where else [])])
        except type(error):
            return override
        except Exception:  # another mistake, that is told where this one is mended
            continue
    return "the configuration"


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
    except Exception:  # told by who asks
        with_defaults = compose("config")

    def walk(node: Mapping[Any, Any], prefix: str) -> Iterator[str]:
        for key, value in node.items():
            yield f"{prefix}{key}"
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")

    return list(walk(cast(Mapping[Any, Any], OmegaConf.to_container(with_defaults)), ""))


def group_options(group: str) -> list[str]:
    from hydra.core.global_hydra import GlobalHydra

    options: list[str] = GlobalHydra.instance().config_loader().get_group_options(group)
    return options
