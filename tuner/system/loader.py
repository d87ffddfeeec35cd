"""From plain values to checked objects: the one loader of a mapping with `_target_`.

Search spaces, the configuration and the manifests of artifacts all name classes this way:

    { _target_: tuner.plugins.backends.tvm.TVM, trials_per_task: 8 }

What a field may hold is read off its annotation: bool, int, float, str, Path, a Literal, `X | None`, `tuple[X, ...]`
(written as a list), `list[X]`, `dict[str, X]`, another class (a mapping with `_target_`), and bounds
(`tuner.system.fields`). What an annotation does not tell is taken as it is.
"""

import importlib
import inspect
import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from tuner.errors import RequestError
from tuner.system import former
from tuner.system.code import authored
from tuner.system.fields import bounds, options, shown, words
from tuner.system.said import first_line
from tuner.system.spelling import unknown_name

T = TypeVar("T")


class Checked:
    """A base of dataclasses whose fields are checked whenever one is made. Who overrides `__post_init__` calls it."""

    def __post_init__(self) -> None:
        kind = type(self)
        for name, annotation in annotations(kind).items():
            value = getattr(self, name)
            fitting = checked(value, annotation, f"{kind.__name__}.{name}")
            if fitting is not value:
                object.__setattr__(self, name, fitting)  # they are frozen


def build(spec: Any, kind: type[T], where: str) -> T:
    """The object that a mapping with `_target_` stands for: of a class below `kind`, its fields checked.

    Raises RequestError that names the place: `where`, or the field below it.
    """
    named_class = resolved(spec, kind, where)
    return fill(named_class, {str(name): value for name, value in spec.items() if name != "_target_"}, where)


def mapping(value: Any, where: str) -> dict[str, Any]:
    """The mapping that stands at `where`, its keys as text. Raises RequestError where it is none."""
    if not isinstance(value, Mapping):
        raise RequestError(f"{where} must be a mapping; it is {shown(value)}")
    return {str(name): item for name, item in value.items()}


def resolved(spec: Any, kind: type[T], where: str) -> type[T]:
    """The class below `kind` that a mapping names as its `_target_`. Raises RequestError."""
    if not isinstance(spec, Mapping) or "_target_" not in spec:
        raise RequestError(f"{where} must be a mapping with _target_; it is {shown(spec)}")
    path = former.present(str(spec["_target_"]))
    module_name, _, class_name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise RequestError(f"{where}._target_={_printed(path)}: no such class; it must read package.module.Class")
    with authored(f"{where}._target_={path}: its module does not import"):
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise RequestError(f"{where}._target_={path}: no such class ({first_line(error)})") from error
    named_class: Any = getattr(module, class_name, None)
    if named_class is None:
        raise RequestError(f"{where}._target_={path}: no such class ({module_name} has no {class_name})")
    if not (isinstance(named_class, type) and issubclass(named_class, kind)):
        raise RequestError(f"{where}._target_={path} is not a {kind.__name__}")
    if inspect.isabstract(named_class) or not is_dataclass(named_class):
        lacks = ", ".join(sorted(getattr(named_class, "__abstractmethods__", ()))) or "@dataclass"
        raise RequestError(f"{where}._target_={path} is not complete, it lacks {lacks}; name a class below it that is")
    return cast(type[T], named_class)


def fill(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """An object of the dataclass `kind` with those fields, each checked against its annotation.

    Raises RequestError for a field that is unknown, missing or does not fit, and for what the class itself refuses.
    """
    allowed = named(kind, values, where)
    arguments = {name: checked(value, allowed[name], f"{where}.{name}") for name, value in values.items()}
    try:
        return kind(**arguments)
    except ValueError as error:
        raise RequestError(f"{where}: {error}") from error


def named(kind: type, names: Collection[str], where: str) -> dict[str, Any]:
    """The annotations of a dataclass's fields, of which `names` are to be given.

    Raises RequestError for one that it does not have, and where one without a default is not among them.
    """
    allowed = annotations(kind)
    for name in names:
        if name not in allowed:
            raise RequestError(unknown_name(f"{where}.{_printed(name)}", [f"{where}.{known}" for known in allowed]))
    for field in fields(kind):
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed and field.name not in names:
            raise RequestError(f"{where}.{field.name} must be given: {words(allowed[field.name])}")
    return allowed


def checked(value: Any, annotation: Any, where: str) -> Any:
    """The value as its annotation has it: where that is a float, 1 becomes 1.0; where it is a tuple, a list one.

    Raises RequestError that names `where` and says what would fit.
    """
    complaints = []
    for option in options(annotation):
        try:
            return _fitted(value, option, where)
        except RequestError as error:
            complaints.append(error)
    inner = [error for error in complaints if not str(error).startswith(f"{where}=")]
    if inner or len(complaints) == 1:
        raise (inner or complaints)[0]
    raise RequestError(_misfit(value, annotation, where))


def annotations(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass and what each may hold."""
    return _annotations(kind)


@cache
def _annotations(kind: Any) -> dict[str, Any]:
    try:
        hints = get_type_hints(kind, include_extras=True)
    except NameError:  # of a name that is imported for type checkers only
        hints = {}
    return {field.name: hints.get(field.name, Any) for field in fields(kind)}


def _fitted(value: Any, annotation: Any, where: str) -> Any:
    """The value as one annotation that is no union has it. Raises RequestError."""
    plain, limits = bounds(annotation)
    origin = get_origin(plain)
    if plain is Any:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return _items(value, get_args(plain), where)
    if origin is list and isinstance(value, list | tuple):
        return [checked(item, get_args(plain)[0], f"{where}[{n}]") for n, item in enumerate(value)]
    if plain is Path and isinstance(value, str):
        return Path(value)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        kind = get_args(plain)[1]
        return {str(name): checked(item, kind, f"{where}.{_printed(str(name))}") for name, item in value.items()}
    if inspect.isclass(plain) and plain not in (bool, int, float, str, dict) and isinstance(value, Mapping):
        return build(value, plain, where)
    if not (_fits(value, plain) and all(limit.holds(value) for limit in limits)):
        raise RequestError(_misfit(value, annotation, where))
    return float(value) if plain is float else value


def _printed(name: str) -> str:
    """A name as a message quotes it."""
    return name if name.isprintable() else repr(name)


def _fits(value: Any, plain: Any) -> bool:
    """Whether the value is of that type, or one of those choices."""
    if get_origin(plain) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(plain))
    if plain in (int, float):
        return isinstance(value, int | plain) and not isinstance(value, bool) and _finite(value)
    try:
        return isinstance(value, get_origin(plain) or plain)
    except TypeError:  # nothing that a value could be compared with, such as a type variable
        return True


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _items(value: list[Any] | tuple[Any, ...], kinds: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if kinds[-1:] == (...,):
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise RequestError(f"{where}={shown(value)} must be a list of {len(kinds)}")
    return tuple(checked(item, kind, f"{where}[{n}]") for n, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _misfit(value: Any, annotation: Any, where: str) -> str:
    return f"{where}={shown(value)} must be {words(annotation)}"
