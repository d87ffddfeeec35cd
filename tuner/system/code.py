"""Functions and modules that a person names: found, imported, and known by the digest of their source."""

import contextlib
import hashlib
import importlib.util
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from tuner.errors import CandidateError, RequestError
from tuner.system.said import first_line

_FILE = ".py"


class _Signalled(KeyboardInterrupt):
    """Somebody pressed Ctrl-C: it was not raised by what runs."""


@contextlib.contextmanager
def authored(what: str) -> Iterator[None]:
    """While code of a user's own runs. Whatever it raises, an exit or an interruption of its own too, becomes a
    RequestError: `what`, and what it said. Ctrl-C is still Ctrl-C."""

    def end(*_: Any) -> None:
        raise _Signalled

    main = threading.current_thread() is threading.main_thread()
    watched = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if watched:
        signal.signal(signal.SIGINT, end)
    try:
        yield
    except (RequestError, CandidateError, _Signalled):
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise RequestError(f"{what}: {first_line(said)}{_place(error)}") from error
    finally:
        if watched:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def resolve(reference: str, key: str) -> Callable[..., Any]:
    """The function that `module:function` names, or `folder/file.py:function`; RequestError names `key` where there is
    none."""
    where, _, attribute = reference.rpartition(":")
    if not where or not attribute:
        raise RequestError(f"{key}={reference!r} must read package.module:function, or folder/file.py:function")
    if where.endswith(_FILE) and not Path(where).is_file():
        raise RequestError(f"{key}={reference!r}: there is no file {where}")
    importable()
    module_name = module_of(reference)
    with authored(f"{key}={reference!r}: mend {module_name!r}, which does not import"):
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise RequestError(
                f"{key}={reference!r}: cannot import {module_name!r} ({first_line(error)}); install it, or run from "
                "its folder"
            ) from error
    if where.endswith(_FILE) and Path(str(module.__file__)).resolve() != Path(where).resolve():
        raise RequestError(f"{key}={reference!r}: {module.__file__} goes by the same name; give the file another")
    if not callable(found := getattr(module, attribute, None)):
        raise RequestError(f"{key}={reference!r}: {module_name!r} has no function {attribute!r}")
    return cast(Callable[..., Any], found)


def module_of(reference: str) -> str:
    """The name of the module in `module:function`. In `folder/file.py:function` it is the file's, whose folder becomes
    the first of the import path: processes that are started later find it too."""
    where = reference.rpartition(":")[0] or reference
    if not where.endswith(_FILE):
        return where
    file = Path(where).absolute()
    sys.path[:] = [str(file.parent), *(entry for entry in sys.path if entry != str(file.parent))]
    return file.stem


def _place(error: BaseException) -> str:
    """Where it was raised, in brackets; nothing where that is no line of the user's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__ and "<" not in f.filename]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def called(reference: str, key: str, *arguments: Any) -> Any:
    """What the function that `module:function` names returns. RequestError names `key` where it fails."""
    function = resolve(reference, key)
    with authored(f"{key}={reference} fails"):
        return function(*arguments)


def importable() -> None:
    """Puts the current folder on the import path: a console script does not have it, unlike `python -m`."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def source_digest(reference: str) -> str:
    """SHA-256 of the file of the module that `module` names, or a reference as `resolve` takes it."""
    importable()
    spec = importlib.util.find_spec(module_of(reference))
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():  # some are built into Python
        raise RequestError(f"{reference!r}: no such module")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
