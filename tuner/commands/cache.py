"""`tune cache`: what the built stages take on disk, by stage; with a limit, the longest unused go."""

import math
import time
from collections.abc import Sequence

import rich.console
from rich.table import Table

from tuner.build.store import Entry, Store
from tuner.errors import RequestError
from tuner.request import compose
from tuner.system.files import folder

_DAY_S = 86_400.0
_LIMITS = ("max_gb", "max_age_days")


def cache(arguments: Sequence[str]) -> int:
    """`tune cache [max_gb=…] [max_age_days=…] [cache_dir=…]`: trims to those limits, then shows what is left."""
    limits = dict(a.split("=", 1) for a in arguments if a.partition("=")[0] in _LIMITS and "=" in a)
    config = compose.composed([a for a in arguments if a.partition("=")[0] not in _LIMITS])
    max_gb, max_age_days = (_number(name, limits.get(name)) for name in _LIMITS)
    store = Store(folder(config.cache_dir))
    console = rich.console.Console(highlight=False)
    if limits:
        gone = store.trim(
            None if max_gb is None else max_gb * 1e3, None if max_age_days is None else max_age_days * _DAY_S
        )
        console.print(f"removed {len(gone)} entries, {sum(entry.size_mb for entry in gone):,.1f} MB")
    entries = store.entries()
    console.print(_table(entries))
    console.print(f"{sum(entry.size_mb for entry in entries):,.1f} MB in {store.root}", markup=False, soft_wrap=True)
    return 0


def _table(entries: Sequence[Entry]) -> Table:
    table = Table("stage", box=None, pad_edge=False)
    for name in ("entries", "MB", "last used, days ago", "the longest unused"):
        table.add_column(name, justify="right")
    now = time.time()
    for stage in sorted({entry.stage for entry in entries}):
        mine = [entry for entry in entries if entry.stage == stage]
        ages = [(now - entry.used_s) / _DAY_S for entry in mine]
        size_mb = sum(entry.size_mb for entry in mine)
        table.add_row(stage, str(len(mine)), f"{size_mb:,.1f}", f"{min(ages):.1f}", f"{max(ages):.1f}")
    return table


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
