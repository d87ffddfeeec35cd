"""`tune cache`: what the built stages take on disk, by stage; with a limit, the longest unused go."""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuner.build import tuning_records
from tuner.build.store import Entry, Store
from tuner.errors import ExitCode, RequestError
from tuner.report.terminal import Terminal
from tuner.request import compose
from tuner.system.files import folder

_DAY_S = 86_400.0
_CARRY = _EXPORT, _ = "export-tuning-records", "import-tuning-records"
_LIMITS = ("max_gb", "max_age_days")
_COLUMNS = ("entries", "MB", "last used, days ago", "the longest unused")


def run(arguments: Sequence[str]) -> ExitCode:
    """`tune cache [max_gb=…] [max_age_days=…] [cache_dir=…]`: trims to those limits, then shows what is left.

    With `export-tuning-records FILE` or `import-tuning-records FILE` first, writes or takes what backends found out by
    tuning.
    """
    if arguments and arguments[0] in _CARRY:
        return _carry(arguments[0], arguments[1:])
    limits = dict(a.split("=", 1) for a in arguments if a.partition("=")[0] in _LIMITS and "=" in a)
    config = compose.composed([a for a in arguments if a.partition("=")[0] not in _LIMITS])
    max_gb, max_age_days = (_number(name, limits.get(name)) for name in _LIMITS)
    store = Store(folder(config.cache_dir))
    terminal = Terminal()
    if limits:
        gone = store.trim(
            None if max_gb is None else max_gb * 1e3, None if max_age_days is None else max_age_days * _DAY_S
        )
        terminal.line(f"removed {len(gone)} entries, {sum(entry.size_mb for entry in gone):,.1f} MB")
    entries = store.entries()
    terminal.table(("stage", *_COLUMNS), _rows(entries), numbers=_COLUMNS)
    terminal.line(f"{sum(entry.size_mb for entry in entries):,.1f} MB in {store.root}")
    return ExitCode.OK


def _carry(command: str, arguments: Sequence[str]) -> ExitCode:
    """Tuning records to a file or from it. Raises RequestError where none is named, or it cannot be used."""
    if not arguments or "=" in arguments[0]:
        raise RequestError(f"tune cache {command} FILE: the file must be named, such as records.tar.gz")
    file, terminal = Path(arguments[0]), Terminal()
    store = Store(folder(compose.composed(arguments[1:]).cache_dir))
    try:
        if command == _EXPORT:
            told = f"the tuning records of {tuning_records.export(store, file)} models"
        else:
            taken, left, others = tuning_records.take(store, file)
            told = f"the tuning records of {taken} models taken; of {left} there were as many here already"
            if others:
                told += (
                    f"\nthey come from a machine with {'; '.join(others)}: a study takes only those that were made "
                    "with its own libraries, for its own target"
                )
    except OSError as error:
        raise RequestError(f"{error.filename or file}: cannot be written ({error.strerror})") from error
    terminal.line(f"{file}: {told}")
    return ExitCode.OK


def _rows(entries: Sequence[Entry]) -> Iterator[Sequence[str]]:
    now = time.time()
    for stage in sorted({entry.stage for entry in entries}):
        mine = [entry for entry in entries if entry.stage == stage]
        ages = [(now - entry.used_s) / _DAY_S for entry in mine]
        size_mb = sum(entry.size_mb for entry in mine)
        yield stage, str(len(mine)), f"{size_mb:,.1f}", f"{min(ages):.1f}", f"{max(ages):.1f}"


def _number(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value >= 0 and math.isfinite(value)):
        raise RequestError(f"{name}={text}: must be a number, 0 or more")
    return value
