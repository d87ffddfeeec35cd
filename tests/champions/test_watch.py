"""The registered champion examined again: slower, less accurate, not loading, or as it was."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from benchmarks.common import prepared_rig
from tests import study
from tests.conftest import furnished
from tests.study import deploy, node, tune
from tuner.candidate import Candidate
from tuner.champions import watch
from tuner.champions.alarm import notify
from tuner.champions.examined import TOLERANCE, Examined
from tuner.champions.watch import Watch
from tuner.decide.package import deliver
from tuner.errors import OF_THE_MACHINE, CandidateError, Kind
from tuner.evaluate.reference import Reference
from tuner.evaluate.rig import Rig
from tuner.measure.timing import Turns
from tuner.measurement import Measurement
from tuner.request.tracking import default_uri
from tuner.testing.fakes import Null
from tuner.testing.faults import Moody
from tuner.tracking.registry import Registry
from tuner.verdict import Finding

NAME = "linear-cpu"


class Registered:
    """A champion as the registry keeps it, whose mood can change, and what examines it."""

    def __init__(self, watch: Watch, folder: Path, mood: Path) -> None:
        self.watch, self.folder, self.mood = watch, folder, mood

    def examined(self, **mood: Any) -> Examined:
        self.mood.write_text(json.dumps({"ms": 1.0} | mood))
        return self.watch.examine(NAME, "3", self.folder)

    def record(self, **changes: Any) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "record.json").read_text()) | changes
        (self.folder / "record.json").write_text(json.dumps(found))
        return found


@pytest.fixture(scope="module")
def kept(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    folder = furnished(tmp_path_factory.mktemp("watch"), shared)
    (folder / "registered").mkdir()
    mood = folder / "mood.json"
    mood.write_text('{"ms": 1.0}')
    request, rig = prepared_rig(folder / "scratch", *study.overrides(folder, "latency_ms=20"))
    with Reference(rig, request.reference) as reference:
        candidate = Candidate((), Moody(mood=str(mood)), 4)
        measured = Measurement(accuracy=1.0, accuracy_drop=0.0)
        deliver(rig, Finding(candidate, measured), folder / "registered/champion")
        watching = Watch(request, rig, reference)
        record = watching.record(candidate, folder / "registered/champion", measured)
        (folder / "registered/record.json").write_text(json.dumps(record))
        yield Registered(watching, folder / "registered", mood)


@pytest.fixture
def champion(kept: Registered) -> Iterator[Registered]:
    before = kept.record()
    yield kept
    kept.record(**before)


def test_one_that_is_as_it_was_is_said_to_be(champion: Registered) -> None:
    found = champion.examined()
    assert found.regression is None
    assert found.slowdown == pytest.approx(1, rel=0.01)
    assert (found.accuracy_recorded, found.differing, found.changed) == (1.0, (), {})
    assert found.sentence.startswith("linear-cpu version 3 is as registered: ")


def test_one_that_got_slower_is_told_with_the_interval_and_what_changed(champion: Registered) -> None:
    before = champion.record()
    champion.record(surroundings={**before["surroundings"], "numpy": "1.0"})
    found = champion.examined(ms=1.3)
    assert found.regression == "slower"
    assert found.slowdown == pytest.approx(1.3, rel=0.01)
    assert found.slowdown_ci95 is not None
    low, high = found.slowdown_ci95
    assert TOLERANCE < low <= found.slowdown <= high
    assert found.changed == {"numpy": ("1.0", np.__version__)}
    assert "has regressed, it is slower: 1." in found.sentence
    assert f"Changed since: numpy 1.0 → {np.__version__}." in found.sentence
    assert json.loads(json.dumps(found.to_json()))["changed"] == {"numpy": ["1.0", np.__version__]}


def test_one_that_finds_less_is_told(champion: Registered) -> None:
    found = champion.examined(confused=True)
    assert found.regression == "less accurate"
    assert "it loses 1.0000 against the float model where 0.01 was allowed" in found.sentence
    assert "accuracy 0.0000, recorded 1.0000" in found.sentence


def test_one_that_no_longer_loads_is_told(champion: Registered) -> None:
    found = champion.examined(broken=True)
    assert (found.regression, found.why) == ("does not load", "its driver is too old")
    assert found.sentence.endswith("Changed since: nothing that is recorded.")


def test_one_whose_files_are_torn_is_told(champion: Registered, tmp_path: Path) -> None:
    shutil.copytree(champion.folder, tmp_path / "torn")
    (tmp_path / "torn/champion/manifest.json").unlink()
    found = champion.watch.examine(NAME, "3", tmp_path / "torn")
    assert found.regression == "does not load"
    assert "manifest.json" in found.sentence


def test_one_of_another_model_is_not_compared(champion: Registered) -> None:
    champion.record(terms={**champion.record()["terms"], "model": "other", "limits": "other"})
    found = champion.examined(ms=9)
    assert (found.regression, found.measurement, found.differing) == (None, None, ("model", "limits"))
    assert found.sentence == "linear-cpu version 3 is not compared: it was made of another model."


def test_another_target_is_no_slow_down(champion: Registered) -> None:
    champion.record(terms={**champion.record()["terms"], "target": "other"})
    found = champion.examined(ms=9)
    assert (found.regression, found.slowdown) == (None, None)
    assert "its speed is not compared" in found.sentence


def test_another_machine_is_no_slow_down(champion: Registered) -> None:
    champion.record(surroundings={**champion.record()["surroundings"], "cores": "512"})
    found = champion.examined(ms=9)
    assert (found.regression, found.slowdown) == (None, None)
    assert "its speed is not compared, for the target, the reference or the machine is another" in found.sentence


def test_other_samples_or_another_metric_lose_no_accuracy(champion: Registered) -> None:
    champion.record(terms={**champion.record()["terms"], "samples": "other"})
    found = champion.examined(confused=True)
    assert found.regression is None
    assert "its accuracy is not compared, for the samples or the metric are others" in found.sentence


def test_one_without_a_limit_on_accuracy_is_held_to_none(champion: Registered) -> None:
    champion.record(accuracy_limit=None)
    assert champion.examined(confused=True).regression is None


@pytest.mark.parametrize("kind", OF_THE_MACHINE)
def test_what_the_machine_lacks_is_no_regression(
    champion: Registered, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(*_: Any, **__: Any) -> None:
        raise CandidateError(kind, "its process is gone")

    monkeypatch.setattr(Rig, "scores", scores)
    found = champion.examined()
    assert (found.regression, found.measurement, found.unknown) == (None, None, True)
    assert found.sentence == "linear-cpu version 3 is not compared: its process is gone."


def test_a_reference_that_fails_is_not_the_champions_fault(
    champion: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh_round(*_: Any) -> Turns:
        return Turns({}, {"reference": CandidateError("crash", "the reference crashed")}, False)

    monkeypatch.setattr(watch, "fresh_round", fresh_round)
    found = champion.examined()
    assert (found.regression, found.slowdown) == (None, None)
    assert "its speed is not compared, for the float reference did not run" in found.sentence


@pytest.mark.parametrize(("slowdown", "least", "most"), [(1.2, 19, 20), (1.02, 0, 0)])
def test_a_fifth_is_found_and_a_fiftieth_is_not_under_three_per_cent_of_noise(
    slowdown: float, least: int, most: int
) -> None:
    generator = np.random.default_rng(0)
    reported = 0
    for _ in range(20):
        then, now = generator.normal(0, 0.03, (2, 6))
        reported += watch.slower(watch.slowdown_interval(now + math.log(slowdown), then))
    assert least <= reported <= most


def test_a_command_that_fails_is_told() -> None:
    assert notify("cat > /dev/null", {}) is None
    problem = notify("echo no mail today >&2; exit 3", {})
    assert problem == "on_regression: exit code 3 (no mail today): echo no mail today >&2; exit 3"


def test_its_password_is_not_told() -> None:
    problem = notify("false https://ada:secret@hooks.example/x; printf '\\344' >&2; exit 1", {})
    assert problem is not None and "secret" not in problem and "ada:***@hooks.example" in problem


# --- whole studies


@pytest.mark.slow
def test_champions_follow_each_other(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(default_uri(place / "out"))
    mood = place / "mood.json"
    mood.write_text('{"ms": 1.0}')
    moody = deploy(node(Moody, mood=str(mood)))
    common = ("latency_ms=20", "search_space.batch_size=[4]")

    # asked, the tuner proposes; a person promotes
    assert tune(place, *common, moody) == 0
    assert registry.aliases(NAME) == {"candidate": "1"}
    first = study.result(place)
    assert first["registered"] == {"model": NAME, "version": "1", "new": True, "champion": False}
    assert first["watch"] is None
    assert "linear-cpu version 1, a candidate: tune promote linear-cpu" in capsys.readouterr().out
    registry.promote(NAME, "1", "me", "the first")

    # one that is slower does not take its place, and is not registered either
    assert tune(place, *common, deploy(node(Null, ms=2.0)), "watch=true", "promote=auto") == 0
    second = study.result(place, "linear-cpu-002")
    assert second["champion"]["label"] == "moody · b4"
    assert second["registered"] == {"model": NAME, "version": "1", "new": False, "champion": True}
    assert second["watch"]["regression"] is None
    assert registry.versions(NAME) == ["1"]
    assert (place / "out/linear-cpu-002/champion/manifest.json").exists()
    assert study.runs(place, "linear-cpu-002")[0].data.tags["regression"] == "none"

    # nor one that is as fast
    assert tune(place, *common, deploy(node(Null, ms=1.0)), "promote=auto") == 0
    assert study.result(place, "linear-cpu-003")["registered"]["new"] is False
    assert study.result(place, "linear-cpu-003")["watch"] is None

    # a faster one does, by itself where that was asked for
    assert tune(place, *common, deploy(node(Null, ms=0.5)), "promote=auto") == 0
    assert registry.aliases(NAME) == {"candidate": "2", "champion": "2"}
    last = registry.history(NAME)[-1]
    assert (last.who, last.why) == (
        "promote=auto, study linear-cpu-004", "better than version 1 beyond the noise of their race",
    )  # fmt: skip

    # one with other limits is a candidate at most
    assert tune(place, *common, "accuracy_drop=0.02", deploy(node(Null, ms=0.25)), "promote=auto") == 0
    assert registry.aliases(NAME) == {"candidate": "3", "champion": "2"}


@pytest.mark.slow
def test_a_watched_champion_that_regressed_raises_the_alarm(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(default_uri(place / "out"))
    mood, heard = place / "mood.json", tmp_path / "heard.json"
    mood.write_text('{"ms": 1.0}')
    common = ("latency_ms=20", "search_space.batch_size=[4]")
    assert tune(place, *common, deploy(node(Moody, mood=str(mood))), "promote=auto") == 0
    assert registry.history(NAME)[-1].why == "there was no champion"

    mood.write_text('{"ms": 1.5}')
    watched = ("watch=true", deploy(node(Null, ms=2.0)))
    assert tune(place, *common, *watched, f"on_regression='cat > {heard}'") == 4
    found = study.result(place, "linear-cpu-002")["watch"]
    assert (found["regression"], found["on_regression"]) == ("slower", None)
    assert found["slowdown_ci95"][0] > found["tolerance"]
    facts = json.loads(heard.read_text())
    assert (facts["study"], facts["model"], facts["version"]) == ("linear-cpu-002", NAME, "1")
    assert facts["sentence"] == found["sentence"]
    parent, _ = study.runs(place, "linear-cpu-002")
    assert parent.data.tags["regression"] == "slower"
    assert found["sentence"] in capsys.readouterr().out
    assert study.result(place, "linear-cpu-002")["registered"]["new"] is False, "slower, and still the best there is"

    mood.write_text('{"ms": 1.0, "broken": true}')
    assert tune(place, *common, *watched, "promote=auto", "on_regression='exit 1'") == 4
    found = study.result(place, "linear-cpu-003")
    assert found["watch"]["regression"] == "does not load"
    assert "exit code 1" in found["watch"]["on_regression"]
    assert registry.aliases(NAME) == {"candidate": "2", "champion": "2"}
    assert registry.history(NAME)[-1].why == "version 1 does not load"

    # moved by hand to where nothing is
    client = MlflowClient(tracking_uri=default_uri(place / "out"))
    lost = client.create_model_version(NAME, (tmp_path / "nowhere").as_uri()).version
    client.set_registered_model_alias(NAME, "champion", lost)
    assert tune(place, *common, *watched, "search_space.batch_size=[2]") == 4
    assert "its files cannot be had" in study.result(place, "linear-cpu-004")["watch"]["sentence"]
