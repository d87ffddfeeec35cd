"""A name that nobody knows, told with the nearest one that somebody does."""

import difflib
from collections.abc import Iterable, Sequence


def unknown_name(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The complaint about a key, or with a `prefix` such as `target=` about a choice."""
    options = list(known)
    listed = f"there are {', '.join(options)}" if len(options) <= 12 else "tune --help lists them"
    hint = nearest(name, options) or f"; {listed if options else 'there are none'}"
    return f"{prefix}{name}: no such {'choice' if prefix else 'key'}{hint}"


def nearest(name: str, options: Sequence[str]) -> str:
    """`; did you mean NAME?`, or nothing where none is near."""
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    # `latency` means `latency_ms`
    close = close or [option for option in options if option.startswith(name)][:1]
    return f"; did you mean {close[0]}?" if close else ""
