"""Optuna's journal: a file of one JSON record a line, which several processes append to.

A process that loses power, or room on the disk, may leave half a record. Nobody has acted on half a record, so it is
dropped; but what is damaged with sound records behind it is never guessed at, for Optuna counts studies and trials by
their records.
"""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tuner.errors import RequestError
from tuner.system.files import take_lock


def journal(path: Path) -> JournalStorage:
    """Optuna's file storage; safe for several processes. Side effect: half a record at its end is dropped, and said so
    on standard error. Raises RequestError where the file cannot be read or written, or is damaged before its end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path) as file:
            _mend(path, file)
        return JournalStorage(_Journal(path))
    except OSError as error:
        raise RequestError(f"out_dir: cannot write {path} ({error.strerror}); choose another with out_dir=") from error
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:  # JSON, but none of Optuna's
        raise RequestError(_elsewhere(path, f"does not hold together ({type(error).__name__}: {error})")) from error


class _Journal(JournalFileBackend):
    """Optuna's, with the lock that the kernel releases when a process dies: a file as a lock would outlive it."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Whole or not at all."""
        records = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with _alone(self._path) as file:
            end = _end_of_lines(file)
            file.truncate(end)
            try:
                while records:  # unbuffered, it may write less
                    records = records[file.write(records) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)  # the disk is full
                raise


@contextmanager
def _alone(path: Path) -> Iterator[io.FileIO]:
    """The file, open to read and append (without a buffer, that nothing is written later), locked for this process."""
    with path.open("a+b", buffering=0) as file:
        take_lock(file)
        yield file


def _end_of_lines(file: io.FileIO) -> int:
    """How many bytes the whole lines of a file have."""
    end = file.seek(0, os.SEEK_END)
    step = 4096
    while end:
        start = max(0, end - step)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _mend(path: Path, file: io.FileIO) -> None:
    """Drops what is damaged at the end. Raises RequestError where sound records come behind what is damaged."""
    file.seek(0)
    sound = position = 0
    torn: int | None = None  # the number of the first damaged line
    for number, line in enumerate(io.BytesIO(file.read()), 1):
        position += len(line)
        if not _record(line):
            torn = torn or number
        elif torn is not None:
            raise RequestError(_elsewhere(path, f"is damaged in line {torn}, with records behind it"))
        else:
            sound = position
    if position > sound:
        file.truncate(sound)
        sys.stderr.write(f"tune: {path}: its last {position - sound} bytes are half a record, and dropped\n")


def _record(line: bytes) -> bool:
    """Whether a line is a whole record of Optuna's."""
    if not line.endswith(b"\n"):
        return False
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and isinstance(record.get("op_code"), int) and "worker_id" in record


def _elsewhere(path: Path, why: str) -> str:
    return (
        f"out_dir: {path} {why}; move that file away (results and MLflow's runs stay), or choose another with out_dir="
    )
