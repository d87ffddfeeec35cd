"""`tune promote` and `tune rollback`: who is champion, said by a person."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.errors import RequestError
from tuner.request import compose

if TYPE_CHECKING:
    from tuner.tracking.registry import Registry


def promote(arguments: Sequence[str]) -> int:
    """`[NAME] [version=N] [reason=…]`: makes that version, or the one with the alias `candidate`, the champion."""
    asked = _asked(arguments, "promote")
    registry, name = asked.registry, asked.name
    aliases, versions = registry.aliases(name) or {}, registry.versions(name)
    version = asked.version or aliases.get("candidate")
    if version is None:
        raise RequestError(f"{name}: no version has the alias candidate; name one of {', '.join(versions)}: version=N")
    if version not in versions:
        raise RequestError(f"version={version}: {name} has {', '.join(versions) or 'no version'}")
    before = aliases.get("champion")
    if before == version:
        sys.stdout.write(f"{name}: version {version} is the champion already\n")
        return 0
    registry.promote(name, version, asked.who, asked.reason)
    sys.stdout.write(f"{name}: version {version} is the champion, it was {before or 'none'}\n")
    return 0


def rollback(arguments: Sequence[str]) -> int:
    """`[NAME] [reason=…]`: makes the champion before this one champion again."""
    asked = _asked(arguments, "rollback")
    if asked.version is not None:
        raise RequestError(
            f"version={asked.version}: rollback goes to the champion before; tune promote takes a version"
        )
    before, now = asked.registry.rollback(asked.name, asked.who, asked.reason)
    sys.stdout.write(f"{asked.name}: version {now} is the champion again, it was {before}\n")
    return 0


@dataclass(frozen=True)
class _Asked:
    registry: "Registry"
    name: str
    version: str | None
    reason: str
    who: str


def _asked(arguments: Sequence[str], command: str) -> _Asked:
    """The registered model that is meant; overrides such as `out_dir=` or `tracking.uri=` say in which store."""
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

    registry = Registry(where.uri)
    there = registry.names()
    listed = f"there are {', '.join(there)}" if there else "no study has registered a champion yet"
    if not names and len(there) == 1:
        names = there
    if len(names) != 1:
        raise RequestError(f"tune {command} needs the name of one registered model; {listed}")
    if registry.aliases(names[0]) is None:
        raise RequestError(f"{names[0]}: no such registered model; {listed}")
    return _Asked(registry, names[0], own["version"] or None, own["reason"] or "no reason given", user())
