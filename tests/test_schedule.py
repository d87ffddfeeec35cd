"""Scheduled runs that overlap, are missed, crash, hang and are killed, with real processes and a real clock."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from tests import study
from tuner.cli import main


class Stage:
    """A state folder, the processes that use it, and what they leave behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self._mark = uuid.uuid4().hex

    def tune(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        env = os.environ | {"TUNER_TEST": self._mark, "XDG_STATE_HOME": str(self.folder / "elsewhere")} | environment
        command = [sys.executable, "-m", "tuner.cli", *arguments]
        return subprocess.Popen(
            command, cwd=study.ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def schedule(self, command: str, *arguments: str) -> "subprocess.Popen[str]":
        return self.tune("schedule", command, f"--state-dir={self.state}", *arguments)

    def add(self, act: str, *options: str, name: str = "nightly") -> None:
        """A schedule that was due five minutes ago, and is next tomorrow."""
        soon = datetime.now() - timedelta(minutes=5)
        command = [f"--cron={soon:%M %H} * * *", "--timezone=UTC", f"--state-dir={self.state}", *options, "--"]
        acting = ["target._target_=tests.fakes.Acting", f"+target.act={act}", f"+target.stage={self.folder}"]
        assert main(["schedule", "add", name, *command, *acting]) == 0

    def due(self, since: timedelta = timedelta(seconds=1)) -> None:
        """Makes it due since then: as if no scheduler had been running."""
        store = SQLAlchemyJobStore(f"sqlite:///{self.state / 'schedules.db'}")
        scheduler = BackgroundScheduler(jobstores={"default": store})
        scheduler.start(paused=True)  # and left so: shut down, it would look for what is due
        for job in scheduler.get_jobs():
            job.modify(next_run_time=datetime.now(job.trigger.timezone) - since)

    def history(self) -> list[dict[str, Any]]:
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            assert main(["schedule", "history", "--json", f"--state-dir={self.state}"]) == 0
        found: list[dict[str, Any]] = json.loads(shown.getvalue())
        return found

    def outcomes(self) -> list[str]:
        return [run["outcome"] for run in self.history()]

    def started(self) -> list[int]:
        """The process of each start of the command."""
        file = self.folder / "started"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def go(self) -> None:
        (self.folder / "go").touch()

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, (self.history(), self.started(), self.logs())
            time.sleep(0.05)

    def logs(self) -> list[str]:
        return [log.read_text() for log in sorted((self.state / "logs").glob("*"))]

    def alive(self) -> list[psutil.Process]:
        found = []
        for other in psutil.process_iter():
            try:
                if other.environ().get("TUNER_TEST") == self._mark and other.status() != psutil.STATUS_ZOMBIE:
                    found.append(other)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path)
    yield found
    for process in found.alive():
        process.kill()


def ended(process: "subprocess.Popen[str]") -> int:
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode


def stopped(scheduler: "subprocess.Popen[str]") -> None:
    scheduler.send_signal(signal.SIGTERM)
    assert ended(scheduler) == 0


# --- one at a time


def test_a_run_that_is_on_is_not_started_twice(stage: Stage) -> None:
    stage.add("wait")
    first = stage.schedule("now", "nightly")
    stage.until(lambda: len(stage.started()) == 1)
    second = stage.schedule("now", "nightly")
    assert second.wait(60) == 2
    assert "still running" in second.communicate()[1]
    stage.due()
    scheduler = stage.schedule("run")
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
    scheduler = stage.schedule("run")
    stage.until(lambda: len(stage.started()) == 1)
    second = stage.schedule("run")
    assert second.wait(60) == 2
    assert "another scheduler" in second.communicate()[1]
    stopped(scheduler)


def test_different_schedules_take_turns(stage: Stage) -> None:
    stage.add("wait", name="one")
    stage.add("champion", name="two")
    first = stage.schedule("now", "one")
    stage.until(lambda: len(stage.started()) == 1)
    second = stage.schedule("now", "two")
    stage.until(lambda: len(stage.history()) == 2)
    time.sleep(1.5)
    assert len(stage.started()) == 1
    stage.go()
    assert (ended(first), ended(second)) == (0, 0)
    assert stage.outcomes() == ["champion", "champion"]


# --- missed


def test_missed_times_become_one_run(stage: Stage) -> None:
    stage.add("infeasible")
    stage.due(since=timedelta(days=3))
    scheduler = stage.schedule("run")
    stage.until(lambda: stage.outcomes() == ["infeasible"])
    time.sleep(2.5)  # it has looked again
    stopped(scheduler)
    assert stage.outcomes() == ["infeasible"]
    assert len(stage.started()) == 1


def test_a_schedule_added_while_the_scheduler_runs_is_started(stage: Stage) -> None:
    scheduler = stage.schedule("run")
    stage.until((stage.state / "scheduler.lock").exists)
    stage.add("champion")
    stage.due()
    stage.until(lambda: stage.outcomes() == ["champion"])
    stopped(scheduler)


@pytest.mark.slow
def test_the_clock_alone_starts_it(stage: Stage) -> None:
    command = ["target._target_=tests.fakes.Acting", f"+target.stage={stage.folder}"]
    assert main(["schedule", "add", "often", "--cron=* * * * *", f"--state-dir={stage.state}", "--", *command]) == 0
    scheduler = stage.schedule("run")
    time.sleep(122 - time.time() % 60)
    stopped(scheduler)
    assert stage.outcomes() == ["champion", "champion"]
    assert all(run["start"] % 60 < 10 for run in stage.history())


# --- crashed, hung, killed


def test_a_crash_is_recorded_with_its_log(stage: Stage) -> None:
    stage.add("crash")
    assert ended(stage.schedule("now", "nightly")) == 1
    (run,) = stage.history()
    assert (run["outcome"], run["exit_code"]) == ("failed", 1)
    assert run["end"] > run["start"]
    assert "the stage is on fire" in Path(run["log"]).read_text()


def test_a_hung_run_is_ended_with_all_it_started(stage: Stage) -> None:
    stage.add("hang", "--timeout-hours=0.0008", "--grace-minutes=0.01")
    assert ended(stage.schedule("now", "nightly")) == 124
    (run,) = stage.history()
    assert (run["outcome"], run["exit_code"]) == ("timeout", -signal.SIGKILL)
    assert run["end"] - run["start"] < 30
    assert stage.alive() == []


def test_a_run_outlives_a_killed_scheduler_and_is_not_started_again(stage: Stage) -> None:
    stage.add("wait")
    stage.due()
    scheduler = stage.schedule("run")
    stage.until(lambda: len(stage.started()) == 1)
    scheduler.kill()
    scheduler.wait()
    assert stage.outcomes() == ["running"]
    stage.due()
    again = stage.schedule("run")
    stage.until(lambda: stage.outcomes() == ["running", "skipped"])
    stage.go()
    stage.until(lambda: stage.outcomes() == ["champion", "skipped"])
    stopped(again)
    assert len(stage.started()) == 1


def test_a_scheduler_ends_the_run_of_one_that_was_killed(stage: Stage) -> None:
    stage.add("wait")
    stage.due()
    scheduler = stage.schedule("run")
    stage.until(lambda: len(stage.started()) == 1)
    scheduler.kill()
    scheduler.wait()
    again = stage.schedule("run")
    time.sleep(1.5)
    stopped(again)
    assert stage.outcomes() == ["interrupted"]
    assert stage.alive() == []


def test_a_killed_run_takes_its_command_along_and_is_gone_on_with(stage: Stage) -> None:
    stage.add("wait")
    stage.due()
    scheduler = stage.schedule("run")
    stage.until(lambda: len(stage.started()) == 1)
    for process in stage.alive():  # as when the power fails
        process.kill()
    scheduler.wait()
    stage.until(lambda: stage.alive() == [])
    assert stage.outcomes() == ["lost"]
    stage.go()
    again = stage.schedule("run")
    stage.until(lambda: stage.outcomes() == ["lost", "champion"])
    stopped(again)


def test_a_killed_watcher_takes_the_command_along(stage: Stage) -> None:
    stage.add("wait")
    watcher = stage.schedule("now", "nightly")
    stage.until(lambda: len(stage.started()) == 1)
    watcher.kill()
    watcher.wait()
    stage.until(lambda: stage.alive() == [])
    stage.go()
    assert ended(stage.schedule("now", "nightly")) == 0
    assert stage.outcomes() == ["lost", "champion"]


# --- ended in order


def test_sigterm_interrupts_the_run_and_the_next_scheduler_goes_on(stage: Stage) -> None:
    stage.add("wait")
    stage.due()
    scheduler = stage.schedule("run")
    stage.until(lambda: len(stage.started()) == 1)
    stopped(scheduler)
    (run,) = stage.history()
    assert (run["outcome"], run["exit_code"], run["started_by"]) == ("interrupted", 130, "scheduler")
    assert stage.alive() == []
    stage.go()
    again = stage.schedule("run")
    stage.until(lambda: stage.outcomes() == ["interrupted", "champion"])
    stopped(again)
    third = stage.schedule("run")
    time.sleep(2)
    stopped(third)
    assert stage.outcomes() == ["interrupted", "champion"], "what is done is not started again"


@pytest.mark.slow
def test_a_sweep_that_a_scheduler_began_is_finished_by_the_next(stage: Stage, place: Path) -> None:
    held = study.Held(place, after=6)  # the first study is of four trials, and races nobody
    grid = study.overrides(place, "latency_ms=0.5,20", *held.space(1, 4))
    told = [f"--cron={datetime.now() - timedelta(minutes=5):%M %H} * * *", "--timezone=UTC", "--", "-m", *grid]
    assert main(["schedule", "add", "sweep", f"--state-dir={stage.state}", *told]) == 0
    stage.due()
    scheduler = stage.schedule("run")
    held.until()
    scheduler.send_signal(signal.SIGTERM)
    held.go()
    assert ended(scheduler) == 0
    assert [(run["outcome"], run["exit_code"]) for run in stage.history()] == [("interrupted", 130)]
    assert stage.alive() == []
    again = stage.schedule("run")
    stage.until(lambda: stage.outcomes() == ["interrupted", "partly"])
    stopped(again)
    summary = json.loads((place / "out/sweep-001/summary.json").read_text())
    assert [(m["exit_code"], m["study"]) for m in summary["members"]] == [(3, "linear-cpu-001"), (0, "linear-cpu-002")]
    assert len(list((place / "out").glob("linear-*"))) == 2


def test_ctrl_c_interrupts_a_run_that_was_asked_for(stage: Stage) -> None:
    stage.add("wait")
    running = stage.schedule("now", "nightly")
    stage.until(lambda: len(stage.started()) == 1)
    running.send_signal(signal.SIGINT)
    assert ended(running) == 130
    assert stage.outcomes() == ["interrupted"]
    scheduler = stage.schedule("run")
    time.sleep(2)
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
