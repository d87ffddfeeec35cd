"""What users had on disk before the modules moved into rooms, as `fixtures/make_before_rooms.sh` made it.

Three studies, their registered versions, and the schedule that started the last of them. The path of the folder in
which they were made is replaced by that of the folder in which they are unpacked.
"""

import os
import pickle
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).parent / "fixtures/before_rooms.tar.gz"
STUDIES = ("net-cpu-001", "net-cpu-002", "net-cpu-003")  # their versions are 1, 2 and 3; 1 was champion, then 2
MODEL = "net-cpu"
SCHEDULE = "nightly"


def unpack(folder: Path) -> Path:
    """Fills the folder, in which users stood: `net.onnx`, `eval.npz`, `outputs/`, the schedule's `state/`, and
    `nightly.cron`, which is that schedule as it was exported."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    made_in = (folder / "root").read_text().strip()
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        before = path.stat()
        if path.suffix == ".db":
            _move_database(path, made_in, str(folder))
        elif made_in.encode() in (content := path.read_bytes()):
            path.write_text(content.decode().replace(made_in, str(folder)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the latest study is the latest file
    return folder


def make_due(folder: Path) -> None:
    """Makes the schedule due, as if no scheduler had been running.

    What calls APScheduler for this would lose the job where it can no longer find the job's function.
    """
    due_at = datetime.now().astimezone() - timedelta(seconds=1)

    def change(job: dict[str, Any]) -> dict[str, Any]:
        return job | {"next_run_time": due_at.astimezone(job["next_run_time"].tzinfo)}

    with closing(sqlite3.connect(folder / "state/schedules.db")) as database, database:
        _change_jobs(database, change)
        database.execute("UPDATE apscheduler_jobs SET next_run_time = ?", (due_at.timestamp(),))


def _move_database(path: Path, before: str, now: str) -> None:
    """Replaces one path by another in every text of a database, and in the arguments of APScheduler's jobs."""
    with closing(sqlite3.connect(path)) as database:
        with database:
            for table, column in _columns(database):
                database.execute(
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) '
                    f'WHERE typeof("{column}") = \'text\' AND instr("{column}", ?)',
                    (before, now, before),
                )
                if table == "apscheduler_jobs" and column == "job_state":
                    _change_jobs(database, lambda job: job | {"args": _moved(job["args"], before, now)})
        database.execute("VACUUM")  # so that no page keeps the old text


def _columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for _, column, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
            yield table, column


def _change_jobs(database: sqlite3.Connection, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A job is a pickled dictionary, in which the function that it calls is a text."""
    for name, state in database.execute("SELECT id, job_state FROM apscheduler_jobs").fetchall():
        changed = pickle.dumps(change(pickle.loads(state)))
        database.execute("UPDATE apscheduler_jobs SET job_state = ? WHERE id = ?", (changed, name))


def _moved(value: Any, before: str, now: str) -> Any:
    if isinstance(value, str):
        return value.replace(before, now)
    if isinstance(value, dict):
        return {key: _moved(item, before, now) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, before, now) for item in value)
    return value
