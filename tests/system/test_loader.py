"""The loader: what fits a field's annotation is taken, and anything else is one sentence that names the field."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import RequestError
from tuner.system.fields import Above, AtLeast, AtMost, Below, words
from tuner.system.loader import Checked, build, checked


@dataclass(frozen=True)
class Paint(Checked):
    layers: Annotated[int, AtLeast(1)]
    gloss: Annotated[float, Above(0), Below(1)] = 0.5
    colour: Literal["red", "blue"] | None = None


@dataclass(frozen=True)
class Gold(Paint):
    karat: Annotated[int, AtMost(24)] = 18

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.karat < 9 and self.layers < 2:
            raise ValueError("less than 9 karat needs 2 layers")


@dataclass(frozen=True)
class Wall(Checked):
    paint: Paint
    windows: tuple[tuple[int, int], ...] = ()
    label: str | None = None
    prices: dict[str, float] | None = None


T = TypeVar("T")
finite = st.floats(allow_nan=False, allow_infinity=False)
# what annotations there are, and values that fit them
fitting: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-(10**9), 10**9),
    float: finite | st.integers(-(10**9), 10**9),
    str: st.text(),
    type(None): st.none(),
    Literal["a", "b", 1]: st.sampled_from(["a", "b", 1]),
    Annotated[int, AtLeast(3)]: st.integers(3, 10**9),
    Annotated[float, Above(0), AtMost(1)]: st.floats(0, 1, exclude_min=True) | st.just(1),
    Literal[0] | Annotated[int, AtLeast(8)]: st.just(0) | st.integers(8, 10**9),
    tuple[int, ...]: st.lists(st.integers(-9, 9)),
    tuple[str, bool]: st.tuples(st.text(), st.booleans()).map(list),
    dict[str, float]: st.dictionaries(st.text(), finite),
}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def fits(value: Any, annotation: Any) -> bool:
    """The rule again, in other words."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300
    whole = number and isinstance(value, int)
    real = number and isinstance(value, float)
    rules = {
        bool: value is True or value is False,
        int: whole,
        float: real or (isinstance(value, float) and math.isfinite(value)),
        str: isinstance(value, str),
        type(None): value is None,
        Literal["a", "b", 1]: repr(value) in ("'a'", "'b'", "1"),
        Annotated[int, AtLeast(3)]: whole and value > 2,
        Annotated[float, Above(0), AtMost(1)]: real and not value <= 0 and not value > 1,
        Literal[0] | Annotated[int, AtLeast(8)]: whole and (value == 0 or value > 7),
    }
    if annotation in rules:
        return bool(rules[annotation])
    if annotation == dict[str, float]:
        return isinstance(value, dict) and all(fits(item, float) for item in value.values())
    if annotation == tuple[str, bool]:
        return isinstance(value, tuple) and len(value) == 2 and fits(value[0], str) and fits(value[1], bool)
    return isinstance(value, tuple) and all(fits(item, int) for item in value)


@given(st.sampled_from(list(fitting)), st.booleans(), st.data())
def test_what_fits_is_taken_as_the_annotation_has_it(annotation: Any, optional: bool, data: st.DataObject) -> None:
    value = data.draw(fitting[annotation])
    taken = checked(value, annotation | None if optional else annotation, "wall.side")
    assert taken == (tuple(value) if isinstance(value, list) else value)
    assert fits(taken, annotation)
    assert checked(taken, annotation, "wall.side") == taken


@given(st.sampled_from(list(fitting)), anything)
def test_what_does_not_fit_is_one_sentence_that_names_the_place(annotation: Any, value: Any) -> None:
    try:
        assert fits(checked(value, annotation, "wall.side"), annotation)
    except RequestError as error:
        assert str(error).startswith("wall.side")
        assert "must be" in str(error)
        assert len(str(error).splitlines()) == 1
        assert not fits(tuple(value) if isinstance(value, list) else value, annotation)


@dataclass(frozen=True)
class Loose(Checked):
    """Annotations of which a value cannot tell, or only in part."""

    file: Path
    tags: list[int]
    call: Callable[[], int] | None = None
    whatever: T | None = None  # type: ignore[valid-type]


def test_a_path_is_written_as_text_and_what_cannot_be_told_is_taken() -> None:
    loose = build(node(Loose, file="a/b", tags=[1, 2], whatever="x"), Loose, "loose")
    assert loose == Loose(Path("a/b"), [1, 2], whatever="x")
    for field, wrong in (("tags", [1, "x"]), ("file", 3), ("call", 5)):
        with pytest.raises(RequestError, match=rf"loose\.{field}"):
            build(node(Loose, **{"file": "a", "tags": [], field: wrong}), Loose, "loose")


def node(kind: type, **values: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{kind.__name__}", **values}


def test_objects_within_objects_are_built() -> None:
    wall = build(node(Wall, paint=node(Gold, layers=2, karat=8), windows=[[1, 2]], prices={"a": 1}), Wall, "wall")
    assert wall == Wall(Gold(2, karat=8), ((1, 2),), prices={"a": 1.0})
    assert build(node(Paint, layers=1), Paint, "paint") == Paint(1)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("red", "wall must be a mapping with _target_; it is 'red'"),
        (node(Paint, layers=1), f"_target_={Paint.__module__}.Paint is not a Wall"),
        ({"_target_": "tests.test_loader.Wal"}, "wall._target_=tests.test_loader.Wal: no such class"),
        ({"_target_": "tests.no_such.Wall"}, "wall._target_=tests.no_such.Wall: no such class"),
        ({"_target_": "Wall"}, "wall._target_=Wall: no such class"),
        (node(Wall), "wall.paint must be given: a Paint, as a mapping with _target_"),
        (node(Wall, paint="red"), "wall.paint='red' must be a Paint, as a mapping with _target_"),
        (node(Wall, paint=node(Paint, layers=0)), "wall.paint.layers=0 must be a whole number of 1 or more"),
        (
            node(Wall, paint=node(Paint, layers=1, glos=1)),
            "wall.paint.glos: no such key; did you mean wall.paint.gloss?",
        ),
        (
            node(Wall, paint=node(Paint, layers=1, colour="rd")),
            "wall.paint.colour='rd' must be one of red, blue, or null",
        ),
        (node(Wall, paint=node(Gold, layers=1, karat=8)), "wall.paint: less than 9 karat needs 2 layers"),
        (node(Wall, paint=node(Paint, layers=1), windows=[[1, 2], [3]]), "wall.windows[1]=[3] must be a list of 2"),
        (node(Wall, paint=node(Paint, layers=1), windows=[[1, "x"]]), "wall.windows[0][1]='x' must be a whole number"),
        (node(Wall, paint=node(Paint, layers=1), prices={"a": "x"}), "wall.prices.a='x' must be a number"),
    ],
    ids=str,
)
def test_what_cannot_be_built_names_the_place_and_the_mend(spec: Any, complaint: str) -> None:
    with pytest.raises(RequestError) as caught:
        build(spec, Wall, "wall")
    assert complaint in str(caught.value)


def test_one_that_is_made_by_hand_is_checked_too() -> None:
    assert Paint(1, 0.25, "red").colour == "red"
    assert repr(Paint(2, gloss=0.5)) == "Paint(layers=2, gloss=0.5, colour=None)"
    with pytest.raises(RequestError, match=r"Paint\.gloss=1 must be a number of more than 0 and less than 1"):
        Paint(1, gloss=1)
    with pytest.raises(ValueError, match="needs 2 layers"):
        Gold(1, karat=3)


def test_what_a_field_takes_is_said_in_words() -> None:
    assert words(Literal[0] | Annotated[int, AtLeast(8)]) == "0, or a whole number of 8 or more"
    assert words(bool | None) == "true or false, or null"


@pytest.mark.parametrize(
    "text", ["def (", "raise SystemExit(7)", "1 / 0", "import no_such_module", "raise KeyboardInterrupt"]
)
def test_a_module_that_does_not_import_is_told(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_paint.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match=r"paint\._target_=own_paint\.Own: "):
        build({"_target_": "own_paint.Own"}, Paint, "paint")
