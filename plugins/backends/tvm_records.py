"""What TVM's tuning leaves in the cache: MetaSchedule's two files in a folder for everything that decides them."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tuner.system.files import critical_section

FAILED_S = 1e9  # MetaSchedule writes 1e10 s for a schedule that did not build or run
RECORDS = ("database_workload.json", "database_tuning_record.json")  # MetaSchedule's own names
IMPORTED = "imported"  # the file that says that another machine measured some of them
REACHED = "trials_per_task"  # the file that says so; a small search space is spent before it has that many records


def key_of(tasks: Sequence[Any], *decisive: Any) -> str:
    """The name of the folder: the tasks by content (batch size and preparation included), and what else decides."""
    from tvm.s_tir import meta_schedule as ms

    hashes = sorted(ms.utils.shash2hex(task.dispatched[0]) for task in tasks)
    return hashlib.sha256(json.dumps([hashes, *decisive]).encode()).hexdigest()[:32]


@contextlib.contextmanager
def locked(work: Path) -> Iterator[Path]:
    """The folder for this process alone, mended of the torn lines and the builds that a killed one left."""
    work.mkdir(parents=True, exist_ok=True)
    with critical_section(work / "lock"):
        for path in filter(Path.exists, (work / name for name in RECORDS)):
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        shutil.rmtree(work / "build", ignore_errors=True)
        yield work
        shutil.rmtree(work / "build", ignore_errors=True)


def reached(work: Path) -> int:
    """For how many trials a task the folder has been tuned."""
    done = work / REACHED
    return int(done.read_text(encoding="utf-8")) if done.exists() else 0


def reach(work: Path, trials_per_task: int) -> None:
    """Says that the folder has been tuned for so many."""
    draft = work / f"{REACHED}.new"
    draft.write_text(str(trials_per_task), encoding="utf-8")
    draft.replace(work / REACHED)


def costs_of(database: Any, tasks: Sequence[Any]) -> list[list[float]]:
    """For each task the seconds of its records."""
    records = [(record.workload, max(map(float, record.run_secs))) for record in database.get_all_tuning_records()]
    workloads = [database.commit_workload(task.dispatched[0]) for task in tasks]
    return [[cost for owner, cost in records if owner.same_as(workload)] for workload in workloads]
