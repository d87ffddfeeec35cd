"""Files written whole, folders that can be written, locks."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tuner.errors import RequestError
from tuner.system.deadline import Waiting
from tuner.system.fields import shown
from tuner.system.said import first_line

_FULL_MB = 20
_NEEDED_MB = 1000  # free space before a study starts: builds are written to disk


def folder(name: str) -> Path:
    """The folder that a person names, absolute. Raises RequestError where no path can be so."""
    try:
        path = Path(name).expanduser().absolute()
        if "\0" in name:
            raise ValueError("it has a NUL")
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a home that nobody has, a NUL
        why = getattr(error, "strerror", None) or first_line(error)
        raise RequestError(f"{shown(name)[1:-1]}: no folder can be called so ({why}); name another") from error
    return path


_LONG = 300  # characters of a name, of which a message need not have all


def require_file(name: str, key: str, *, folder: bool = False) -> None:
    """Raises RequestError, naming `key`, unless that is a file that can be read, or with `folder` may be a folder."""
    there = False
    with contextlib.suppress(OSError):  # too long a name
        there = Path(name).is_file() or (folder and Path(name).is_dir())
    if not there:
        told = name if len(name) <= _LONG else f"{name[:_LONG]}…"
        raise RequestError(f"{key}={told}: no such {'file or folder' if folder else 'file'}")
    if not os.access(name, os.R_OK):
        raise RequestError(f"{key}={name}: it cannot be read; give this user the right to")


def take_lock(file: IO[Any], *, wait: bool = True, shared: bool = False) -> bool:
    """Takes the lock of an open file, until it is closed: for this process alone, or `shared` with others that take it
    so. Without `wait`, False where another process holds it."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def critical_section(path: Path, waiting: Waiting = contextlib.nullcontext) -> Iterator[None]:
    """What one process at a time may do: waits until no other is in the section whose lock is the file `path`.

    `waiting` is entered while it waits. The file stays, for a lock on a file that is gone keeps nobody out.
    """
    with path.open("a") as file:
        with waiting():
            take_lock(file)
        yield


def require_place(folder: Path, name: str) -> None:
    """Raises RequestError where a folder cannot be written or made. Nothing is made."""
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise RequestError(
            f"{name}={folder}: cannot be written ({above} is no folder that can be); choose another with {name}="
        )


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


def full(folder: Path) -> bool:
    """Whether there is no room left on its disk, so that what failed may have failed for that."""
    return shutil.disk_usage(folder).free / 1e6 < _FULL_MB


def no_room(error: BaseException | None) -> bool:
    """Whether the error, or one that led to it, tells of a disk that is full; a library may tell in words alone."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def require_left(folder: Path) -> None:
    """Raises OSError where the disk of a folder is full."""
    if full(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


@contextlib.contextmanager
def taken_back(*folders: Path) -> Iterator[None]:
    """Where the request is refused meanwhile, those of the folders that were not there before are gone again, as far as
    nothing but locks and logs is in them."""
    made = [path for folder in folders for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except RequestError as error:
        for path in made:
            _remove_idle(path, str(error))
        raise


def _remove_idle(folder: Path, cited: str) -> None:
    """Removes a folder in which there are only locks, logs and empty folders, but for the logs that are `cited`."""
    paths = sorted(folder.rglob("*"), reverse=True) if folder.is_dir() else []
    files = [path for path in paths if not path.is_dir()]
    if any(not (file.name.startswith(".") or file.suffix == ".log") for file in files):
        return
    with contextlib.suppress(OSError):  # somebody else was first
        for file in files:
            if str(file) not in cited:
                file.unlink()
    for path in (*(path for path in paths if path.is_dir()), folder):
        with contextlib.suppress(OSError):  # what is cited lies in it
            path.rmdir()


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text)
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a file that the tuner wrote. Raises RequestError where it cannot be read or is no mapping."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, first_line(error)) from error
    if not isinstance(value, dict):
        raise damaged(path, "it holds no mapping")
    return value


def damaged(path: Path, why: str) -> RequestError:
    """The complaint about a file of a study that is not as the tuner wrote it."""
    return RequestError(f"{path}: it is damaged ({why}); move that folder away, or name another study")
