"""The seam of what `tune export` writes: one file a format, under `tuner/deploy/formats/`."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from tuner import catalog
from tuner.deploy.deployment import Batching, Deployment
from tuner.errors import RequestError
from tuner.system.spelling import nearest


class Format(ABC):
    """What an artifact becomes for one kind of platform."""

    family: ClassVar[str] = "tuner.deploy.formats"
    name: ClassVar[str]
    """As `--format` has it."""
    batching: ClassVar[Batching] = Batching.PACED
    """Of the server there."""

    @abstractmethod
    def write(self, deployment: Deployment, out: Path) -> list[str]:
        """Writes into the empty folder `out`, and returns what a person must know, a sentence each: how to start it
        first. Raises RequestError for what it cannot express, with the alternative."""


def formats() -> dict[str, Format]:
    """By name."""
    kinds: tuple[type[Any], ...] = catalog.members(Format)
    return {kind.name: kind() for kind in kinds}


def format_called(name: str) -> Format:
    """Raises RequestError where there is none of that name."""
    known = formats()
    if name not in known:
        raise RequestError(f"--format {name}: there is {', '.join(known)}{nearest(name, list(known))}")
    return known[name]
