"""Scheduled runs of which nothing is made up but the clock: real processes in a state folder of a test's own."""

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
from apscheduler.job import Job
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from tests import study
from tuner.cli import main

SCHEDULER = """
import datetime, sys
from pathlib import Path
import apscheduler.schedulers.base
from tuner.cli import main
from tuner.schedule import scheduler
folder = Path(sys.argv[1])
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        with (folder / "looks").open("a") as looks:
            looks.write(".")
        clock = folder / "clock"
        true = datetime.datetime
        return true.fromtimestamp(float(clock.read_text()), tz) if clock.exists() else true.now(tz)
apscheduler.schedulers.base.datetime = Clock
scheduler.LOOK_S = 0.1
sys.exit(main(sys.argv[2:]))
"""


class Stage:
    """A state folder, the processes that use it, and what they leave behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self._mark = uuid.uuid4().hex

    def now(self, name: str) -> "subprocess.Popen[str]":
        """Runs a schedule now."""
        return self._started("-m", "tuner.cli", "schedule", "now", f"--state-dir={self.state}", name)

    def scheduler(self) -> "subprocess.Popen[str]":
        """Runs what is due, by a clock that can be set."""
        return self._started("-c", SCHEDULER, str(self.folder), "schedule", "run", f"--state-dir={self.state}")

    def _started(self, *arguments: str) -> "subprocess.Popen[str]":
        env = os.environ | {"TUNER_TEST": self._mark, "XDG_STATE_HOME": str(self.folder / "elsewhere")}
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=study.ROOT,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def set_clock(self, time_s: float) -> None:
        """The scheduler's clock stands there from now on."""
        (self.folder / "clock.new").write_text(str(time_s))
        (self.folder / "clock.new").rename(self.folder / "clock")

    def until_looked(self) -> None:
        """Waits until the scheduler has looked for what is due, and begun to look again."""
        looks = self.folder / "looks"
        before = looks.stat().st_size if looks.exists() else 0
        self.until(lambda: looks.exists() and looks.stat().st_size >= before + 2)

    def add(self, act: str, *options: str, name: str = "nightly") -> None:
        """A schedule that was due five minutes ago, and is next tomorrow."""
        soon = datetime.now() - timedelta(minutes=5)
        command = [f"--cron={soon:%M %H} * * *", "--timezone=UTC", f"--state-dir={self.state}", *options, "--"]
        acting = ["target._target_=tests.fakes.Acting", f"+target.act={act}", f"+target.stage={self.folder}"]
        assert main(["schedule", "add", name, *command, *acting]) == 0

    def due(self, since: timedelta = timedelta(seconds=1)) -> None:
        """Makes it due since then: as if no scheduler had been running."""
        for job in self._jobs():
            job.modify(next_run_time=datetime.now(job.trigger.timezone) - since)

    def next_s(self) -> float:
        """When the only schedule is next due."""
        (job,) = self._jobs()
        return float(job.next_run_time.timestamp())

    def _jobs(self) -> list[Job]:
        store = SQLAlchemyJobStore(f"sqlite:///{self.state / 'schedules.db'}")
        scheduler = BackgroundScheduler(jobstores={"default": store})
        scheduler.start(paused=True)  # and left so: shut down, it would look for what is due
        return list(scheduler.get_jobs())

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


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """A stage, of which no process is left behind."""
    stage = Stage(folder)
    yield stage
    for process in stage.alive():
        process.kill()


def ended(process: "subprocess.Popen[str]") -> int:
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode


def stopped(scheduler: "subprocess.Popen[str]") -> None:
    scheduler.send_signal(signal.SIGTERM)
    assert ended(scheduler) == 0
