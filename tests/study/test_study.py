"""Whole studies of the fakes, through the command."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pytest
from optuna.trial import TrialState

from tests import study
from tests.conftest import furnished
from tests.fakes import Halved, Named, Slow
from tests.study import Held, deploy, literal, node, tune
from tuner import artifact
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.decide.choice import FINALISTS
from tuner.search.journal import journal
from tuner.system.digests import digests
from tuner.testing.fakes import Null, Recovery, Rounding, Scrambling
from tuner.testing.faults import KIND, Absent, Fault, Faulty, FaultyTransform, Fickle

REACHABLE = "latency_ms=20"
JUST_MISSED = "latency_ms=0.8"  # by the faster backend: all of it is measured, and no race is run
FOUND = ("feasible", "certified")


def logged(folder: Path, name: str, of: str = "linear-cpu-001") -> list[str]:
    return [run.data.tags[name] for run in study.runs(folder, of)[1] if name in run.data.tags]


# --- what a study leaves behind


@pytest.fixture(scope="module")
def feasible(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that found a champion."""
    folder = furnished(tmp_path_factory.mktemp("feasible"), shared)
    assert tune(folder, REACHABLE) == 0
    return folder


def test_a_feasible_study_says_what_it_found(feasible: Path) -> None:
    found = study.result(feasible)
    assert found["verdict"] in FOUND
    assert (found["study"], found["target"], found["model"]) == ("linear-cpu-001", "cpu", "linear")
    limits = {"latency_ms": 20.0, "accuracy_drop": 0.01, "latency_percentile": 95}
    assert found["constraints"].items() >= limits.items()
    champion = found["champion"]
    assert champion["candidate"] == Candidate((), Null(1.0), 4).to_json()
    latency = champion["latency_ms"]
    assert 1 <= latency["p50"] <= latency["p90"] <= latency["p95"] <= latency["p99"] <= 1.001 + 1e-9
    assert latency["ci95"][0] <= latency["p95"] <= latency["ci95"][1]
    assert champion["throughput"] == pytest.approx(4 / 1e-3, rel=1e-3)
    assert (champion["accuracy"], champion["accuracy_drop"]) == (1.0, 0.0)
    assert champion["artifact"] == "champion"
    assert found["nearest_miss"] is None
    assert found["baselines"]["eager"] is None
    assert found["baselines"]["best_untuned"]["candidate"] == Candidate((), Null(), 4).to_json()
    assert found["speedup"]["vs_best_untuned"] > 1
    trials = found["trials"]
    assert (trials["total"], trials["complete"], trials["stopped_early"], trials["failed"]) == (4, 4, 0, 0)
    assert found["seconds"].keys() >= {"total", "search", "decide", "overhead"}
    assert found["environment"]["versions"]["numpy"] == np.__version__
    assert found["interrupted"] is False


LOAD = """
import json, sys
from pathlib import Path
import numpy
from tuner import artifact
folder = Path(sys.argv[1])
deployed, example = artifact.load(folder), numpy.load(folder / artifact.EXAMPLE)
outputs = deployed.run({"x": example["input:x"]})
numpy.testing.assert_array_equal(outputs[0], example["output:0"])
print(json.dumps(sorted(sys.modules)))
"""


def test_the_champion_is_a_folder_that_loads_by_itself(feasible: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(feasible / "out/linear-cpu-001/champion", folder)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)], cwd=study.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    foreign = {"tuner.search", "tuner.study", "optuna", "mlflow", "hydra", "onnx", "torch"}
    assert not foreign & set(json.loads(done.stdout))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert Candidate.from_json(manifest["candidate"]) == Candidate((), Null(1.0), 4)
    assert manifest["sha256"] == digests(folder / artifact.FILES)
    assert manifest["measurement"]["accuracy"] == 1.0
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["goal"]["latency_percentile"] == 95
    assert manifest["machine"]["cores"] == 1
    np.testing.assert_allclose(np.load(folder / artifact.CALLS), 1.0, rtol=2e-3)


def test_every_trial_is_a_run_of_its_own_below_the_study(feasible: Path) -> None:
    parent, children = study.runs(feasible)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["verdict"] in FOUND
    assert parent.data.metrics["champion_throughput_per_s"] > 0
    assert len(children) == 4
    for run in children:
        assert run.info.status == "FINISHED"
        assert run.data.params.keys() >= {"backend", "batch_size", "Null.ms"}
        assert run.data.metrics.keys() >= {"throughput_per_s", "latency_p95_ms", "accuracy_drop", "excess_latency_ms"}


def test_show_tells_the_verdict_again(feasible: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"out_dir={feasible / 'out'}"
    assert study.main(["show", where]) == 0
    told = capsys.readouterr().out
    assert "null-1 · b4" in told
    assert str(feasible / "out/linear-cpu-001/champion") in told
    assert study.main(["show", "--json", "study=linear-cpu-001", where]) == 0
    assert json.loads(capsys.readouterr().out) == study.result(feasible)
    assert study.main(["show", "study=linear-cpu-010", where]) == 2
    assert "linear-cpu-001" in capsys.readouterr().err


def test_out_of_reach_ends_with_the_nearest_miss(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(place, "latency_ms=0.0001") == 3
    found = study.result(place)
    assert found["verdict"] == "infeasible"
    assert found["champion"] is None
    assert found["nearest_miss"]["candidate"]["backend"]["ms"] == 1.0
    assert not (place / "out/linear-cpu-001/champion").exists()
    assert study.runs(place)[0].data.tags["verdict"] == "infeasible"
    assert "instead of 0.0001" in capsys.readouterr().out


@pytest.fixture(scope="module")
def fickle(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose winner answers otherwise each time it is loaded."""
    folder = furnished(tmp_path_factory.mktemp("fickle"), shared)
    assert tune(folder, REACHABLE, "search_space.batch_size=[1]", deploy(node(Fickle, ms=1.0))) == 3
    return folder


@pytest.mark.slow
def test_what_answers_otherwise_once_reloaded_is_not_announced(fickle: Path) -> None:
    found = study.result(fickle)
    assert found["champion"] is None
    assert any("not announced" in note for note in found["notes"])
    assert study.runs(fickle)[0].data.tags["verdict"] == "infeasible"


@pytest.mark.slow
def test_an_accuracy_of_guessing_is_told_at_the_top_and_certifies_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = deploy(node(Null, ms=1.0))
    guessing = ("dataset._target_=tests.fakes.Mislabelled", "accuracy_drop=0.5")
    assert tune(place, one, "search_space.batch_size=[4]", *guessing) == 0
    found = study.result(place)
    assert found["verdict"] == "feasible"
    assert found["doubts"][0]["name"] == "no_better_than_guessing"
    told = capsys.readouterr().out.strip().splitlines()
    assert told[0].startswith("Champion (feasible)") and "not surely better than guessing" in told[1]


def test_labels_outside_the_classes_are_refused_before_there_is_a_study(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(place, "dataset._target_=tests.fakes.Mislabelled", "+dataset.offset=1") == 2
    assert "3 classes, 0 to 2, but the labels run from 1 to 3: subtract 1 from 'label'" in capsys.readouterr().err
    assert not list((place / "out").glob("linear-*"))


@pytest.mark.slow
def test_without_labels_the_float_model_is_the_truth_and_the_verdict_says_so(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = [{"quantize": [None, node(Scrambling)], "backend": node(Null)}]
    unknown = ("dataset._target_=tests.fakes.Mislabelled", "+dataset.unknown=true", "search_space.batch_size=[4]")
    assert tune(place, f"search_space.deploy={literal(space)}", *unknown) == 0
    found = study.result(place)
    assert (found["judged"], found["float_accuracy"]) == ("cosine with the float model", pytest.approx(1))
    assert found["doubts"][0]["name"] == "fidelity"
    assert "how like the float model's own outputs" in capsys.readouterr().out
    trials = json.loads((place / "out/linear-cpu-001/trials.json").read_text())
    lost = {trial["label"]: trial["measurement"]["accuracy_drop"] for trial in trials}
    assert min(lost.values()) == pytest.approx(0) and max(lost.values()) > 0.25, "at the least: 64 of 120 were scored"


@pytest.mark.slow
def test_the_next_in_line_is_announced_down_to_the_last(place: Path) -> None:
    """More fail at the end than race at once, and the last is too slow to be a finalist beside them."""
    fickle = [study.node(Fickle, ms=1.0 + n / 100) for n in range(FINALISTS + 1)]
    assert study.tune(place, study.deploy(*fickle, study.node(Null, ms=4.0)), "search_space.batch_size=[4]") == 0
    found = study.result(place)
    assert found["champion"]["label"] == "null-4 · b4"
    assert sum("not announced" in note for note in found["notes"]) == FINALISTS + 1


def test_what_is_not_announced_is_not_left_as_the_champion(fickle: Path) -> None:
    assert not (fickle / "out/linear-cpu-001/champion").exists()


# --- what a study tries


def test_only_what_computes_in_float32_is_measured_however_far_it_is_behind(place: Path) -> None:
    backends = [node(Null, ms=1.0), node(Null, ms=9.0), node(Halved, ms=9.0)]
    assert tune(place, study.deploy(*backends), "search_space.batch_size=[4]") == 0
    trials = json.loads((place / "out/linear-cpu-001/trials.json").read_text())
    ends = {trial["label"]: (trial["state"], trial["stopped_by"]) for trial in trials}
    assert ends["null-9 · b4"] == ("complete", None)
    assert ends["halved-9 · b4"] == ("stopped_early", "behind")


@pytest.mark.slow
def test_equal_candidates_are_evaluated_once(place: Path) -> None:
    backend = {"batch_size": {"low": 1, "high": 3}, "backend": node(Null, ms=[1.0, 1.1])}
    assert tune(place, JUST_MISSED, f"search_space.deploy={literal([backend])}") == 3
    assert study.result(place)["trials"]["total"] == 6
    assert study.result(place)["trials"]["reused"] > 0
    assert sorted(Counter(logged(place, "candidate")).values()) == [1] * 6


def test_a_second_identical_study_times_again_and_builds_nothing(place: Path) -> None:
    more = [JUST_MISSED, "search_space.compress=" + literal([None, node(Rounding)])]
    kept = []
    for name in ("first", "second"):
        assert tune(place, *more, f"study={name}") == 3
        kept.append({entry.path: entry.path.stat().st_ino for entry in Store(place / "cache").entries()})
    assert kept[0] == kept[1]
    assert {path.parent.name for path in kept[0]} >= {"transform", "artifact", "scores"}
    first, second = (logged(place, "candidate", name) for name in ("first", "second"))
    assert sorted(first) == sorted(second)
    timed = [
        {run.data.tags["candidate"] for run in study.runs(place, name)[1] if "seconds_measure" in run.data.metrics}
        for name in ("first", "second")
    ]
    assert timed[0] == timed[1] != set()


def test_what_loses_accuracy_is_never_compiled(place: Path) -> None:
    assert (
        tune(
            place,
            JUST_MISSED,
            f"search_space.compress={literal([None, node(Scrambling)])}",
            deploy(node(Null, ms=[1.0, 1.1])),
        )
        == 3
    )
    found = study.result(place)
    assert found["trials"]["stopped_early"] == 4
    assert logged(place, "stopped_by") == ["accuracy_drop"] * 4
    stopped = [run for run in study.runs(place)[1] if run.data.tags["state"] == "stopped_early"]
    assert all(run.info.status == "FINISHED" for run in stopped)
    assert not any("seconds_compile" in run.data.metrics for run in stopped)
    # 64 of 120 samples were enough, and nobody takes what is known of them for the accuracy of all
    trials = json.loads((place / "out/linear-cpu-001/trials.json").read_text())
    assert {t["measurement"]["accuracy_samples"] for t in trials if t["stopped_by"] == "accuracy_drop"} == {64}
    assert all(run.data.metrics["least_accuracy_drop"] == pytest.approx(64 / 120, abs=1e-4) for run in stopped)
    assert not any({"accuracy", "accuracy_drop"} & run.data.metrics.keys() for run in stopped)
    assert "accuracy_drop ≥ 0.5333 instead of 0.01" in stopped[0].data.tags["mlflow.note.content"]


def test_ties_go_to_what_is_not_compressed(place: Path) -> None:
    choice = literal([node(Rounding), None])
    space = ("search_space.batch_size=[1]", f"search_space.compress={choice}", deploy(node(Null)))
    assert tune(place, REACHABLE, *space) == 0
    assert study.result(place)["champion"]["candidate"]["transforms"] == []


def test_what_cannot_run_is_left_out_aloud(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = [
        deploy(node(Null), node(Absent, ms=3.0)),
        f"search_space.compress={literal([None, node(Recovery)])}",
    ]
    assert tune(place, JUST_MISSED, *space) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert "pip install nobody-has-it" in told
    assert "the dataset has no training samples" in told
    assert study.result(place)["trials"]["total"] == 2


def test_nothing_left_is_a_wrong_request(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(place, deploy(node(Absent))) == 2
    assert "pip install nobody-has-it" in capsys.readouterr().err


def test_a_backend_without_defaults_can_be_tuned(place: Path) -> None:
    assert tune(place, JUST_MISSED, deploy(node(Named, ms=1.0, name="a"))) == 3
    assert study.result(place)["trials"]["complete"] == 2


# --- plugins that go wrong

PLACES: dict[Fault, str] = {
    "raise": "compile",
    "refuse": "compile",
    "memory_error": "run",
    "segfault": "load",
    "exit": "run",
    "hang": "run",
    "blow_up": "compile",
    "nan": "run",
    "constant": "run",
}


@pytest.mark.slow
def test_a_plugin_that_goes_wrong_costs_its_trial(place: Path) -> None:
    faulty = [node(Faulty, fault=fault, where=where) for fault, where in PLACES.items()]
    limits = ("trial.timeout_s=4", "trial.memory_mb=600")
    assert tune(place, REACHABLE, "search_space.batch_size=[1]", deploy(*faulty, node(Null)), *limits) == 0
    found = study.result(place)
    assert found["champion"]["label"].startswith("null")
    assert found["trials"]["failed"] == len(faulty)
    assert found["trials"]["failures"] == dict(Counter(KIND[fault] for fault in PLACES))
    failed = {run.data.params["backend"]: run for run in study.runs(place)[1] if run.data.tags["state"] == "failed"}
    for fault, where in PLACES.items():
        run = failed[f"{fault}-in-{where}"]
        assert run.info.status == "FAILED"
        assert run.data.tags["failure"] == KIND[fault]
        assert 10 < len(run.data.tags["failure_sentence"]) < 400
    said = {name: run.data.tags["failure_sentence"] for name, run in failed.items()}
    assert "three is not a colour" in said["raise-in-compile"]
    assert "leave it in float" in said["refuse-in-compile"]
    assert "SIGSEGV" in said["segfault-in-load"]
    assert "exit code 7" in said["exit-in-run"]
    assert "600 MB" in said["blow_up-in-compile"]
    assert "4 s" in said["hang-in-run"]


@pytest.mark.parametrize("fault", ["raise", "segfault", "nan"])
def test_a_transform_that_goes_wrong_costs_its_trial(fault: Fault, place: Path) -> None:
    choice = literal([None, node(FaultyTransform, fault=fault)])
    space = ("search_space.batch_size=[1]", f"search_space.compress={choice}", deploy(node(Null)))
    assert tune(place, JUST_MISSED, *space) == 3
    assert logged(place, "failure") == [KIND[fault]]


def test_when_all_go_wrong_nothing_is_announced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(place, REACHABLE, deploy(node(Faulty))) == 3
    found = study.result(place)
    assert (found["champion"], found["nearest_miss"]) == (None, None)
    assert "no candidate could be measured" in capsys.readouterr().out


def test_a_float_model_that_does_not_run_is_a_wrong_request(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(place, REACHABLE, "reference.onnx._target_=tuner.testing.faults.Faulty") == 2
    told = capsys.readouterr().err
    assert "three is not a colour" in told
    assert Path(told.split()[-1]).exists(), "the log it names"


# --- cut short


class Running:
    """A study in a process of its own, all of whose processes can be found."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder
        self._mark = uuid.uuid4().hex
        marked = {"TUNER_TEST": self._mark, "PYTHONFAULTHANDLER": "1"}
        self.process = study.process(folder, *more, env=os.environ | marked)

    def begun(self) -> int:
        """How many trials have an owner in the journal by now."""
        path = self.folder / "out/optuna.journal"
        return path.read_text().count('"owner"') if path.exists() else 0

    def ended(self) -> tuple[int, str, str]:
        try:
            out, err = self.process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            alive = [psutil.Process(pid).as_dict(["pid", "ppid", "name", "cmdline", "status"]) for pid in self.alive()]
            self.process.send_signal(signal.SIGABRT)  # it tells where it waits
            time.sleep(2)
            self.sweep()
            pytest.fail(f"it did not end; alive were {alive}\n{''.join(self.process.communicate(timeout=10))}")
        return self.process.returncode, out, err

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def sweep(self) -> None:
        """Ends what a killed study may have left behind."""
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def alive(self) -> list[int]:
        found = []
        for other in psutil.process_iter():
            try:
                if other.environ().get("TUNER_TEST") == self._mark and other.status() != psutil.STATUS_ZOMBIE:
                    found.append(other.pid)
            except psutil.Error:
                continue
        return found

    def leaves_no_process(self) -> bool:
        end = time.monotonic() + 10
        while self.alive() and time.monotonic() < end:
            time.sleep(0.1)
        return not self.alive()


def keys(folder: Path) -> list[str]:
    return logged(folder, "candidate")


@pytest.mark.slow
def test_ctrl_c_saves_what_was_found_and_the_same_command_goes_on(place: Path) -> None:
    held = Held(place, after=2)
    more = [REACHABLE, *held.space()]
    first = Running(place, *more)
    held.until()
    first.process.send_signal(signal.SIGINT)
    held.go()
    code, out, err = first.ended()
    assert code == 130, err
    assert "Traceback" not in err
    assert first.leaves_no_process()
    found = study.result(place)
    assert found["interrupted"] is True
    assert found["champion"] is not None
    assert "Champion" in out
    assert study.runs(place)[0].info.status == "KILLED"
    before = keys(place)
    assert 2 <= len(before) < 8
    assert tune(place, *more) == 0
    assert keys(place)[: len(before)] == before
    assert sorted(Counter(keys(place)).values()) == [1] * 8
    assert [p.name for p in (place / "out").glob("linear-*")] == ["linear-cpu-001"]
    parent, _ = study.runs(place)
    assert parent.info.status == "FINISHED"
    assert study.result(place)["interrupted"] is False
    assert study.result(place)["trials"]["total"] == 8


@pytest.mark.slow
def test_a_killed_study_goes_on_with_the_same_command(place: Path) -> None:
    held = Held(place, after=2)
    more = [JUST_MISSED, *held.space()]
    first = Running(place, *more)
    held.until()
    first.kill()
    held.go()
    assert first.leaves_no_process()
    assert not (place / "out/linear-cpu-001/result.json").exists()
    assert tune(place, *more) == 3
    assert sorted(Counter(keys(place)).values()) == [1] * 8
    assert study.result(place)["trials"]["total"] == 8


def test_a_study_of_one_name_has_one_set_of_settings(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(place, JUST_MISSED, "study=mine") == 3
    assert tune(place, "latency_ms=0.7", "study=mine") == 2
    assert "request.json" in capsys.readouterr().err
    assert study.result(place, "mine")["constraints"]["latency_ms"] == 0.8


def test_a_finished_study_is_continued_with_more_trials(place: Path) -> None:
    assert tune(place, JUST_MISSED, "study=mine", "n_trials=2") == 3
    before = study.result(place, "mine")["trials"]["total"]
    first = (place / "out/mine/first_call_ms.json").read_text()
    assert tune(place, JUST_MISSED, "study=mine", "n_trials=4") == 3
    after = study.result(place, "mine")["trials"]
    assert after["total"] == 4 > before
    assert after["elsewhere"] == before, "their time is not in this session's seconds"
    assert (place / "out/mine/first_call_ms.json").read_text() == first, "speeds of both are beside one first speed"


@pytest.mark.slow
def test_processes_of_one_study_share_its_work(place: Path) -> None:
    held = Held(place, after=1)
    more = [REACHABLE, "study=mine", *held.space(1, 2, 3, 4, 5, 6, 7, 8)]
    first = Running(place, *more)
    held.until()
    second = Running(place, *more)
    held.until(running=2)
    held.go()
    codes = {running.ended()[0] for running in (first, second)}
    assert codes == {0}
    parent, children = study.runs(place, "mine")
    assert sorted(Counter(run.data.tags["candidate"] for run in children).values()) == [1] * 16
    assert parent.info.status == "FINISHED"
    assert study.result(place, "mine")["trials"]["total"] == 16
    owners = re.findall(r'"owner": ?\[[^]]*\]', (place / "out/optuna.journal").read_text())
    assert len(set(owners)) == 2, "both tried some"


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_its_trial_to_the_others(place: Path) -> None:
    held = Held(place, after=1)
    more = [JUST_MISSED, "study=mine", *held.space()]
    first = Running(place, *more)
    held.until()
    second = Running(place, *more)
    held.until(running=2)
    first.kill()
    held.go()
    assert second.ended()[0] == 3
    assert first.leaves_no_process()
    assert sorted(Counter(logged(place, "candidate", "mine")).values()) == [1] * 8


@pytest.mark.slow
def test_what_is_under_way_when_the_time_is_over_is_cut_short_and_tried_again(place: Path) -> None:
    held = Held(place, after=2)
    more = [JUST_MISSED, "patience=null", "study=mine", *held.space()]
    assert tune(place, *more, "n_trials=2") == 3
    assert tune(place, *more, "timeout_s=2") == 3
    cut_short = study.result(place, "mine")
    assert (cut_short["trials"]["failed"], len(logged(place, "candidate", "mine"))) == (0, 2)
    assert len(cut_short["left_out"]) > 1, "the one that was under way, and what was queued behind it"
    assert all("timeout_s=2 was over before its trial" in why for why in cut_short["left_out"].values())
    held.go()
    assert tune(place, *more) == 3
    assert study.result(place, "mine")["left_out"] == {}
    assert len(set(logged(place, "candidate", "mine"))) == 8


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_change_nothing_of_what_is_tried(place: Path, shared: Path, tmp_path_factory: Any) -> None:
    """Parent and workers are killed at random moments (KILLS=30: more of them); what is found finished at the end is
    what an undisturbed run of the same seed finishes, once each, in Optuna and in MLflow."""
    wanted = int(os.environ.get("KILLS", "12"))
    more = [JUST_MISSED, "n_trials=16", "sampler=random", "patience=null", "study=mine", deploy(node(Slow, ms=1.0))]
    more += ["search_space.batch_size={low:1,high:30}", "search_space.compress=" + literal([None, node(Rounding)])]
    undisturbed = furnished(tmp_path_factory.mktemp("undisturbed"), shared)
    assert tune(undisturbed, *more) == 3
    random, kills, tried_all = np.random.default_rng(7), 0, False
    running = Running(place, *more)
    while kills < wanted:
        begun = running.begun()
        in_a_trial = kills % 3 > 0 and not tried_all
        while in_a_trial and running.begun() == begun and running.process.poll() is None:
            time.sleep(0.05)
        time.sleep(random.uniform(0.05, 1.0))  # else in the preparation or in the decision
        if running.process.poll() is not None:
            shutil.rmtree(place / "out/mine/champion", ignore_errors=True)
            running, tried_all = Running(place, *more), True
            continue
        others = [pid for pid in running.alive() if pid != running.process.pid]
        if others and kills % 2:  # a trial whose process is killed twice has failed
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(random.choice(others)), signal.SIGKILL)
        else:
            running.kill()
            assert running.leaves_no_process()
            running = Running(place, *more)
        kills += 1
    code, _, err = running.ended()
    if code != 3:
        assert tune(place, *more) == 3, err
    assert running.leaves_no_process()
    finished = [logged(folder, "candidate", "mine") for folder in (place, undisturbed)]
    assert sorted(finished[0]) == sorted(set(finished[0])) == sorted(finished[1])
    states = [logged(folder, "state", "mine") for folder in (place, undisturbed)]
    assert Counter(states[0]) == Counter(states[1])
    assert not list((place / "out/mine").glob("*.draft"))
    [name] = optuna.get_all_study_names(kept := journal(place / "out/optuna.journal"))
    cut_short = optuna.load_study(study_name=name, storage=kept).get_trials(states=(TrialState.FAIL,))
    assert len(cut_short) >= wanted // 6
