"""What the annotation of a field allows, and how a person is told: types, choices and bounds.

sparsity: Annotated[float, Above(0), Below(1)]
precision: Literal["f32", "bf16"] = "f32"
"""

from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "null",
    tuple: "a list",
    list: "a list",
    Path: "a path",
    dict: "a mapping",
}


@dataclass(frozen=True)
class Bound:
    """A limit on a number, in the annotation of its field."""

    limit: float

    def holds(self, value: float) -> bool:
        raise NotImplementedError

    @property
    def words(self) -> str:
        raise NotImplementedError


class AtLeast(Bound):
    def holds(self, value: float) -> bool:
        return value >= self.limit

    @property
    def words(self) -> str:
        return f"{self.limit:g} or more"


class AtMost(Bound):
    def holds(self, value: float) -> bool:
        return value <= self.limit

    @property
    def words(self) -> str:
        return f"at most {self.limit:g}"


class Above(Bound):
    def holds(self, value: float) -> bool:
        return value > self.limit

    @property
    def words(self) -> str:
        return f"more than {self.limit:g}"


class Below(Bound):
    def holds(self, value: float) -> bool:
        return value < self.limit

    @property
    def words(self) -> str:
        return f"less than {self.limit:g}"


def options(annotation: Any) -> tuple[Any, ...]:
    """The annotations of which a value may fit any: those of a union, else the one itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def bounds(annotation: Any) -> tuple[Any, list[Bound]]:
    """An annotation without its bounds, and these."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    plain, *marks = get_args(annotation)
    return plain, [mark for mark in marks if isinstance(mark, Bound)]


def words(annotation: Any) -> str:
    """What a value must be, for a sentence: `a whole number of 1 or more, or null`."""
    return ", or ".join(_one(option) for option in options(annotation))


def _one(annotation: Any) -> str:
    plain, limits = bounds(annotation)
    if get_origin(plain) is Literal:
        choices = ", ".join(map(str, get_args(plain)))
        return f"one of {choices}" if len(get_args(plain)) > 1 else choices
    if plain in _WORDS or get_origin(plain) in _WORDS:
        named = _WORDS.get(plain) or _WORDS[get_origin(plain)]
    else:
        named = f"a {getattr(plain, '__name__', plain)}, as a mapping with _target_"
    return f"{named} of {' and '.join(limit.words for limit in limits)}" if limits else named


def shown(value: Any) -> str:
    """A value as a message quotes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
