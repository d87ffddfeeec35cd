"""Which plugins there are: found in their family's folder, and in the packages of others.

A family is a folder of the tuner with one file a member; its base class names it (`family`). Another distribution adds
members by an entry point of the group `tuner.plugins`, whose value is a module that has them:

    [project.entry-points."tuner.plugins"]
    mine = "my_package.plugins"

Finding imports those modules, and nothing that they import inside their methods.
"""

import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any, ClassVar, Protocol, TypeVar

from tuner.errors import RequestError

GROUP = "tuner.plugins"


class Kind(Protocol):
    """A base class with a family: the module that holds its members, or the package whose files do, such as
    `tuner.plugins.backends`."""

    family: ClassVar[str]


K = TypeVar("K", bound=Kind)


@cache
def members(kind: type[K]) -> tuple[type[K], ...]:
    """The classes of a kind that can be made (public, nothing abstract), by name of module and place in it.

    Those that belong to a narrower kind are not among them: one with a `family` of its own, as conversions have, which
    are transforms too. Raises RequestError where the package of an entry point does not import.
    """
    return tuple(dict.fromkeys(_members(kind)))


def first(kind: type[K], fits: Callable[[type[K]], bool]) -> type[K] | None:
    """The first member that fits. Nothing behind it is looked at, and the entry points last: every process of a study
    asks for its device, and reading what is installed takes longer than its share of a trial may."""
    return next(filter(fits, _members(kind)), None)


@cache
def values(kind: type[K]) -> tuple[K, ...]:
    """The values of a kind that stand at the top of modules (forms, figures), in the same order.

    Raises RequestError where the package of an entry point does not import.
    """
    return tuple({id(value): value for value in _public(kind.family) if isinstance(value, kind)}.values())


def files(family: str) -> tuple[str, ...]:
    """The names of a family's modules, its own first; none but that is imported."""
    home = importlib.import_module(family)
    return (family, *(info.name for info in pkgutil.iter_modules(getattr(home, "__path__", ()), f"{family}.")))


def _members(kind: type[K]) -> Iterator[type[K]]:
    for value in _public(kind.family):
        complete = inspect.isclass(value) and issubclass(value, kind) and not inspect.isabstract(value)
        if complete and _belongs_to(value) is _belongs_to(kind):
            yield value


def _belongs_to(member: type) -> type:
    """The nearest base class that names a family."""
    return next(base for base in member.__mro__ if "family" in vars(base))


def _public(family: str) -> Iterator[Any]:
    """What the modules of a family and of entry points define for others; of the latter, what they hand on too."""
    for file in files(family):
        yield from _attributes(importlib.import_module(file))
    for module in _outside():
        yield from _attributes(module)


def _attributes(module: ModuleType) -> Iterator[Any]:
    """A module's public attributes, less the classes that it has from elsewhere in the tuner."""
    name = module.__name__
    for attribute, value in vars(module).items():
        imported = inspect.isclass(value) and value.__module__ != name and value.__module__.startswith("tuner.")
        if not attribute.startswith("_") and not imported:
            yield value


@cache
def _outside() -> tuple[ModuleType, ...]:
    """The modules that installed distributions name, by name of their entry point."""
    modules = []
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        try:
            modules.append(importlib.import_module(entry.module))
        except Exception as error:  # whatever an author's module raises
            owner = entry.dist.name if entry.dist is not None else entry.name
            raise RequestError(
                f"the plugins of {owner} cannot be used: {entry.module} does not import ({error}); "
                f"mend it, or pip uninstall {owner}"
            ) from error
    return tuple(modules)
