"""Spaces: every point can be had and is valid; what is no space is refused before anything is spent."""

import importlib.resources
import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from tests.study import node
from tuner.candidate import Candidate
from tuner.errors import RequestError
from tuner.plugin import Plugin, encode
from tuner.search import starts
from tuner.search.recipe import RECIPE, Recipe
from tuner.search.space import Space
from tuner.system.loader import build
from tuner.testing.fakes import Null, Rounding, Scrambling
from tuner.testing.faults import Faulty

ranges = st.one_of(
    st.builds(lambda low, more: {"low": low, "high": low + more}, st.integers(1, 9), st.integers(0, 4)),
    st.builds(
        lambda low, more, step: {"low": low, "high": low + more, "step": step},
        st.integers(1, 9), st.integers(0, 20), st.integers(1, 7),
    ),
    st.builds(
        lambda low, high, factor: {"low": low, "high": low * high, "factor": factor},
        st.integers(1, 5), st.integers(1, 40), st.integers(2, 4),
    ),
)  # fmt: skip
decimals = st.one_of(ranges, st.integers(0, 5), st.lists(st.integers(0, 5), min_size=1, max_size=3))
milliseconds = st.one_of(
    st.sampled_from([0.5, 1.0]),
    st.just({"low": 0.25, "high": 1.0, "step": 0.25}),
    st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=1, max_size=3),
)
transforms = st.lists(
    st.one_of(
        st.none(),
        st.builds(lambda d: node(Rounding, decimals=d), decimals),
        st.builds(lambda d: node(Scrambling, decimals=d), decimals),
    ),
    min_size=1,
    max_size=3,
)
backends = st.lists(
    st.builds(lambda kind, ms: {"backend": node(kind, ms=ms)}, st.sampled_from([Null, Faulty]), milliseconds),
    min_size=1,
    max_size=3,
)
trees = st.fixed_dictionaries(
    {"batch_size": st.one_of(ranges, st.lists(st.integers(1, 64), min_size=1, max_size=3)), "deploy": backends},
    optional={"compress": transforms, "compress_again": transforms},
)


def parsed(tree: Any) -> Space:
    try:
        return Space.parse(tree)
    except RequestError as error:
        assume("two different ranges" not in str(error))
        raise


@settings(max_examples=60, deadline=None)
@given(tree=trees)
def test_every_point_is_a_distinct_valid_candidate_that_its_parameters_give_back(tree: dict[str, Any]) -> None:
    space = parsed(tree)
    points = space.points()
    assume(points is not None and len(points) < 2000)
    assert points
    candidates = [candidate for _, candidate in points]
    assert len(set(candidates)) == len(candidates) == len({candidate.key for candidate in candidates})
    for params, candidate in points:
        assert space.sample(FixedTrial(params)) == candidate == space.at(params)
        assert space.at(space.locate(candidate) or {}) == candidate
        assert Candidate.from_json(json.loads(json.dumps(candidate.to_json()))) == candidate
        assert candidate.batch_size in space.counts("batch_size")
        assert candidate.batch_size >= 1
    assert all(not candidate.transforms for _, candidate in starts.uncompressed(space))
    for params, candidate in (*starts.uncompressed(space), *starts.usual(space), *starts.hardest(space)):
        assert space.sample(FixedTrial(params)) == candidate
        assert candidate in candidates


@settings(max_examples=40, deadline=None)
@given(tree=trees, data=st.data())
def test_whatever_a_sampler_proposes_is_a_point(tree: dict[str, Any], data: st.DataObject) -> None:
    space = parsed(tree)
    points = space.points()
    assume(points is not None and len(points) < 2000)

    class Drawn:
        def suggest_categorical(self, name: str, choices: Any) -> Any:
            return data.draw(st.sampled_from(list(choices)))

        def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
            return data.draw(st.integers(0, (high - low) // step)) * step + low

        def suggest_float(self, name: str, low: float, high: float, *, step: Any = None, log: bool = False) -> float:
            return data.draw(st.integers(0, round((high - low) / step))) * step + low

    assert space.sample(Drawn()) in [candidate for _, candidate in points or ()]


@settings(max_examples=30, deadline=None)
@given(tree=trees)
def test_without_a_plugin_no_point_uses_it(tree: dict[str, Any]) -> None:
    space = parsed(tree)
    for plugin in space.plugins:
        kept = space.without({plugin})
        assert plugin not in kept.plugins
        assert set(kept.recipes) < set(space.recipes)


def test_what_is_no_point_is_not_located() -> None:
    tree = {"batch_size": {"low": 1, "high": 8, "factor": 2}, "deploy": [{"backend": node(Null)}]}
    space = Space.parse(tree)
    assert space.locate(Candidate((), Null(), 4)) is not None
    for stranger in (Candidate((), Null(), 3), Candidate((), Null(), 16), Candidate((), Null(1.5), 4)):
        assert space.locate(stranger) is None
    assert space.locate(Candidate((Rounding(),), Null(), 4)) is None


def test_what_is_nested_under_a_choice_exists_only_there() -> None:
    tree = {
        "batch_size": [1, 2],
        "deploy": [
            {"quantize": [None, node(Rounding)], "backend": node(Null)},
            {"batch_size": 8, "backend": node(Null, ms=3.0)},
        ],
    }
    points = Space.parse(tree).points()
    assert points is not None
    assert {(len(c.transforms), c.backend.ms, c.batch_size) for _, c in points} == {  # type: ignore[attr-defined]
        (0, 2.0, 1), (0, 2.0, 2), (1, 2.0, 1), (1, 2.0, 2), (0, 3.0, 8),
    }  # fmt: skip


def test_transforms_apply_in_the_order_in_which_they_stand() -> None:
    tree = {"batch_size": 1, "b": node(Rounding), "a": node(Scrambling), "deploy": {"backend": node(Null)}}
    points = Space.parse(tree).points()
    assert points is not None
    assert [type(t) for t in points[0][1].transforms] == [Rounding, Scrambling]


def test_the_sampler_sees_the_recipe_beside_the_ranges() -> None:
    tree = {
        "batch_size": {"low": 1, "high": 64, "factor": 2},
        "compress": [None, node(Rounding, decimals={"low": 0, "high": 4})],
        "backend": node(Null),
    }
    points = Space.parse(tree).points()
    assert points is not None
    assert len(points) == 7 + 7 * 5
    assert {frozenset(params) for params, _ in points} == {frozenset({RECIPE, "log2 batch_size", "Rounding.decimals"})}


def test_what_cannot_be_counted_has_no_points() -> None:
    space = Space.parse({"batch_size": 1, "backend": node(Null, ms={"low": 0.1, "high": 9.0, "log": True})})
    assert space.points() is None
    assert starts.uncompressed(space)
    assert space.sample(FixedTrial({RECIPE: next(iter(space.recipes)), "Null.ms": 0.7})).backend == Null(0.7)


BACKEND = node(Null)
HALVES = {"low": 0, "high": 2, "step": 0.5}


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"batch_size": 1}, "exactly one backend"),
        ({"backend": BACKEND}, "batch_size"),
        ({"batch_size": 1, "a": BACKEND, "b": BACKEND}, "exactly one backend"),
        ({"batch_size": 1, "deploy": []}, "empty"),
        ({"batch_size": [], "backend": BACKEND}, "empty"),
        ({"batch_size": 0, "backend": BACKEND}, "batch_size=0"),
        ({"batch_size": -4, "backend": BACKEND}, "batch_size=-4"),
        ({"batch_size": 1.5, "backend": BACKEND}, "batch_size=1.5"),
        ({"batch_size": "8", "backend": BACKEND}, "batch_size='8'"),
        ({"batch_size": None, "backend": BACKEND}, "batch_size"),
        ({"batch_size": {"low": 0, "high": 4}, "backend": BACKEND}, "batch_size"),
        ({"batch_size": {"low": 1, "high": 4.0, "step": 0.5}, "backend": BACKEND}, "batch_size"),
        ({"batch_size": {"low": 4, "high": 1}, "backend": BACKEND}, "low must not exceed high"),
        (
            {"batch_size": {"low": 1, "high": 4, "stp": 1}, "backend": BACKEND},
            "did you mean search_space.batch_size.step?",
        ),
        ({"batch_size": {"low": 1, "high": 4, "step": 0}, "backend": BACKEND}, "step=0"),
        ({"batch_size": {"low": 1, "high": 4, "factor": 1}, "backend": BACKEND}, "factor=1"),
        ({"batch_size": {"low": 1, "high": 4, "factor": 2, "step": 1}, "backend": BACKEND}, "one of step"),
        ({"batch_size": {"low": "a", "high": 4}, "backend": BACKEND}, "low='a'"),
        ({"batch_size": 1, "backend": "tuner.testing.fakes.Null"}, "no plugin"),
        ({"batch_size": 1, "compress": 5, "backend": BACKEND}, "compress: 5"),
        ({"batch_size": 1, "backend": {"_target_": "tests.fakes.Nul"}}, "tests.fakes.Nul"),
        ({"batch_size": 1, "backend": {"_target_": "tests.nothing.Null"}}, "tests.nothing"),
        ({"batch_size": 1, "b": {"_target_": "pathlib.Path"}}, "search_space.b._target_=pathlib.Path is not a Plugin"),
        (
            {"batch_size": 1, "b": {"_target_": "tuner.plugin.Backend"}},
            "search_space.b._target_=tuner.plugin.Backend is not",
        ),
        ({"batch_size": 1, "b": {"_target_": "tests.fakes.Named"}}, "search_space.b.name must be given: text"),
        ({"batch_size": 1, "backend": {"_target_": "Null"}}, "Null"),
        ({"batch_size": 1, "backend": BACKEND | {"mss": 1.0}}, "did you mean search_space.backend.ms?"),
        (
            {"batch_size": 1, "d": [None, {"b": BACKEND | {"ms": "fast"}}]},
            "search_space.d[1].b.ms='fast' must be a number",
        ),
        ({"batch_size": 1, "b": BACKEND | {"ms": [1, True]}}, "search_space.b.ms=True must be a number"),
        ({"batch_size": 1, "b": BACKEND | {"ms": {"low": True, "high": 2}}}, "search_space.b.ms.low=True must be"),
        ({"batch_size": 1, "b": BACKEND | {"ms": {"low": 1, "high": math.inf}}}, "search_space.b.ms.high=inf must be"),
        ({"batch_size": 1, "a": node(Rounding, decimals=HALVES), "b": BACKEND}, "decimals=0.5 must be a whole number"),
        ({"batch_size": 1, "b": node(Faulty, where={"low": 0, "high": 2})}, "search_space.b.where=0 must be one of"),
        (
            {
                "batch_size": 1,
                "a": [node(Rounding, decimals={"low": 0, "high": 1}), node(Rounding, decimals={"low": 0, "high": 2})],
                "backend": BACKEND,
            },
            "two different ranges for Rounding.decimals",
        ),
    ],
    ids=str,
)
def test_what_is_no_space_is_refused(tree: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError) as caught:
        Space.parse(tree)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "tree",
    [
        {"batch_size": 1, "backend": {"_target_": None}},
        {"batch_size": 1, "a": {"_target_": "tests.fakes.Named"}},
        {"batch_size": 1, "backend": node(Null, ms={"low": "a", "high": 2})},
        {"batch_size": 1, "backend": node(Null, ms={"low": None, "high": 2})},
        {"batch_size": 1, "backend": node(Null, ms={"low": 0.0, "high": 1.0, "factor": 2.5})},
    ],
    ids=str,
)
def test_no_tree_is_a_traceback(tree: Any) -> None:
    with pytest.raises(RequestError):
        Space.parse(tree)


@pytest.mark.parametrize(
    "tree",
    [
        None,
        5,
        [{"batch_size": 1, "backend": BACKEND}, 3],
        {"batch_size": True, "backend": BACKEND},
    ],
    ids=str,
)
def test_no_odd_tree_is_a_traceback(tree: Any) -> None:
    with pytest.raises(RequestError):
        Space.parse(tree)


def test_the_default_space_is_a_space() -> None:
    text = importlib.resources.files("tuner.search_spaces").joinpath("default.yaml").read_text()
    space = Space.parse(yaml.safe_load(text))
    assert {type(plugin).__name__ for plugin in space.plugins} >= {
        "Eager",
        "Inductor",
        "OnnxRuntime",
        "OpenVINO",
        "TVM",
    }
    assert all(not candidate.transforms for _, candidate in starts.uncompressed(space))
    assert [candidate.label for _, candidate in starts.hardest(space)] == [
        "onnxruntime · pruned87.5 · int8-static · b8",
        "onnxruntime · pruned87.5 · int8-dynamic · b8",
        "openvino · pruned87.5 · int8-nncf · b8",
        "openvino-bf16 · pruned87.5 · int8-nncf · b8",
    ]
    for plugin in space.plugins:
        assert build(encode(plugin), Plugin, "plugin") == plugin


@settings(max_examples=40, deadline=None)
@given(tree=trees, size=st.integers(1, 64))
def test_the_space_at_a_batch_size_has_its_points_of_that_size_and_no_others(tree: dict[str, Any], size: int) -> None:
    space = parsed(tree)
    points = space.points()
    assume(points is not None and len(points) < 2000)
    assert points is not None
    at_size = space.at_batch(size).points() or []
    assert {candidate for _, candidate in at_size} == {c for _, c in points if c.batch_size == size}


def test_replicas_that_are_left_open_are_up_to_one_a_core() -> None:
    tree = {"batch_size": [1, 8], "deploy": [{"backend": node(Null)}, {"replicas": 1, "backend": node(Null, ms=3.0)}]}
    assert Space.parse(tree).counts("replicas") == [1]
    space = Space.parse(tree).shared(6)
    assert space.counts("replicas") == [1, 2, 4]
    points = space.points()
    assert points is not None and len(points) == 2 * 3 + 2
    for params, candidate in points:
        assert space.at(params) == candidate and space.locate(candidate) is not None
    assert Space.parse(tree).recipes.keys() == space.recipes.keys(), "Optuna knows them by their names"


@pytest.mark.parametrize("replicas", [0, -1, 1.5, True, "many", 100_000, {"low": 0, "high": 4}])
def test_replicas_are_a_whole_number(replicas: Any) -> None:
    with pytest.raises(RequestError, match=r"search_space.replicas=.* must be a whole number from 1 to 1024"):
        Space.parse({"batch_size": 1, "replicas": replicas, "deploy": {"backend": node(Null)}})


def test_replicas_that_would_be_lost_are_told() -> None:
    tree = {"batch_size": 1, "replicas": [1, {"low": 2, "high": 8, "factor": 2}], "deploy": {"backend": node(Null)}}
    with pytest.raises(RequestError, match="different replicas; make them one choice or range"):
        Space.parse(tree)


def test_two_classes_of_one_name_are_told_apart_by_nobody() -> None:
    backends = [{"backend": {"_target_": f"{module}.Held"}} for module in ("tests.fakes", "tests.other_fakes")]
    with pytest.raises(RequestError, match="two plugins are both called Held"):
        Space([Recipe((), each["backend"], 1) for each in backends])


def test_replicas_that_are_left_open_are_as_elsewhere_in_the_space() -> None:
    ranged = {"replicas": {"low": 1, "high": 4, "factor": 2}, "backend": node(Null)}
    space = Space.parse({"batch_size": 1, "deploy": [ranged, {"backend": node(Null, ms=3.0)}]}).shared(8)
    assert space.counts("replicas") == [1, 2, 4]
