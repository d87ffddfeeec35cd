"""What was written before the modules moved into rooms still opens: studies, registered versions, a schedule."""

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from benchmarks.screenshots import served
from tests import before
from tests.stage import Stage, staged, stopped
from tuner import artifact
from tuner.cli import main
from tuner.system.machine import cpu_name


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return before.unpack(tmp_path)


@pytest.fixture
def stage(old: Path) -> Iterator[Stage]:
    with staged(old) as stage:
        yield stage


def out(old: Path) -> str:
    return f"out_dir={old / 'outputs'}"


def result(old: Path, study: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((old / "outputs" / study / "result.json").read_text())
    return found


def test_what_is_unpacked_names_no_folder_but_its_own(old: Path) -> None:
    assert (old / "root").read_text().strip() == str(old)
    named = [path for path in old.rglob("*") if path.is_file() and b"/before_rooms." in path.read_bytes()]
    assert named == []


# --- studies


def test_the_verdict_of_an_old_study_is_shown(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", out(old)]) == 0
    told = capsys.readouterr().out
    assert "Champion" in told and str(old / "outputs" / before.STUDIES[-1]) in told
    for study in before.STUDIES:
        assert main(["show", out(old), f"study={study}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == result(old, study)


@pytest.mark.parametrize("study", before.STUDIES)
def test_an_old_champion_gives_the_outputs_of_its_example(study: str, old: Path) -> None:
    champion = old / "outputs" / study / "champion"
    deployed = artifact.load(champion)
    with np.load(champion / "example.npz") as example:
        (found,) = deployed.run({"x": example["input:x"]})
        agrees(found, example["output:0"], exact=deployed.candidate.uncompressed)


def agrees(found: Any, expected: Any, *, exact: bool) -> None:
    """An int8 product may overflow on processors without VNNI, so there most of the classes must do."""
    assert found.shape == expected.shape
    if exact:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (found.argmax(-1) == expected.argmax(-1)).mean() >= (1 if exact else 0.9)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_new_study_learns_from_the_old_ones(old: Path) -> None:
    journal_file = old / "outputs/optuna.journal"
    made_on = result(old, before.STUDIES[0])["environment"]["device"]  # of another processor nothing is learnt
    journal_file.write_text(journal_file.read_text().replace(made_on, cpu_name()))
    command = json.loads((old / "outputs" / before.STUDIES[0] / "request.json").read_text())["command"]
    done = subprocess.run(
        [sys.executable, "-m", "tuner.cli", *shlex.split(command)[1:]], cwd=old, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = re.search(r"starting from (\d+) of the best candidates of earlier studies", done.stderr)
    assert told is not None and int(told[1]) >= 2, done.stderr
    journal = journal_file.read_text()
    assert all(f'"study_name":"{study}-' in journal for study in (*before.STUDIES, "net-cpu-004"))
    trials = json.loads((old / "outputs/net-cpu-004/trials.json").read_text())
    assert result(old, before.STUDIES[0])["champion"]["label"] in [trial["label"] for trial in trials]


@pytest.mark.slow
@pytest.mark.xdist_group("ui")  # looks for a free port where test_review does
def test_the_ui_serves_the_old_runs_with_their_artifacts(old: Path) -> None:
    with served(out(old)) as addresses:
        assert set(addresses) == {"every trial", "charts", "latest verdict"}
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/#/experiments/\d+/runs/(\w+)\?.*", addresses["latest verdict"])
        assert found is not None
        with urllib.request.urlopen(f"{found[1]}/get-artifact?path=report.html&run_uuid={found[2]}") as page:
            assert page.read().decode() == (old / "outputs" / before.STUDIES[-1] / "report.html").read_text()


# --- registered versions


def test_an_old_version_is_promoted_and_rolled_back(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{old / 'outputs/mlflow.db'}")
    for command, told, champion in (
        (["rollback"], "version 1 is the champion again, it was 2", "1"),
        (["promote"], "version 3 is the champion, it was 1", "3"),
        (["promote", before.MODEL, "version=2"], "version 2 is the champion, it was 3", "2"),
        (["rollback", before.MODEL], "version 3 is the champion again, it was 2", "3"),
    ):
        assert main([*command, out(old)]) == 0
        assert told in capsys.readouterr().out
        aliases = client.get_registered_model(before.MODEL).aliases
        assert {alias: str(version) for alias, version in aliases.items()} == {"candidate": "3", "champion": champion}
    assert "int8, for a change" in client.get_registered_model(before.MODEL).description


LOAD = """
import sys
if sys.argv[1] == "beside the tuner":
    from tuner import artifact
import mlflow.pyfunc
import numpy as np
x = np.load(sys.argv[2])["input:x"]
models = {version: mlflow.pyfunc.load_model(f"models:/net-cpu/{version}") for version in "12"}
np.savez("answers.npz", **{version: model.predict(x) for version, model in models.items()})
import tuner
assert (sys.argv[1] == "alone") == tuner.__file__.startswith(sys.argv[3]), tuner.__file__
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["alone", "beside the tuner"])
def test_an_old_version_loads_with_mlflow(where: str, old: Path) -> None:
    champions = [old / "outputs" / study / "champion" for study in before.STUDIES[:2]]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, where, str(champions[0] / "example.npz"), str(old)], cwd=old, capture_output=True,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{old / 'outputs/mlflow.db'}"}, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(old / "answers.npz") as answers:
        for version, champion in zip("12", champions, strict=True):
            with np.load(champion / "example.npz") as example:
                agrees(answers[version], example["output:0"], exact=version == "1")


# --- the schedule


def test_an_old_schedule_is_listed_with_its_last_run(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = f"--state-dir={old / 'state'}"
    for _ in range(2):  # APScheduler deletes a job that it cannot read
        assert main(["schedule", "list", state]) == 0
        told = capsys.readouterr().out
        assert before.SCHEDULE in told and "0 3 1 1 *" in told and "champion" in told
    assert main(["schedule", "history", "--json", state]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["schedule"], run["outcome"], run["exit_code"]) == (before.SCHEDULE, "champion", 0)
    assert "Champion" in Path(run["log"]).read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_old_schedule_runs_when_it_is_due_and_watches_the_old_champion(old: Path, stage: Stage) -> None:
    before.make_due(old)
    scheduler = stage.scheduler()
    stage.until(lambda: len(stage.outcomes()) == 2)
    stage.until((old / "outputs/net-cpu-004/champion").exists)
    stage.until(lambda: stage.outcomes()[-1] != "running")
    stopped(scheduler)
    (_, run) = stage.history()
    assert run["outcome"] in ("champion", "regression"), stage.logs()
    assert run["started_by"] == "scheduler"
    watched = result(old, "net-cpu-004")["watch"]
    assert (watched["model"], watched["version"]) == (before.MODEL, "2")
    assert watched["regression"] != "does not load" and watched["accuracy"] is not None, watched
    moved = not watched["changed"].keys().isdisjoint(("cpu", "cores"))
    assert (watched["slowdown"] is None) == moved, "its speed is compared on such a machine alone"
    assert ("the machine is another" in watched["sentence"]) == moved


def test_what_cron_was_told_to_run_is_still_a_command(old: Path) -> None:
    (line,) = [line for line in (old / "nightly.cron").read_text().splitlines() if not line.startswith("#")]
    words = shlex.split(line)
    at = words.index("-m")
    arguments = [word for word in words[at + 2 :] if word != "watch=true"]
    done = subprocess.run(
        [sys.executable, *words[at : at + 2], *arguments, "--cfg"], cwd=old, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "latency_ms: 5.0" in done.stdout
