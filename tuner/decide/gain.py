"""Why tuning gained little: what became of everything that was tried beyond the best runtime as it comes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tuner.candidate import Candidate
from tuner.decide.int8_time import Int8Time
from tuner.goal import Goal
from tuner.measure.roofline import Standing
from tuner.trial import Outcome
from tuner.verdict import Doubt, Verdict

LITTLE = 1.2  # times the samples per second of the best untuned runtime


def about_gain(
    verdict: Verdict,
    outcomes: Sequence[Outcome],
    goal: Goal,
    standings: Mapping[Candidate, Standing],
    int8: Int8Time | None = None,
) -> Iterator[Doubt]:
    """Nothing where the champion serves `LITTLE` times as many samples or more. `standings` are of those that raced,
    `int8` is where the time of the fastest quantized goes."""
    champion, untuned = verdict.champion, verdict.best_untuned
    if goal.objective != "throughput" or champion is None or untuned is None:
        return
    mine, theirs = champion.measurement.throughput, untuned.measurement.throughput
    if not mine or not theirs or mine >= LITTLE * theirs:
        return
    tuned = [o for o in outcomes if not o.candidate.plain and o.candidate != champion.candidate]
    ends = Counter(_end(outcome, goal) for outcome in tuned)
    became = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    others = f"{'' if champion.candidate.plain else 'other '}compressed or half-precision"
    tried = f"of {len(tuned)} {others} candidates {became}" if tuned else f"no {others} candidate was tried"
    as_it_came = next((o.measurement.throughput_normalised for o in outcomes if o.candidate == untuned.candidate), None)
    missed = _nearest(tuned, as_it_came, goal)
    standing = standings.get(untuned.candidate)
    left = "" if standing is None else f"; {untuned.candidate.label} {standing.sentence('this device')}"
    spent = "" if int8 is None else f"; of {int8.quantized.label}: {int8.sentence()}"
    yield Doubt(
        "little_gained", f"{mine / theirs:.2f}× the best untuned runtime, and why no more: {tried}{missed}{left}{spent}"
    )


def _nearest(tuned: Sequence[Outcome], as_it_came: float | None, goal: Goal) -> str:
    """Which of those that lost too much, and would have gained enough, lost least. `as_it_came` are the samples per
    second of the best untuned runtime in its own trial."""
    would: list[tuple[float, float, str]] = []  # what it loses, how many times as fast it is, its label
    for outcome in tuned:
        rate, drop = outcome.measurement.throughput_normalised, outcome.measurement.accuracy_drop
        broken = {name for name, value in goal.violations(outcome.measurement).items() if value > 0}
        if as_it_came and rate and drop and broken == {"accuracy_drop"} and rate >= LITTLE * as_it_came:
            would.append((drop, rate / as_it_came, outcome.candidate.label))
    if not would:
        return ""
    drop, times, label = min(would, key=lambda each: (each[0], -each[1]))
    return f"; the nearest is {label}, {times:.1f}× as fast in its trial, which loses {drop:.4f}"


def _end(outcome: Outcome, goal: Goal) -> str:
    """What became of a candidate, in words that follow a number of them."""
    excess = goal.violations(outcome.measurement)
    if outcome.state == "failed":
        return "failed"
    if excess.get("accuracy_drop", 0.0) > 0:
        return f"lost more than accuracy_drop={goal.limits['accuracy_drop']:g}"
    over = [name for name, value in excess.items() if value > 0]
    if over:
        return f"broke {over[0]}"
    if outcome.stopped_by == "behind":
        return "fell far behind after a few calls"
    return "kept the limits and gained nothing beyond the noise"
