"""What of the defaults fits a model whose calls take long: fewer batch sizes, fewer trials. What a user sets stays."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.decide.doubts import PLAUSIBLE
from tuner.request.request import Request
from tuner.request.schema import Fixed
from tuner.search.range import Range
from tuner.search.recipe import BATCH_SIZE

SLOW_MS = 10.0  # a call of the float model with one sample; what is faster leaves time for all there is
LONGEST_MS = 2000.0  # of a call: a trial makes `_CALLS` of them, and a final race more
LEAST_TRIALS = 6  # every backend as it comes, and the usual quantizers
_CALLS = 7  # of a candidate, at least: the probe, and two turns of three
_GAIN = 2.0  # a candidate is likely to be so many times as fast as the float model
OURS = (Range(1, 64, factor=2), Range(1, 64, factor=4))  # the batch sizes of the bundled spaces


@dataclass(frozen=True)
class Fitting:
    """The greatest batch size and how many trials to have by default, and what is left out by that, with why."""

    most_batch: int
    trials: int
    left_out: dict[str, str]


def fitting(request: Request, batch_sizes: Sequence[int], call_ms: float, samples: int) -> Fitting:
    """`batch_sizes` are those of the space, `call_ms` is the least duration of a call of the float model with its least
    batch, `samples` how many evaluate a candidate."""
    limit_ms = request.goal.limits.get("latency_ms")
    most, trials, left_out = max(batch_sizes), request.n_trials, {}
    if call_ms >= SLOW_MS and not _own_batches(request):
        most = most_batch(batch_sizes, call_ms, limit_ms)
    if most < max(batch_sizes):
        beyond = min(size for size in batch_sizes if size > most)
        hopeless = limit_ms is not None and beyond * call_ms > PLAUSIBLE * limit_ms
        why = f"more than {PLAUSIBLE:.0f} times latency_ms={limit_ms:g}" if hopeless else "long for a search"
        left_out[f"batch sizes above {most}"] = (
            f"a call of the float model takes {call_ms:,.0f} ms with one sample, so one with {beyond} about "
            f"{beyond * call_ms / 1e3:,.1f} s, {why}; search_space.batch_size= tries others"
        )
    if call_ms >= SLOW_MS and not _set(request, "n_trials") and trials == Fixed.n_trials:
        middle = sorted(size for size in batch_sizes if size <= most)
        trial_s = trial_seconds(middle[len(middle) // 2], call_ms, samples)
        trials = min(trials, max(LEAST_TRIALS, int(request.timeout_s / trial_s)))
        if trials < request.n_trials:
            left_out[f"{request.n_trials - trials} of {request.n_trials} trials"] = (
                f"with such calls and {samples} evaluation samples a trial takes some {trial_s:,.0f} s of "
                f"timeout_s={request.timeout_s:g}; n_trials= asks for more"
            )
    return Fitting(most, trials, left_out)


def most_batch(batch_sizes: Sequence[int], call_ms: float, limit_ms: float | None) -> int:
    """The greatest batch size whose calls can be within the limit and do not take too long; else the least there is."""
    longest_ms = LONGEST_MS if limit_ms is None else min(LONGEST_MS, PLAUSIBLE * limit_ms)
    return max((size for size in batch_sizes if size * call_ms <= longest_ms), default=min(batch_sizes))


def trial_seconds(batch_size: int, call_ms: float, samples: int) -> float:
    """About what the calls of a trial take: those that are timed, the reference's between them, one for each sample."""
    return call_ms / 1e3 * (2 * 3 + (_CALLS * batch_size + samples) / _GAIN)


def _own_batches(request: Request) -> bool:
    """Whether the batch sizes are the user's own, from a command line or a file."""
    named = any(o.lstrip("+").startswith("search_space") and BATCH_SIZE in o for o in request.overrides)
    return named or request.space.ranges.get(BATCH_SIZE) not in OURS


def _set(request: Request, key: str) -> bool:
    return any(override.lstrip("+").startswith(f"{key}=") for override in request.overrides)
