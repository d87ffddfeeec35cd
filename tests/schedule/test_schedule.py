"""Scheduled runs that overlap, are missed, crash, hang and are killed: real processes, and a clock that can be set."""

import json
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests import study
from tests.stage import Stage, ended, staged, stopped
from tuner.cli import main


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


# --- one at a time


@pytest.mark.slow
def test_a_run_that_is_on_is_not_started_twice(stage: Stage) -> None:
    stage.add("wait")
    first = stage.now("nightly")
    stage.until(lambda: len(stage.started()) == 1)
    second = stage.now("nightly")
    assert second.wait(60) == 2
    assert "still running" in second.communicate()[1]
    stage.due()
    scheduler = stage.scheduler()
    stage.until(lambda: len(stage.outcomes()) == 3)
    assert stage.outcomes() == ["running", "skipped", "skipped"]
    stopped(scheduler)
    assert stage.outcomes()[0] == "running", "it was not the scheduler's"
    stage.go()
    assert ended(first) == 0
    assert stage.outcomes() == ["champion", "skipped", "skipped"]
    assert len(stage.started()) == 1


def test_one_scheduler_serves_a_state_folder(stage: Stage) -> None:
    stage.add("wait")
    stage.due()
    scheduler = stage.scheduler()
    stage.until(lambda: len(stage.started()) == 1)
    second = stage.scheduler()
    assert second.wait(60) == 2
    assert "another scheduler" in second.communicate()[1]
    stopped(scheduler)


@pytest.mark.slow
def test_different_schedules_take_turns(stage: Stage) -> None:
    locks = Path("/proc/locks")
    stage.add("wait", name="one")
    stage.add("champion", name="two")
    first = stage.now("one")
    stage.until(lambda: len(stage.started()) == 1)
    second = stage.now("two")
    stage.until(lambda: len(stage.history()) == 2)
    waiting = f"-> FLOCK  ADVISORY  WRITE {second.pid} "
    stage.until(lambda: waiting in locks.read_text())
    assert len(stage.started()) == 1
    stage.go()
    assert (ended(first), ended(second)) == (0, 0)
    assert stage.outcomes() == ["champion", "champion"]


# --- missed


@pytest.mark.slow
def test_missed_times_become_one_run(stage: Stage) -> None:
    stage.add("infeasible")
    stage.due(since=timedelta(days=3))
    scheduler = stage.scheduler()
    stage.until(lambda: stage.outcomes() == ["infeasible"])
    stage.until_looked()
    stopped(scheduler)
    assert stage.outcomes() == ["infeasible"]
    assert len(stage.started()) == 1


def test_a_schedule_added_while_the_scheduler_runs_is_started(stage: Stage) -> None:
    scheduler = stage.scheduler()
    stage.until((stage.state / "scheduler.lock").exists)
    stage.add("champion")
    stage.due()
    stage.until(lambda: stage.outcomes() == ["champion"])
    stopped(scheduler)


def test_the_clock_alone_starts_it(stage: Stage) -> None:
    command = ["target._target_=tests.fakes.Acting", f"+target.stage={stage.folder}"]
    assert main(["schedule", "add", "often", "--cron=* * * * *", f"--state-dir={stage.state}", "--", *command]) == 0
    first = stage.next_s()
    assert first % 60 == 0
    stage.set_clock(first - 1)
    scheduler = stage.scheduler()
    for run in range(2):
        stage.until_looked()
        assert len(stage.outcomes()) == run, "a second too early"
        stage.set_clock(first + 60 * run)
        stage.until(lambda done=run + 1: stage.outcomes() == ["champion"] * done)
        stage.set_clock(first + 60 * run + 59)
    stopped(scheduler)
    assert stage.next_s() == first + 120


# --- crashed, hung, killed


def test_a_crash_is_recorded_with_its_log(stage: Stage) -> None:
    stage.add("crash")
    assert ended(stage.now("nightly")) == 1
    (run,) = stage.history()
    assert (run["outcome"], run["exit_code"]) == ("failed", 1)
    assert run["end"] > run["start"]
    assert "the stage is on fire" in Path(run["log"]).read_text()


@pytest.mark.slow
def test_a_hung_run_is_ended_with_all_it_started(stage: Stage) -> None:
    stage.add("hang", "--timeout-hours=0.003", "--grace-minutes=0.01")
    assert ended(stage.now("nightly")) == 124
    (run,) = stage.history()
    assert (run["outcome"], run["exit_code"]) == ("timeout", -signal.SIGKILL)
    assert stage.alive() == []


@pytest.mark.slow
def test_a_run_outlives_a_killed_scheduler_and_is_not_started_again(stage: Stage) -> None:
    stage.add("wait")
    stage.due()
    scheduler = stage.scheduler()
    stage.until(lambda: len(stage.started()) == 1)
    scheduler.kill()
    scheduler.wait()
    assert stage.outcomes() == ["running"]
    stage.due()
    again = stage.scheduler()
    stage.until(lambda: stage.outcomes() == ["running", "skipped"])
    stage.go()
    stage.until(lambda: stage.outcomes() == ["champion", "skipped"])
    stopped(again)
    assert len(stage.started()) == 1


@pytest.mark.slow
def test_a_scheduler_ends_the_run_of_one_that_was_killed(stage: Stage) -> None:
    stage.add("wait")
    stage.due()
    scheduler = stage.scheduler()
    stage.until(lambda: len(stage.started()) == 1)
    scheduler.kill()
    scheduler.wait()
    again = stage.scheduler()
    stage.until_looked()
    stopped(again)
    assert stage.outcomes() == ["interrupted"]
    stage.until(lambda: stage.alive() == [])  # who is killed takes a moment to go


@pytest.mark.slow
def test_a_killed_run_takes_its_command_along_and_is_gone_on_with(stage: Stage) -> None:
    stage.add("wait")
    stage.due()
    scheduler = stage.scheduler()
    stage.until(lambda: len(stage.started()) == 1)
    for process in stage.alive():  # as when the power fails
        process.kill()
    scheduler.wait()
    stage.until(lambda: stage.outcomes() == ["lost"])  # a process that was killed takes a moment to be gone
    assert stage.alive() == []
    stage.go()
    again = stage.scheduler()
    stage.until(lambda: stage.outcomes() == ["lost", "champion"])
    stopped(again)


@pytest.mark.slow
def test_a_killed_watcher_takes_the_command_along(stage: Stage) -> None:
    stage.add("wait")
    watcher = stage.now("nightly")
    stage.until(lambda: len(stage.started()) == 1)
    watcher.kill()
    watcher.wait()
    stage.until(lambda: stage.alive() == [])
    stage.go()
    assert ended(stage.now("nightly")) == 0
    assert stage.outcomes() == ["lost", "champion"]


def test_a_run_whose_folder_is_gone_is_refused_with_the_mend(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with monkeypatch.context() as there:
        there.chdir(folder)
        stage.add("wait")
    folder.rmdir()
    running = stage.now("nightly")
    _, said = running.communicate(timeout=60)
    assert running.returncode == 2
    assert said.startswith(f"tune: nightly: its folder {folder} is not there; put it back, or remove the schedule")
    assert stage.history() == []


# --- ended in order


@pytest.mark.slow
def test_sigterm_interrupts_the_run_and_the_next_scheduler_goes_on(stage: Stage) -> None:
    stage.add("wait")
    stage.due()
    scheduler = stage.scheduler()
    stage.until(lambda: len(stage.started()) == 1)
    stopped(scheduler)
    (run,) = stage.history()
    assert (run["outcome"], run["exit_code"], run["started_by"]) == ("interrupted", 130, "scheduler")
    assert stage.alive() == []
    stage.go()
    again = stage.scheduler()
    stage.until(lambda: stage.outcomes() == ["interrupted", "champion"])
    stopped(again)
    third = stage.scheduler()
    stage.until_looked()
    stopped(third)
    assert stage.outcomes() == ["interrupted", "champion"], "what is done is not started again"


@pytest.mark.slow
def test_a_sweep_that_a_scheduler_began_is_finished_by_the_next(stage: Stage, place: Path) -> None:
    held = study.Held(place, after=6)  # the first study is of four trials, and races nobody
    grid = study.overrides(place, "latency_ms=0.5,20", *held.space(1, 4))
    told = [f"--cron={datetime.now() - timedelta(minutes=5):%M %H} * * *", "--timezone=UTC", "--", "-m", *grid]
    assert main(["schedule", "add", "sweep", f"--state-dir={stage.state}", *told]) == 0
    stage.due()
    scheduler = stage.scheduler()
    held.until()
    scheduler.send_signal(signal.SIGTERM)
    stage.until(lambda: "interrupted: " in str(stage.logs()))  # else the member may end before it is told
    held.go()
    assert ended(scheduler) == 0
    assert [(run["outcome"], run["exit_code"]) for run in stage.history()] == [("interrupted", 130)]
    assert stage.alive() == []
    again = stage.scheduler()
    stage.until(lambda: stage.outcomes() == ["interrupted", "partly"])
    stopped(again)
    summary = json.loads((place / "out/sweep-001/summary.json").read_text())
    assert [(m["exit_code"], m["study"]) for m in summary["members"]] == [(3, "linear-cpu-001"), (0, "linear-cpu-002")]
    assert len(list((place / "out").glob("linear-*"))) == 2


def test_ctrl_c_interrupts_a_run_that_was_asked_for(stage: Stage) -> None:
    stage.add("wait")
    running = stage.now("nightly")
    stage.until(lambda: len(stage.started()) == 1)
    running.send_signal(signal.SIGINT)
    assert ended(running) == 130
    assert stage.outcomes() == ["interrupted"]
    scheduler = stage.scheduler()
    stage.until_looked()
    stopped(scheduler)
    assert stage.outcomes() == ["interrupted"], "only what the scheduler started is gone on with"


# --- the commands


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (["add", "x"], "required: --cron"),
        (["add", "x", "--cron=0 2 * * *"], "follows --, for instance"),
        (["add", "x", "--cron=0 2 * *", "--", "latency_ms=5"], "five fields"),
        (["add", "x", "--cron=0 2 * * *", "--", "latncy_ms=5"], "did you mean latency_ms?"),
        (["add", "x", "--cron=0 2 * * *", "--", "sweep=nightli"], "did you mean nightly?"),
        (["add", "x", "--cron=0 2 * * *", "--", "-m", "latency_ms=1,fast"], "the sweep's member latency_ms=fast"),
        (["add", "x", "--cron=0 2 * * *", "--timezone=Mars", "--", "latency_ms=5"], "no such time zone"),
        (["add", "x", "--cron=0 2 * * *", "--timeout-hours=0", "--", "latency_ms=5"], "more than 0"),
        (["add", "x/y", "--cron=0 2 * * *", "--", "latency_ms=5"], "the name must be letters"),
        (["remove", "x"], "there are none yet"),
        (["now", "x"], "there are none yet"),
        (["export", "systemd", "x"], "there are none yet"),
        (["export", "upstart", "x"], "choose from 'systemd', 'cron', 'kubernetes', 'airflow'"),
        (["list", "--", "latency_ms=5"], "nothing after --"),
        (["lst"], "choose from"),
    ],
)
def test_what_cannot_be_done_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], mend: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["schedule", *arguments]) == 2
    told = capsys.readouterr().err
    assert mend in told
    assert told.count("\n") == 1


def test_a_schedule_is_added_listed_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    cron = ["--cron=0 2 * * 1", "--timezone=Europe/Berlin"]
    assert main(["schedule", "add", "nightly", *cron, "--", "sweep=nightly"]) == 0
    told = capsys.readouterr().out
    assert "tune sweep=nightly watch=true" in told and "02:00 CE" in told and "Europe/Berlin" in told
    assert main(["schedule", "add", "nightly", *cron, "--", "sweep=nightly"]) == 2
    assert "tune schedule remove nightly" in capsys.readouterr().err
    assert main(["schedule", "add", "other", *cron, "--", "latency_ms=5", "watch=false"]) == 0
    capsys.readouterr()
    assert main(["schedule", "list"]) == 0
    told = capsys.readouterr().out
    assert "tune latency_ms=5 watch=false" in told and str(Path.cwd()) in told
    assert main(["schedule", "remove", "nightly"]) == 0
    assert main(["schedule", "list"]) == 0
    assert "sweep=nightly" not in capsys.readouterr().out
    assert main(["schedule", "history", "nightly"]) == 0
    assert (tmp_path / "inference-tuner/schedules.db").exists()
