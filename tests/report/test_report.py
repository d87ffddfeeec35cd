"""What a reviewer reads of a study: its page, its note in MLflow, and the words in both."""

import contextlib
import html
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests import study
from tests.conftest import furnished
from tests.study import literal, node
from tuner.goal import Goal
from tuner.records import TrialRecord
from tuner.report import console, words
from tuner.report import page as report
from tuner.report import pictures as picture
from tuner.report.note import study_note
from tuner.result import Result, StudyFolder
from tuner.testing.fakes import Null, Scrambling
from tuner.testing.faults import Faulty
from tuner.trial import Failure

Files = tuple[Result, list[TrialRecord]]
CRASH = "three is not a colour"


@pytest.fixture(scope="module")
def reviewed(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a champion, a slower one as it comes, one that fails, one too slow and one too inaccurate."""
    folder = furnished(tmp_path_factory.mktemp("reviewed"), shared)
    deploy = [
        {"backend": node(Null, ms=1.0)},
        {"backend": node(Null)},
        {"backend": node(Null, ms=22.0)},
        {"backend": node(Faulty, fault="raise")},
        {"compress": node(Scrambling), "backend": node(Null, ms=1.0)},
    ]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as said:
        patch.setattr(console, "LINE_EVERY_S", 0.0)
        asked = ("latency_ms=20", "search_space.batch_size=[4]", f"search_space.deploy={literal(deploy)}")
        assert study.tune(folder, *asked) == 0
    (folder / "said").write_text(said.getvalue())
    return folder


@pytest.fixture
def files(reviewed: Path) -> Files:
    folder = StudyFolder(reviewed / "out/linear-cpu-001")
    return folder.read_result(), folder.read_trials()


def test_where_there_is_no_terminal_lines_say_how_far_it_is(reviewed: Path) -> None:
    lines = re.findall(r"^(\d) of \d+ candidates; (.*)$", (reviewed / "said").read_text(), flags=re.MULTILINE)
    assert [int(done) for done, _ in lines] == [1, 2, 3, 4, 5]
    assert re.fullmatch(r"best [\d,]+ samples/s null.*", lines[-1][1])


def test_the_page_answers_a_reviewer_and_needs_nothing_else(reviewed: Path) -> None:
    page = (reviewed / "out/linear-cpu-001/report.html").read_text()
    told = html.unescape(re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL))
    result = study.result(reviewed)
    assert f"{result['champion']['label']} serves" in told
    assert result["command"].split()[1] in told
    assert CRASH in told and "stopped early" in told
    assert "numpy " in told, "the versions"
    assert not re.search(r"<(script|link|img|iframe)", page)
    assert not re.search(r"(src|href)=[\"'](?!#)", page), "nothing is fetched"
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 5
    for drawing in drawings:
        ET.fromstring(drawing)
    ids = [name for drawing in drawings for name in re.findall(r' id="([^"]+)"', drawing)]
    assert len(ids) == len(set(ids)), "several drawings stand on one page"


def test_a_speed_up_is_told_with_its_interval_and_content_by_its_digest(reviewed: Path) -> None:
    result = study.result(reviewed)
    low, high = result["speedup"]["vs_best_untuned_ci95"]
    assert 1 < low <= result["speedup"]["vs_best_untuned"] <= high
    parent, _ = study.runs(reviewed)
    ends = [parent.data.metrics[f"speedup_vs_best_untuned_{end}"] for end in ("low", "high")]
    assert ends == [pytest.approx(low), pytest.approx(high)]
    page = (reviewed / "out/linear-cpu-001/report.html").read_text()
    digests = result["content"].values()
    assert set(result["content"]) == {"model", "data"} and all(re.fullmatch("[0-9a-f]{16}", d) for d in digests)
    for told in (page, parent.data.tags["mlflow.note.content"]):
        assert f"(95 % interval {low:.2f} to {high:.2f})" in told
        assert all(digest in told for digest in digests)


def test_the_page_is_made_again_from_the_two_files(reviewed: Path, tmp_path: Path) -> None:
    folder = reviewed / "out/linear-cpu-001"
    for name in ("result.json", "trials.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    report.write(StudyFolder(tmp_path))
    assert (tmp_path / "report.html").read_text() == (folder / "report.html").read_text()


@pytest.mark.parametrize("objective", ["latency", "size_mb"])
def test_a_page_without_a_champion(files: Files, objective: str) -> None:
    result, trials = files
    missed = replace(
        result,
        verdict="infeasible",
        goal=Goal({"latency_ms": 0.001}, objective=objective),
        champion=None,
        runners_up=[],
        nearest_miss=result.champion,
        speedup={"vs_eager": None, "vs_best_untuned": None},
    )
    page = report.page(missed, [trial for trial in trials if not trial.stopped_by])
    assert "None within latency_ms ≤ 0.001" in page
    assert "none within the limits" in page
    assert "accuracy_drop" not in words.sentence(missed), "a limit that was not declared"


def test_a_page_of_nothing_measured(files: Files) -> None:
    result, trials = files
    failed = [trial for trial in trials if trial.failure]
    empty = replace(
        result, verdict="infeasible", champion=None, runners_up=[], nearest_miss=None, eager=None, best_untuned=None
    )
    assert CRASH in report.page(empty, failed)
    assert CRASH in study_note(empty, failed)


def test_names_cannot_break_the_page_or_the_note(files: Files) -> None:
    result, trials = files
    hostile = "<b>|`x`"
    trials[0] = replace(trials[0], state="failed", failure=Failure("error", hostile))
    assert hostile not in report.page(result, trials)
    assert "\\<b>\\|\\`x\\`" in study_note(result, trials)


def test_setbacks_are_told_by_reason(files: Files) -> None:
    result, trials = files
    told = {
        setback.what: setback for setback in words.setbacks(replace(result, left_out={"tpu": "no such device"}), trials)
    }
    assert CRASH in told["error"].why
    assert told["stopped early"].why.startswith("accuracy_drop")
    assert told["over a limit"].why.startswith("latency_ms 2")
    assert told["over a limit"].labels == ("null-22 · b4",)
    assert (told["left out"].why, told["left out"].labels) == ("no such device", ("tpu",))


def test_what_was_far_behind_is_not_said_to_break_a_limit(
    files: Files,
) -> None:
    result, trials = files
    (slow,) = [trial for trial in trials if trial.label == "null-22 · b4"]
    behind = replace(slow, state="stopped_early", stopped_by="behind")
    drawing = picture.choices(result, [behind if trial is slow else trial for trial in trials])
    assert "far behind" in drawing
    assert "none within the limits" in picture.choices(result, trials)
    glanced = replace(behind, measurement=replace(behind.measurement, probed=True))
    assert "by a few calls" in picture.history(result, [glanced if trial is slow else trial for trial in trials])
    assert "by a few calls" not in picture.history(result, [t for t in trials if not t.measurement.probed])


def test_mlflow_has_the_note_the_page_and_the_roles(reviewed: Path) -> None:
    parent, children = study.runs(reviewed)
    client = MlflowClient(tracking_uri=f"sqlite:///{reviewed / 'out/mlflow.db'}")
    told = parent.data.tags["mlflow.note.content"]
    assert study.result(reviewed)["command"] in told
    assert CRASH in told and "How surely" in told
    assert {"report.html", "result.json"} <= {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert client.get_model_version_by_alias("linear-cpu", "candidate").run_id == parent.info.run_id
    roles = {run.data.tags.get("role"): run.info.run_name for run in children}
    assert roles["champion"].endswith(study.result(reviewed)["champion"]["label"])
    assert {run.data.tags["verdict"] for run in children} == {"feasible", "infeasible", "failed"}
    assert "mlflow.note.content" in client.get_experiment(parent.info.experiment_id).tags


def test_a_latency_without_an_interval_is_told_so(files: Files) -> None:
    result, _ = files
    assert result.champion is not None and result.champion.measurement.latency_ms is not None
    latency = replace(result.champion.measurement.latency_ms, ci95=None)
    measured = replace(result.champion.measurement, latency_ms=latency)
    without = replace(result, verdict="feasible", champion=replace(result.champion, measurement=measured))
    told = " ".join(words.assurance(without))
    assert "ms (how sure that is, is not known); the limit is 20 ms." in told
    assert "the bad end of an interval is not, or is not known" in told


def test_where_nothing_raced_no_race_is_told(files: Files) -> None:
    result, trials = files
    assert "from one race" in " ".join(words.assurance(result))
    compared = dict.fromkeys(result.speedup)
    alone = replace(result, noise=None, race_rounds=0, runners_up=[], speedup=compared)
    assert "race" not in " ".join(words.assurance(alone))
    assert "from one race" not in report.page(alone, trials) + study_note(alone, trials)
