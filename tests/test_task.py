"""A task from outside says what one timed unit of work is, and the engine times and judges by it."""

import json
from pathlib import Path

import pytest

from tests import study
from tests.fakes import TwoCalls
from tuner.errors import RequestError
from tuner.request import compose
from tuner.testing.fakes import Null


def test_a_study_times_and_judges_by_the_task_that_it_names(place: Path) -> None:
    one = study.deploy(study.node(Null, ms=1.0))
    assert study.tune(place, one, "search_space.batch_size=[4]", "task=two_calls") == 0
    (trial,) = json.loads((place / "out/linear-cpu-001/trials.json").read_text())
    measured = trial["measurement"]
    assert measured["latency_ms"]["p50"] == pytest.approx(2, rel=0.01)
    assert measured["throughput"] == pytest.approx(4 / 2e-3, rel=0.01)
    assert measured["more"] == {"second_share": pytest.approx(0.25, rel=0.01)}
    assert measured["accuracy"] == 0.5


def test_another_task_is_another_study_and_the_usual_one_is_as_none(place: Path) -> None:
    def settings(*more: str) -> object:
        return compose.request(study.overrides(place, *more)).resolved.get("task")

    assert settings() is None
    assert settings("task._target_=tuner.task.Call") is None
    assert settings("task=two_calls", "task.least=0.5") == study.node(TwoCalls, least=0.5)


def test_a_task_is_checked_like_every_plugin(place: Path) -> None:
    with pytest.raises(RequestError, match=r"task\._target_=tuner\.testing\.fakes\.Null is not a Task"):
        compose.request(study.overrides(place, "task._target_=tuner.testing.fakes.Null"))
    with pytest.raises(RequestError, match=r"task\.least"):
        compose.request(study.overrides(place, "task=two_calls", "task.least=half"))
