"""`tune promote`: a registered version becomes the champion, said by a person."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.errors import ExitCode, RequestError
from tuner.request import compose

if TYPE_CHECKING:
    from tuner.tracking.registry import Registry


def run(arguments: Sequence[str]) -> ExitCode:
    """`[NAME] [version=N] [reason=…]`: makes that version, or the one with the alias `candidate`, the champion."""
    move = read(arguments, "promote")
    registry, name = move.registry, move.name
    aliases, versions = registry.aliases(name) or {}, registry.versions(name)
    version = move.version or aliases.get("candidate")
    if version is None:
        raise RequestError(f"{name}: no version has the alias candidate; name one of {', '.join(versions)}: version=N")
    if version not in versions:
        raise RequestError(f"version={version}: {name} has {', '.join(versions) or 'no version'}")
    before = aliases.get("champion")
    if before == version:
        sys.stdout.write(f"{name}: version {version} is the champion already\n")
        return ExitCode.OK
    registry.promote(name, version, move.who, move.reason)
    sys.stdout.write(f"{name}: version {version} is the champion, it was {before or 'none'}\n")
    return ExitCode.OK


@dataclass(frozen=True)
class Move:
    """Which registered model is meant, which version of it, who says so and why."""

    registry: "Registry"
    name: str
    version: str | None
    reason: str
    who: str


def read(arguments: Sequence[str], command: str) -> Move:
    """What the command line of `command` asks for; overrides such as `out_dir=` or `tracking.uri=` say in which store.

    Raises RequestError where it is not one registered model.
    """
    own = {"version": "", "reason": ""}
    names, overrides = [], []
    for argument in arguments:
        key, given, value = argument.partition("=")
        if not given:
            names.append(key)
        elif key in own:
            own[key] = value
        else:
            overrides.append(argument)
    _, where = compose.recorded(overrides)
    from tuner.tracking.registry import Registry, user
    from tuner.tracking.stores import reachable

    reachable(where.uri)
    registry = Registry(where.uri)
    registered = registry.names()
    listed = f"there are {', '.join(registered)}" if registered else "no study has registered a champion yet"
    if not names and len(registered) == 1:
        names = registered
    if len(names) != 1:
        raise RequestError(f"tune {command} needs the name of one registered model; {listed}")
    if registry.aliases(names[0]) is None:
        raise RequestError(f"{names[0]}: no such registered model; {listed}")
    return Move(registry, names[0], own["version"] or None, own["reason"] or "no reason given", user())
