"""What Hydra is let read: which of its own keys, from which folders, and for how long."""

import contextlib
import importlib.util
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from tuner.errors import RequestError
from tuner.system.code import importable
from tuner.system.fields import shown

LIMIT_S = 5.0  # of the processor's time: conf/ takes a half
_AGAIN_S = 2.0  # OmegaConf goes on after some exceptions
_PATH = "hydra.searchpath"


class _Endless(BaseException):
    """No Exception: OmegaConf would wrap it."""


@contextlib.contextmanager
def limited(overrides: Sequence[str]) -> Iterator[None]:
    """While the configuration that those overrides choose is read. Raises RequestError where that does not end: anchors
    or interpolations of a few lines stand for more nodes than any memory holds. Only the main thread is watched."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    ends = 0

    def end(*_: Any) -> None:
        nonlocal ends
        ends += 1
        raise _Endless

    before = signal.signal(signal.SIGVTALRM, end)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S, _AGAIN_S)
        try:
            yield
        finally:  # where it may come once more: what was read so far takes its time to go
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except BaseException as error:
        signal.signal(signal.SIGVTALRM, signal.SIG_IGN)
        if not ends:
            raise
        chosen = " ".join(o for o in overrides if "=" in o and not o.startswith("hydra.")) or "conf/"
        raise RequestError(
            f"{chosen}: what it stands for is too large to be read; an anchor or an interpolation of its file is "
            "repeated within one that is repeated"
        ) from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def check_hydra(overrides: Sequence[str]) -> None:
    """Hydra's own keys would do nothing here, and it reads on where a folder is not there. Raises RequestError."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key == _PATH:
            _check_folders(override)
        elif key == "hydra" or key.startswith(("hydra.", "hydra/")):
            raise RequestError(
                f"{shown(override)[1:-1]}: of Hydra's own keys only {_PATH} is taken; out_dir= says where studies go"
            )


def _check_folders(override: str) -> None:
    """Raises RequestError unless each entry is a folder, or a package that can be imported."""
    try:
        entries = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return  # composing it tells what is wrong
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in map(_text, entries)):
        raise RequestError(f"{override}: must be a list of folders, as in {_PATH}=[file://tuning]")
    for entry in map(_text, entries):
        scheme, _, place = entry.rpartition("://")
        if scheme not in ("", "file", "pkg"):
            raise RequestError(f"{_PATH}: {entry} must begin with file:// or pkg://")
        if not (_package(place) if scheme == "pkg" else Path(place).is_dir()):
            kind = "package that can be imported" if scheme == "pkg" else "folder"
            raise RequestError(f"{_PATH}: {entry} is no {kind}; a path after file:// is relative to the current folder")


def _text(entry: Any) -> Any:
    """An entry without its quotes."""
    return getattr(entry, "text", entry)


def _package(name: str) -> bool:
    importable()
    try:
        return importlib.util.find_spec(name) is not None
    except (Exception, SystemExit):  # whatever a package above it does
        return False
