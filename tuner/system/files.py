"""Files written whole, folders that can be written, locks."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tuner.errors import RequestError
from tuner.system.deadline import Waiting

_NEEDED_MB = 1000  # free space before a study starts: builds are written to disk


def folder(name: str) -> Path:
    """The folder that a person names, absolute."""
    return Path(name).expanduser().absolute()


def locked(file: IO[Any]) -> bool:
    """Takes the file's lock until it is closed. False where another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked_by_one(path: Path, waiting: Waiting = contextlib.nullcontext) -> Iterator[None]:
    """Holds the lock that `path` stands for: one process at a time, the others wait. `waiting` is entered meanwhile."""
    with path.open("a") as lock:
        with waiting():
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def require_room(folder: Path, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise RequestError(
            f"{name}={folder}: cannot be written ({error.strerror}); choose another with {name}="
        ) from error
    free_mb = shutil.disk_usage(folder).free / 1e6
    if free_mb < _NEEDED_MB:
        raise RequestError(
            f"{name}={folder}: only {free_mb:.0f} MB are free there, a study needs {_NEEDED_MB}; "
            f"free some space or choose another folder with {name}="
        )


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text)
    draft.replace(path)
