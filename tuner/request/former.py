"""Keys by the names they had before: a schedule keeps its command line for years."""

import sys
from collections.abc import Sequence

KEYS = {
    "executor.timeout_s": "trial.timeout_s",
    "executor.memory_mb": "trial.memory_mb",
    "executor.measure_s": "trial.measure_s",
    "plain": "reference",
}


def present(overrides: Sequence[str]) -> list[str]:
    """The overrides by the names that keys have now. Side effect: says so on standard error, in one line."""
    renamed = [_renamed(override) for override in overrides]
    former = sorted(key for key in KEYS if any(_begins(override, key) for override in overrides))
    if former:
        mends = ", ".join(f"{key} is now {KEYS[key]}" for key in former)
        sys.stderr.write(f"tune: {mends}; read as such\n")
    return renamed


def _renamed(override: str) -> str:
    key = next((key for key in KEYS if _begins(override, key)), None)
    return override if key is None else KEYS[key] + override.removeprefix(key)


def _begins(override: str, key: str) -> bool:
    return override.startswith((f"{key}.", f"{key}="))
