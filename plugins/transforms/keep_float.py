"""Which layers stay in float, where int8 of all of them is too far from the float model."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from tuner.errors import CandidateError


def kept_in_float(
    layers: Sequence[str],
    alone: Callable[[str], float],
    without: Callable[[Sequence[str]], float],
    max_error: float,
    label: str,
) -> Sequence[str]:
    """The fewest layers, the worst first, without which the error is within `max_error`; never all of them.

    `alone` is the error with that layer alone quantized: asked once for each, it ranks them. `without` is that of all
    but those: asked as often as a bisection takes. Raises CandidateError where a single layer is too much.
    """
    ranked = sorted(layers, key=alone, reverse=True)
    fewest = bisect_left(range(len(ranked)), True, lo=1, key=lambda count: without(ranked[:count]) <= max_error)
    if fewest >= len(ranked):
        raise CandidateError("numerics", f"{label} of one layer alone has an error above {max_error:g} already")
    return ranked[:fewest]
