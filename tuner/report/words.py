"""The verdict in words: one sentence, how surely it holds, and why a trial is not the champion."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuner.figures import figures, printed
from tuner.goal import Goal
from tuner.measurement import Measurement
from tuner.records import FindingRecord, TrialRecord
from tuner.report.rows import rows
from tuner.result import Result


@dataclass(frozen=True)
class Setback:
    """What did not do, for one reason: candidates that were tried, or a plugin that could not be."""

    what: str  # the class of the failure, or "stopped early", "over a limit", "left out"
    why: str
    labels: tuple[str, ...]


def sentence(result: Result) -> str:
    """The verdict in one sentence."""
    if champion := result.champion:
        ratios = [f"{ratio.value:.1f}× {rival(result, name)}" for name, ratio in result.speedup.items() if ratio]
        than = f", {' and '.join(ratios)}" if ratios else ""
        serves = f"{champion.label} serves {champion.measurement.throughput or 0.0:,.0f} samples/s{than}."
        untuned = result.best_untuned
        gained = "" if untuned is None or untuned.label != champion.label else " Tuning gained nothing here."
        failed, total = result.trials.failed, result.trials.total
        few = f" It is the best of only {total - failed}: {failed} of {total} candidates failed." * (2 * failed > total)
        made_up = ", on made-up inputs: nothing is known of its accuracy" if result.made_up else ""
        return f"Champion ({result.verdict}{made_up}): {serves}{gained}{few}"
    declared, nearest = limits(result.goal), result.nearest_miss
    if not result.trials.total:
        return "None yet: it ended before a candidate was tried; the same command goes on."
    if nearest is None:
        return f"None: no candidate could be measured within {declared}."
    missed = ", ".join(breaches(result.goal, nearest.measurement))
    kept = result.goal.feasible(nearest.measurement)
    why = missed or ("within the limits, but it failed at the end" if kept else "not fully measured")
    return f"None within {declared}. Nearest: {nearest.label} ({why})."


def rival(result: Result, name: str) -> str:
    """What a speed-up is over."""
    if name == "vs_eager":
        return "torch eager"
    return "the quantized model's best runtime, untuned" if result.quantized else "the best untuned float32 runtime"


def limits(goal: Goal) -> str:
    """The declared limits in a line; empty where there is none."""
    return ", ".join(f"{name} {figures()[name].bound} {limit:g}" for name, limit in goal.limits.items())


def breaches(goal: Goal, measured: Measurement) -> list[str]:
    """The limits that are broken, each with what was measured."""
    return [
        f"{name} {figures()[name].marks(measured)[0]}{goal.value(name, measured):.4g} instead of {goal.limits[name]:g}"
        for name, excess in goal.violations(measured).items()
        if excess > 0
    ]


def speedups(result: Result) -> list[str]:
    """The speed-ups over the baselines, each with its interval."""
    return [
        f"{ratio.value:.2f}× {rival(result, name)}"
        + ("" if ratio.ci95 is None else f" (95 % interval {ratio.ci95[0]:.2f} to {ratio.ci95[1]:.2f})")
        for name, ratio in result.speedup.items()
        if ratio is not None
    ]


def trial_fate(trial: TrialRecord, goal: Goal) -> str:
    """What became of a candidate, and why it was not good enough if it was not."""
    if failure := trial.failure:
        return f"Failed ({failure.kind}): {failure.sentence}"
    measured = trial.measurement
    broken = ", ".join(breaches(goal, measured))
    if trial.stopped_by == "behind":
        seen = f"{goal.wanted.text(measured, goal.percentile)} {goal.wanted.unit}".strip()
        return f"Stopped early: {seen} in a few calls, far behind the best by then."
    if trial.stopped_by:
        return f"Stopped early: {broken or trial.stopped_by}. Not measured any further."
    if not goal.feasible(measured):
        return f"Outside the limits: {broken or 'not every limit was measured'}."
    kept = [
        f"{name} {goal.value(name, measured):.4g} {figures()[name].bound} {limit:g}"
        for name, limit in goal.limits.items()
    ]
    return f"Within the limits: {', '.join(kept) or 'none are declared'}."


def assurance(result: Result) -> Iterator[str]:
    """How surely the champion keeps its limits and is the best."""
    if result.champion is None:
        return
    if result.judged:
        yield f"Accuracy is {result.judged}, on {result.samples['evaluation']:,} samples."
    yield from _margins(result.goal, result.champion.measurement)
    certified = "the bad end of each interval is within its limit"
    feasible = "the estimates are within the limits, but the bad end of an interval is not, or is not known"
    if result.goal.certified(result.champion.measurement):
        feasible = "an accuracy that is not surely better than guessing certifies nothing"
    if result.made_up:
        feasible = "made-up inputs certify nothing"
    yield f"So it is {result.verdict}: {certified if result.verdict == 'certified' else feasible}."
    if result.noise is not None:
        yield from _comparison(result, result.champion, result.noise)
    if (opinion := result.loadgen) and "valid" not in opinion:
        yield f"MLCommons LoadGen, an independent clock, could not say: {opinion['problem']}."
    elif opinion and opinion.get("scenario") == "Offline":
        ours = result.champion.measurement.throughput or math.inf
        yield (
            f"MLCommons LoadGen, an independent clock, got {opinion['qps']:,.0f} samples a second of it, all given at "
            f"once ({100 * opinion['qps'] / ours:.0f} % of what was timed)."
        )
    elif opinion:
        answer = "agrees that the limit holds" if opinion["valid"] else f"objects: {opinion['problem']}"
        name = f"p{result.goal.percentile}"
        yield (
            f"MLCommons LoadGen, an independent clock, {answer} ({name} {opinion[name]:.3g} ms over "
            f"{opinion['samples']:,} queries, {opinion['qps']:,.0f} a second)."
        )
    recorded = "outputs" if result.made_up else "outputs and accuracy"
    yield f"The artifact was loaded again in a clean process and gave the recorded {recorded}."


def _margins(goal: Goal, measured: Measurement) -> Iterator[str]:
    """Each limit beside the interval of what it limits."""
    for name, limit in goal.limits.items():
        figure = figures()[name]
        if figure.ends is None or figure.value(measured, goal.percentile) is None:  # it is what it is, or is not there
            continue
        ends, text = figure.interval(measured), figure.text(measured, goal.percentile)
        unit, basis = figure.unit and f" {figure.unit}", figure.basis and f", {figure.basis}"
        settled = ""
        if name == "accuracy_drop" and ends and not figure.holds(ends, limit) and measured.samples_to_certify:
            settled = f" About {measured.samples_to_certify:,} evaluation samples would settle it."
        title = figure.titled(goal.percentile)
        said = "how sure that is, is not known"
        if ends is not None:
            said = f"95 % interval {printed(ends[0], figure.form)} to {printed(ends[1], figure.form)}"
        yield (f"{title[0].upper()}{title[1:]} is {text}{unit} ({said}){basis}; the limit is {limit:g}{unit}.{settled}")


def _comparison(result: Result, champion: FindingRecord, noise: float) -> Iterator[str]:
    """The champion beside what raced with it. `noise` is the race's, a logarithm."""
    if gains := speedups(result):
        yield f"It serves {' and '.join(gains)}."
    race = f"The speed-ups are from one race, side by side in {result.race_rounds} rounds of fresh processes"
    told = f", which tells apart what differs by {100 * math.expm1(noise):.1f} % or more; nearer than that is a tie"
    yield f"{race}{told if result.goal.wanted.timed else ''}."  # else it is the noise of what has none, such as a size
    runners_up = [row.finding for row in rows(result) if row.role == "runner-up"]
    near = [finding.label for finding in runners_up if _apart(finding, champion) <= noise]
    if near and result.goal.objective == "throughput":
        yield (
            f"{', '.join(near)} {'is' if len(near) == 1 else 'are'} as good within that; a tie goes to fewer "
            "transforms, then to the smaller artifact."
        )
    gain, untuned = result.speedup.get("vs_best_untuned"), result.best_untuned
    if gain is not None and untuned is not None and untuned.label != champion.label:
        least = gain.value / math.exp(noise) if gain.ci95 is None else gain.ci95[0]
        if least <= 1:
            yield f"So {gain.value:.2f}× {rival(result, 'vs_best_untuned')} may be no gain at all."


def _apart(finding: FindingRecord, champion: FindingRecord) -> float:
    """The logarithm of the ratio of throughputs."""
    mine, best = finding.measurement.throughput, champion.measurement.throughput
    return abs(math.log(mine / best)) if mine and best else math.inf


def setbacks(result: Result, trials: Sequence[TrialRecord]) -> list[Setback]:
    """What was tried and did not do, by reason, failures first; at the end what could not be tried here."""
    goal = result.goal
    failed: dict[tuple[str, str], list[str]] = {}
    over: dict[tuple[str, str], list[tuple[float, str, str]]] = {}
    behind: list[str] = []
    for trial in trials:
        if failure := trial.failure:
            failed.setdefault((failure.kind, failure.sentence), []).append(trial.label)
            continue
        excess = goal.violations(trial.measurement)
        worst = trial.stopped_by or max(excess, key=excess.__getitem__, default=None)
        if worst is None or (trial.stopped_by is None and excess[worst] <= 0):
            continue
        if worst == "behind":
            behind.append(trial.label)
            continue
        what = "stopped early" if trial.stopped_by else "over a limit"
        value = goal.value(worst, trial.measurement) or math.nan
        mark, _ = figures()[worst].marks(trial.measurement)
        over.setdefault((what, worst), []).append((value, mark, trial.label))
    reasons = [Setback(kind, why, tuple(labels)) for (kind, why), labels in sorted(failed.items())]
    for (what, name), several in sorted(over.items(), reverse=True):
        several.sort()
        ends = list(dict.fromkeys(f"{mark}{value:.3g}" for value, mark, _ in (several[0], several[-1])))
        why = f"{name} {' to '.join(ends)}, where {goal.limits[name]:g} is the limit"
        reasons.append(Setback(what, why, tuple(label for *_, label in several)))
    if behind:
        reasons.append(Setback("stopped early", "a few calls showed it far behind the best by then", tuple(behind)))
    return [*reasons, *(Setback("left out", why, (label,)) for label, why in result.left_out.items())]


def counted(result: Result) -> str:
    """How many candidates were tried, and what became of them."""
    trials = result.trials
    more = f" and what {trials.elsewhere} of them took elsewhere or before" if trials.elsewhere else ""
    return (
        f"{trials.total} candidates: {trials.complete} measured, {trials.stopped_early} stopped early, "
        f"{trials.failed} failed, {trials.reused} proposals seen before; {result.seconds['total']:.0f} s{more}, "
        f"ended by {trials.ended_by}"
    )
