"""Real MLflow in a file: what reviewers will find of a study."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tuner.candidate import Candidate
from tuner.errors import RequestError
from tuner.goal import Goal
from tuner.measurement import Latency, Measurement
from tuner.records import FindingRecord
from tuner.request.tracking import default_uri
from tuner.result import Counts, Ratio, Result, StudyFolder
from tuner.testing.fakes import Null, Rounding
from tuner.tracking import view
from tuner.tracking.tracker import Tracker
from tuner.trial import Failure, Outcome
from tuner.verdict import Finding

CANDIDATE = Candidate((Rounding(2),), Null(1.0), 8)
MEASURED = Measurement(
    Latency(1, 2, 3, 4, (2.5, 3.5)), 8000.0, accuracy=0.75, accuracy_drop=0.125, size_mb=0.5, memory_mb=70.0
)

RESULT = Result(
    study="mine",
    target="cpu",
    model="linear",
    goal=Goal({"latency_ms": 5.0}),
    verdict="feasible",
    interrupted=False,
    samples={"evaluation": 100, "calibration": 10, "training": 0},
    metric="tuner.metrics:top1",
    float_accuracy=0.9,
    trials=Counts(3, 2, 1, 0),
    seconds={"total": 3.0, "search": 2.0, "decide": 0.5, "overhead": 0.1},
    environment={"cpu": "a CPU", "threads": 1, "system": "Linux", "python": "3", "versions": {}},
    review="tune ui",
    command="tune latency_ms=5",
)


@pytest.fixture
def uri(place: Path) -> str:
    return default_uri(place / "out")


@pytest.fixture
def tracker(uri: str) -> Tracker:
    return Tracker(uri, "tests", "mine")


def children(uri: str, tracker: Tracker) -> list[Run]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_run(tracker.run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{tracker.run_id}'")
    return sorted(found, key=lambda run: run.data.tags["trial"])


def test_a_trial_is_a_child_with_its_parameters_and_metrics(uri: str, tracker: Tracker, tmp_path: Path) -> None:
    done = Outcome(CANDIDATE, "complete", MEASURED, seconds={"compile": 1.5})
    tracker.trial("7", "007", done, Goal({"latency_ms": 5, "accuracy_drop": 0.2}), tmp_path / "no.log")
    (run,) = children(uri, tracker)
    assert run.info.status == "FINISHED"
    assert run.data.tags["candidate"] == CANDIDATE.key
    assert (run.data.tags["trial"], run.data.tags["state"]) == ("7", "complete")
    assert run.data.params.items() >= {"batch_size": "8", "Rounding.decimals": "2", "Null.ms": "1.0"}.items()
    assert run.data.metrics.items() >= {
        "latency_p95_ms": 3.0, "throughput_per_s": 8000.0, "accuracy_drop": 0.125, "size_mb": 0.5, "memory_mb": 70.0,
        "excess_latency_ms": -0.4, "seconds_compile": 1.5,
    }.items()  # fmt: skip
    assert run.info.run_name == f"007 {CANDIDATE.label}"
    assert "failure" not in run.data.tags
    assert run.data.tags["verdict"] == "feasible"
    assert "latency_ms 3 ≤ 5" in run.data.tags["mlflow.note.content"]
    assert not MlflowClient(tracking_uri=uri).list_artifacts(run.info.run_id), "an empty log is not worth a file"


def test_a_failure_is_found_by_its_class_with_its_sentence_and_log(uri: str, tracker: Tracker, tmp_path: Path) -> None:
    log = tmp_path / "trial.log"
    log.write_text("Traceback …")
    failure = Failure("crash", "its process died of SIGSEGV")
    tracker.trial("0", "000", Outcome(CANDIDATE, "failed", Measurement(), failure), Goal({"accuracy_drop": 0.01}), log)
    tracker.trial(
        "1",
        "001",
        Outcome(CANDIDATE, "stopped_early", Measurement(), stopped_by="accuracy_drop"),
        Goal({"accuracy_drop": 0.01}),
        log,
    )
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_run(tracker.run_id).info.experiment_id
    (failed,) = client.search_runs([experiment], "tags.failure = 'crash'")
    assert failed.info.status == "FAILED"
    assert failed.data.tags["failure_sentence"] == failure.sentence
    assert [file.path for file in client.list_artifacts(failed.info.run_id)] == ["trial.log"]
    (stopped,) = client.search_runs([experiment], "tags.stopped_by = 'accuracy_drop'")
    assert stopped.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(stopped.info.run_id)] == ["trial.log"]
    assert stopped.data.tags["verdict"] == "infeasible"
    assert tracker.recorded() == {CANDIDATE.key}


def test_what_a_few_calls_showed_is_not_taken_for_measured(uri: str, tracker: Tracker, tmp_path: Path) -> None:
    probed = Measurement(Latency(9, 9, 9, 9, (9, 9)), 900.0, accuracy_drop=0.125, size_mb=0.5, probed=True)
    stopped = Outcome(CANDIDATE, "stopped_early", probed, stopped_by="latency_ms")
    tracker.trial("0", "000", stopped, Goal({"latency_ms": 5.0, "size_mb": 1.0}), tmp_path / "log")
    (run,) = children(uri, tracker)
    assert run.data.metrics == {
        "probe_latency_ms": 9.0, "probe_throughput_per_s": 900.0, "probe_excess_latency_ms": 0.8,
        "accuracy_drop": 0.125, "size_mb": 0.5, "excess_size_mb": -0.5,
    }  # fmt: skip
    assert "latency_ms ≈ 9 instead of 5" in run.data.tags["mlflow.note.content"]


def ordered(uri: str, tracker: Tracker) -> list[str]:
    """Studies and trials by their tags, as the view has them."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_run(tracker.run_id).info.experiment_id
    runs = client.search_runs([experiment], order_by=[f"{json.loads(view.state(Goal()))['orderByKey']} DESC"])
    return [run.data.tags.get("trial", run.data.tags.get("study")) for run in runs]


def test_the_view_begins_with_the_study_and_its_champion(uri: str, tracker: Tracker, tmp_path: Path) -> None:
    for name in ("result.json", "report.html"):
        (tmp_path / name).write_text("{}")
    goal, log = Goal({"latency_ms": 5.0}), tmp_path / "log"
    backends = [Candidate((), Null(float(ms)), 8) for ms in range(1, 6)]
    rates = [8000.0, 9000.0, 7000.0]
    measured = [replace(MEASURED, throughput=rate) for rate in rates]
    slow = replace(MEASURED, latency_ms=Latency(9, 9, 9, 9, (9, 9)))
    done = [Outcome(c, "complete", m) for c, m in zip(backends, [*measured, slow], strict=False)]
    done.append(Outcome(backends[4], "failed", Measurement(), Failure("error", "no")))
    for number, outcome in enumerate(done):
        tracker.trial(str(number), f"{number:03d}", outcome, goal, log)
    assert ordered(uri, tracker) == ["mine", "1", "0", "2", "3", "4"], "the better, the slow, the failed"
    first, second = (FindingRecord.of(Finding(backends[i], measured[i])) for i in (2, 0))
    tracker.verdict(StudyFolder(tmp_path), replace(RESULT, verdict="infeasible", nearest_miss=first), [])
    tracker.verdict(StudyFolder(tmp_path), replace(RESULT, champion=first, runners_up=[second], registered={
        "model": "m", "version": "1", "new": True, "champion": False,
    }), [])  # fmt: skip
    assert ordered(uri, tracker) == ["mine", "2", "0", "1", "3", "4"]
    study = MlflowClient(tracking_uri=uri).get_run(tracker.run_id)
    assert study.data.metrics["throughput_per_s"] == study.data.metrics["champion_throughput_per_s"] == 7000
    again = replace(RESULT, champion=second, registered={"model": "m", "version": "2", "new": True, "champion": False})
    tracker.verdict(StudyFolder(tmp_path), again, [])
    assert ordered(uri, tracker)[:2] == ["mine", "0"]
    roles = {run.data.tags["trial"]: run.data.tags.get("role") for run in children(uri, tracker)}
    assert roles == {"0": "champion", "1": None, "2": None, "3": None, "4": None}, "one decided before has none left"


def test_of_a_long_log_the_end_is_kept(uri: str, tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    log = tmp_path / "trial.log"
    log.write_text("noise\n" * 100_000 + "the reason\n")
    tracker.trial("0", "000", Outcome(CANDIDATE, "complete", MEASURED), Goal({"accuracy_drop": 0.01}), log)
    (run,) = children(uri, tracker)
    text = MlflowClient(tracking_uri=uri).download_artifacts(run.info.run_id, "trial.log", str(tmp_path / "kept"))
    assert Path(text).stat().st_size < 300_000
    assert Path(text).read_text().endswith("the reason")


def test_a_long_sentence_or_label_is_no_obstacle(tracker: Tracker, tmp_path: Path) -> None:
    many = Candidate(tuple(Rounding(n) for n in range(40)), Null(), 1)
    tracker.trial(
        "0",
        "000",
        Outcome(many, "failed", Measurement(), Failure("error", "so long " * 700)),
        Goal({"accuracy_drop": 0.01}),
        tmp_path / "log",
    )
    assert tracker.recorded() == {many.key}


def test_a_study_opened_again_is_the_same_run(uri: str, tracker: Tracker, tmp_path: Path) -> None:
    tracker.describe({"objective": "throughput"}, {"model": "m"})
    tracker.trial("0", "000", Outcome(CANDIDATE, "complete", MEASURED), Goal({"accuracy_drop": 0.01}), tmp_path / "log")
    tracker.close("KILLED")
    again = Tracker(uri, "tests", "mine")
    assert again.run_id == tracker.run_id
    assert again.recorded() == {CANDIDATE.key}
    again.describe({"objective": "throughput"}, {"model": "m"})
    again.close("FINISHED")
    assert MlflowClient(tracking_uri=uri).get_run(again.run_id).info.status == "FINISHED"
    assert Tracker(uri, "tests", "other").recorded() == set()


def test_the_verdict_comes_with_the_champion(uri: str, tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "champion/files").mkdir(parents=True)
    (tmp_path / "champion/files/weights.npy").write_bytes(b"w")
    for name in ("result.json", "report.html"):
        (tmp_path / name).write_text("{}")
    champion = FindingRecord.of(Finding(CANDIDATE, MEASURED), {"share": 0.5})
    speedup = {"vs_eager": Ratio(2.0, (1.5, 2.5)), "vs_best_untuned": None}
    result = replace(RESULT, champion=champion, speedup=speedup, content={"model": "m0", "data": "d0"})
    tracker.verdict(StudyFolder(tmp_path), result, [])
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(tracker.run_id)
    assert run.data.metrics.items() >= {
        "speedup_vs_eager": 2.0, "speedup_vs_eager_low": 1.5, "speedup_vs_eager_high": 2.5,
        "champion_throughput_per_s": 8000.0, "champion_roofline_share": 0.5, "trials_total": 3.0,
    }.items()  # fmt: skip
    assert "speedup_vs_best_untuned" not in run.data.metrics
    assert run.data.tags["verdict"] == "feasible"
    assert (run.data.tags["content_model"], run.data.tags["content_data"]) == ("m0", "d0")
    assert run.data.tags["champion"] == CANDIDATE.label
    assert {file.path for file in client.list_artifacts(tracker.run_id)} == {"result.json", "report.html", "champion"}
    assert run.info.artifact_uri.startswith((tmp_path / "out").as_uri()), "beside the store, wherever one stands"


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(RequestError, match=r"mlflow\.db"):
        Tracker(default_uri(tmp_path), "tests", "mine")
