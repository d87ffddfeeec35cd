"""What is scheduled, and the history of its runs."""

import contextlib
import os
import shlex
import socket
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import psutil

from tuner.errors import ExitCode, RequestError
from tuner.system.secret import masked

By = Literal["scheduler", "now"]
_MEANING: dict[int, str] = {
    ExitCode.OK: "champion",
    ExitCode.INFEASIBLE: "infeasible",
    ExitCode.REGRESSION: "regression",
    ExitCode.PARTLY: "partly",
    ExitCode.INTERRUPTED: "interrupted",
}


def meaning(exit_code: int) -> str:
    """What the history says of a command that ended so."""
    return _MEANING.get(exit_code, "failed")


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
        """As it may be shown: without a password, which a schedule of an earlier version may keep."""
        return shlex.join(["tune", *map(masked, self.arguments)])

    def check_secrets(self) -> None:
        """Raises RequestError where a password is among the arguments: they are kept, listed and exported."""
        for argument in self.arguments:
            if masked(argument) != argument:
                raise RequestError(
                    f"{masked(argument)}: a schedule keeps no password; leave it out, and give it as $PGPASSWORD or in "
                    "~/.pgpass, for a server as $MLFLOW_TRACKING_PASSWORD"
                )


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
            process = psutil.Process(self.pid)
            return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - self.pid_started) < 2
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
            rows = database.execute(
                f"SELECT {columns} FROM runs WHERE schedule = coalesce(?, schedule) ORDER BY id", (schedule,)
            )
            return [Run(*row) for row in rows]

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
