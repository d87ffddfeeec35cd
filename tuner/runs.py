"""One run of a schedule: alone, watched, within its time, and recorded however it ends.

The process that runs `perform` outlives the scheduler that started it. What it started does not outlive it.
"""

import contextlib
import fcntl
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Literal

import psutil

from tuner import process
from tuner.errors import RequestError
from tuner.process import locked

By = Literal["scheduler", "now"]
MEANING = {0: "champion", 3: "infeasible", 4: "regression", 5: "partly", 130: "interrupted"}
TIMED_OUT = 124  # as timeout(1) has it


@dataclass(frozen=True)
class Schedule:
    """What runs when: the arguments of `tune` in a folder, at the times of a cron expression in a time zone.

    After `timeout_s` the run is asked to end (SIGTERM), and `grace_s` later it is killed.
    """

    name: str
    cron: str
    timezone: str
    arguments: tuple[str, ...]
    folder: str
    timeout_s: float
    grace_s: float

    @property
    def command(self) -> str:
        return shlex.join(["tune", *self.arguments])


@dataclass(frozen=True)
class Run:
    """A row of the history. Times are seconds since 1970; `outcome` is None until the end was recorded."""

    id: int
    schedule: str
    started_by: By
    host: str
    pid: int
    pid_started: float
    start: float
    end: float | None
    exit_code: int | None
    outcome: str | None

    @property
    def state(self) -> str:
        """The outcome, `running`, or `lost`: killed so that nobody recorded the end."""
        elsewhere = self.host != socket.gethostname()  # a machine with the same state folder: it cannot be asked
        return self.outcome or ("running" if elsewhere or self.here else "lost")

    @property
    def here(self) -> bool:
        """Whether it is running, on this machine."""
        if self.outcome is not None or self.host != socket.gethostname():
            return False
        try:
            found = psutil.Process(self.pid)
            return found.status() != psutil.STATUS_ZOMBIE and abs(found.create_time() - self.pid_started) < 2
        except psutil.NoSuchProcess:
            return False


class History:
    """The runs of all schedules, in SQLite under the state folder. Any number of processes may write it."""

    def __init__(self, state: Path) -> None:
        self._state = state
        state.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, schedule TEXT, started_by TEXT, host TEXT, "
                "pid INTEGER, pid_started REAL, start REAL, end REAL, exit_code INTEGER, outcome TEXT)"
            )

    def began(self, schedule: str, by: By) -> int:
        """Records a start by this process and returns its number. Earlier ones without an end are lost."""
        with self._open() as database:
            database.execute("UPDATE runs SET outcome = 'lost' WHERE schedule = ? AND outcome IS NULL", (schedule,))
            return self._insert(database, schedule, by, None)

    def skipped(self, schedule: str, by: By) -> None:
        """Records that it was due, or asked for, while it was running."""
        with self._open() as database:
            self._insert(database, schedule, by, "skipped")

    def ended(self, run: int, exit_code: int | None, outcome: str) -> None:
        with self._open() as database:
            database.execute(
                "UPDATE runs SET end = ?, exit_code = ?, outcome = ? WHERE id = ?",
                (time.time(), exit_code, outcome, run),
            )

    def runs(self, schedule: str | None = None) -> list[Run]:
        """The earliest first."""
        columns = ", ".join(f.name for f in fields(Run))
        with self._open() as database:
            found = database.execute(
                f"SELECT {columns} FROM runs WHERE schedule = coalesce(?, schedule) ORDER BY id", (schedule,)
            )
            return [Run(*row) for row in found]

    def last(self, schedule: str) -> Run | None:
        """The latest that was not skipped."""
        return next((run for run in reversed(self.runs(schedule)) if run.outcome != "skipped"), None)

    def log(self, run: Run | int, schedule: str) -> Path:
        """Where a run's output goes."""
        return self._state / "logs" / f"{schedule}-{run if isinstance(run, int) else run.id:05d}.log"

    def _insert(self, database: sqlite3.Connection, schedule: str, by: By, outcome: str | None) -> int:
        now = time.time()
        row = (schedule, by, socket.gethostname(), os.getpid(), psutil.Process().create_time(), now,
               None if outcome is None else now, outcome)  # fmt: skip
        inserted = database.execute(
            "INSERT INTO runs (schedule, started_by, host, pid, pid_started, start, end, outcome) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        assert inserted.lastrowid is not None
        return inserted.lastrowid

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._state / "schedules.db", timeout=60)
        try:
            with database:
                yield database
        finally:
            database.close()


def lock_path(state: Path, name: str) -> Path:
    """The file whose lock a run of that schedule holds; crontabs and units use the same with flock(1)."""
    return state / "locks" / f"{name}.lock"


def perform(schedule: Schedule, state: Path, by: By) -> int:
    """Runs a schedule once, now, and returns the exit code of what it runs (124 where its time was up).

    Raises RequestError where it is running already, which is recorded. Runs of different schedules on one machine
    take turns, for they would disturb each other's timings; the wait does not count against `timeout_s`.
    """
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    process.adopt_orphans()
    history = History(state)
    for folder in ("locks", "logs"):
        (state / folder).mkdir(exist_ok=True)
    with lock_path(state, schedule.name).open("w") as lock:
        if not locked(lock):
            history.skipped(schedule.name, by)
            raise RequestError(f"{schedule.name} is still running; this start is skipped (tune schedule history)")
        run = history.began(schedule.name, by)
        log = history.log(run, schedule.name)
        process.say(f"{schedule.name}: {schedule.command}; its output goes to {log}")
        code, outcome = None, "interrupted"
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # the scheduler blocked it up to here
            with _turn(state), log.open("wb") as output:
                code, outcome = _watched(schedule, output, lock.fileno())
        except KeyboardInterrupt:
            pass
        finally:
            process.end_descendants()
            history.ended(run, code, outcome)
    process.say(f"{schedule.name}: {outcome}" + ("" if code is None else f", exit code {code}"))
    if outcome == "timeout":
        return TIMED_OUT
    return 130 if code is None else code if code >= 0 else 128 - code


def _watched(schedule: Schedule, output: IO[bytes], lock: int) -> tuple[int, str]:
    """Runs the command to its end and returns the exit code and what it means."""
    command = [sys.executable, "-m", "tuner.cli", *schedule.arguments]
    # it holds the lock too: while it lives nobody starts it again
    running = process.start(command, folder=Path(schedule.folder), output=output, kept_open=[lock])
    reason = None
    deadline = time.monotonic() + schedule.timeout_s
    while True:
        try:
            code = running.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            if reason is not None:
                running.kill()
                deadline = time.monotonic() + 1
                continue
            reason = "timeout"
            deadline = time.monotonic() + schedule.grace_s
        except KeyboardInterrupt:
            if reason is None:
                reason = "interrupted"
                deadline = time.monotonic() + schedule.grace_s
        else:
            finished = MEANING.get(code, "failed")
            return code, finished if reason is None or code in (0, 3, 4, 5) else reason
        running.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def _turn(state: Path) -> Iterator[None]:
    """Waits until no other schedule runs on this machine."""
    with (state / "locks" / f".{socket.gethostname()}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
