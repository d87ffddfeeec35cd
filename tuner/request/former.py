"""Keys by the names they had before: a schedule keeps its command line for years."""

import sys
from collections.abc import Sequence

KEYS = {"executor": "trial", "plain": "reference"}
_GONE = ("executor=local",)


def present(overrides: Sequence[str]) -> list[str]:
    """The overrides by the names that keys have now. Side effect: says so on standard error, in one line."""
    kept = [override for override in overrides if override not in _GONE]
    renamed = [_renamed(override) for override in kept]
    former = sorted({group for group in KEYS if any(o.startswith((f"{group}.", f"{group}=")) for o in overrides)})
    if former:
        mends = ", ".join(f"{group}.* is now {KEYS[group]}.*" for group in former)
        sys.stderr.write(f"tune: {mends}; read as such\n")
    return renamed


def _renamed(override: str) -> str:
    group, dot, rest = override.partition(".")
    return f"{KEYS[group]}.{rest}" if dot and group in KEYS else override
