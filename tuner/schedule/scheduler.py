"""Where APScheduler is: which schedules there are, and the process that starts them when they are due."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.job import Job
from apscheduler.jobstores.base import ConflictingIdError, JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.cron import CronTrigger

from tuner.errors import RequestError
from tuner.schedule.cron import Cron
from tuner.schedule.runs import History, Schedule
from tuner.system import process
from tuner.system.files import take_lock

LOOK_S = 2.0  # how often a running scheduler looks for what other processes added or removed
# missed times of a schedule become one run, however late; whether it runs already is for the run itself to find out
_JOB_DEFAULTS = {"coalesce": True, "misfire_grace_time": None, "max_instances": 3}


class Schedules:
    """The schedules in a state folder: APScheduler's job store, whose jobs are the only place they are written."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def add(self, schedule: Schedule) -> datetime:
        """Stores it and returns when it is first due. Raises RequestError where there is one of that name."""
        trigger = CronTrigger(**Cron.parse(schedule.cron).apscheduler(), timezone=ZoneInfo(schedule.timezone))
        stored = {**asdict(schedule), "arguments": list(schedule.arguments)}
        self._state.mkdir(parents=True, exist_ok=True)
        try:
            job = _opened(self._state).add_job(
                "tuner.schedule.scheduler:due", trigger, id=schedule.name, args=[str(self._state), stored]
            )
        except ConflictingIdError as error:
            raise RequestError(
                f"{schedule.name}: there is a schedule of that name; first: tune schedule remove {schedule.name}"
            ) from error
        due_at: datetime = job.next_run_time
        return due_at

    def remove(self, name: str) -> None:
        """Raises RequestError where there is none. A run goes on to its end."""
        self.get(name)
        with contextlib.suppress(JobLookupError):  # another process was faster
            _opened(self._state).remove_job(name)

    def all(self) -> list[tuple[Schedule, datetime]]:
        """Every schedule and when it is next due."""
        if not _file(self._state).exists():
            return []  # opening it would make it
        return [(_schedule(job), job.next_run_time) for job in _opened(self._state).get_jobs()]

    def get(self, name: str) -> Schedule:
        """Raises RequestError where there is none."""
        schedules = {schedule.name: schedule for schedule, _ in self.all()}
        if name not in schedules:
            listed = f"there are {', '.join(sorted(schedules))}" if schedules else "there are none yet"
            raise RequestError(f"{name}: no schedule of that name in {self._state}; {listed}")
        return schedules[name]


def serve(state: Path) -> None:
    """Starts what is due until SIGTERM or Ctrl-C, then ends the runs that are on.

    Runs that were interrupted, or lost, are started again at first. Raises RequestError where another scheduler
    serves this folder.
    """
    history = History(state)
    signals: list[int] = []
    wake = threading.Event()

    def heard(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        wake.set()

    with (state / "scheduler.lock").open("w") as lock:
        if not take_lock(lock, wait=False):
            raise RequestError(f"another scheduler runs the schedules in {state}")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, heard)
        scheduler = _opened(state)
        for job in scheduler.get_jobs(jobstore="default"):
            schedule = _schedule(job)
            process.say(f"{schedule.name}: next at {job.next_run_time:%Y-%m-%d %H:%M:%S %Z}")
            last = history.last(schedule.name)
            if last is not None and last.started_by == "scheduler" and last.state in ("interrupted", "lost"):
                process.say(f"{schedule.name}: its run {last.id} was {last.state}; going on with it")
                scheduler.add_job(due, args=job.args, jobstore="once")
        while not signals:
            wake.wait(scheduler.look())
        _end_runs(history, signals)


def _end_runs(history: History, signals: Sequence[int]) -> None:
    """Passes on every signal that came, and those that come yet, and waits until nothing runs."""
    process.say("ending the runs that are on; a second signal makes them hurry")
    passed_on: Counter[int] = Counter()
    while (running := [run for run in history.runs() if run.started_by == "scheduler" and run.here]) or _on:
        for run in running:
            while passed_on[run.id] < len(signals):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(run.pid, signal.SIGTERM)
                passed_on[run.id] += 1
        time.sleep(0.1)


_on: list[str] = []  # the schedules whose runs this process started and that have not ended


def due(state: str, stored: dict[str, Any]) -> None:
    """Runs a schedule in a process and session of its own, which outlives this one, and waits for it."""
    name = stored["name"]
    process.say(f"{name}: due at {datetime.now():%Y-%m-%d %H:%M:%S}")
    # the new process inherits this: a signal waits until its start is recorded, so that no run is forgotten
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    command = [sys.executable, "-m", "tuner.cli", "schedule", "now", name, "--by=scheduler", f"--state-dir={state}"]
    _on.append(name)
    subprocess.run(command, start_new_session=True, stdin=subprocess.DEVNULL, check=False)
    _on.remove(name)


class _Store(SQLAlchemyJobStore):  # type: ignore[misc]
    def update_job(self, job: Job) -> None:
        with contextlib.suppress(JobLookupError):  # another process removed it just now
            super().update_job(job)


class _Scheduler(BaseScheduler):  # type: ignore[misc]
    """Starts what is due when it is told to look, and never by itself.

    APScheduler's own look once more while they shut down, and lose what is due by then.
    """

    def look(self) -> float:
        """Starts what is due and returns after how many seconds to look again."""
        next_s: float | None = self._process_jobs()
        return LOOK_S if next_s is None else min(LOOK_S, next_s)

    def wakeup(self) -> None:
        """Told by APScheduler when a job changed; the next look will see it."""

    def shutdown(self, wait: bool = True) -> None:
        super().shutdown(wait)


def _file(state: Path) -> Path:
    return state / "schedules.db"


def _opened(state: Path) -> _Scheduler:
    url, patient = f"sqlite:///{_file(state)}", {"connect_args": {"timeout": 60}}
    scheduler = _Scheduler(
        jobstores={"default": _Store(url, engine_options=patient), "once": MemoryJobStore()},
        executors={"default": ThreadPoolExecutor(50)},
        job_defaults=_JOB_DEFAULTS,
    )
    scheduler.start()
    return scheduler


def _schedule(job: Job) -> Schedule:
    stored = job.args[1]
    return Schedule(**{**stored, "arguments": tuple(stored["arguments"])})
