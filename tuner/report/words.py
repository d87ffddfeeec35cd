"""The verdict in words: one sentence, why a trial is not the champion, and the Markdown note of a study's run.

What concerns a whole study is read from `result.json` and `trials.json` alone, as docs/concepts.md describes them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.figures import Figure, figures, printed
from tuner.goal import Goal
from tuner.measurement import Measurement
from tuner.report.rows import Row, declared_limits, measurement, rows, table


@dataclass(frozen=True)
class Setback:
    """What did not do, for one reason: candidates that were tried, or a plugin that could not be."""

    what: str  # the class of the failure, or "stopped early", "over a limit", "left out"
    why: str
    labels: tuple[str, ...]


def sentence(result: Mapping[str, Any]) -> str:
    """The verdict of `result.json` in one sentence."""
    goal = declared_limits(result)
    if champion := result["champion"]:
        rivals = {"torch eager": "vs_eager", "the best untuned float32 runtime": "vs_best_untuned"}
        ratios = [f"{result['speedup'][key]:.1f}× {name}" for name, key in rivals.items() if result["speedup"][key]]
        than = f", {' and '.join(ratios)}" if ratios else ""
        told = f"{champion['label']} serves {champion['throughput']:,.0f} samples/s{than}."
        untuned = result["baselines"]["best_untuned"]
        gained = "" if untuned is None or untuned["label"] != champion["label"] else " Tuning gained nothing here."
        return f"Champion ({result['verdict']}): {told}{gained}"
    declared = limits(goal)
    nearest = result["nearest_miss"]
    if nearest is None:
        return f"None: no candidate could be measured within {declared}."
    missed = ", ".join(breaches(goal, measurement(nearest)))
    return f"None within {declared}. Nearest: {nearest['label']} ({missed or 'not fully measured'})."


def limits(goal: Goal) -> str:
    """The declared limits in a line; empty where there is none."""
    return ", ".join(f"{name} {figures()[name].bound} {limit:g}" for name, limit in goal.limits.items())


def breaches(goal: Goal, measured: Measurement) -> list[str]:
    """The limits that are broken, each with what was measured."""
    return [
        f"{name} {goal.value(name, measured):.4g} instead of {goal.limits[name]:g}"
        for name, excess in goal.violations(measured).items()
        if excess > 0
    ]


def trial_fate(trial: Mapping[str, Any], goal: Goal) -> str:
    """What became of a candidate of `trials.json`, and why it was not good enough if it was not."""
    if failure := trial["failure"]:
        return f"Failed ({failure['kind']}): {failure['sentence']}"
    measured = Measurement.from_json(trial["measurement"])
    broken = ", ".join(breaches(goal, measured))
    if trial["stopped_by"] == "behind":
        seen = f"{measured.throughput or 0.0:,.0f} samples/s in a few calls"
        return f"Stopped early: {seen}, far behind the best by then."
    if stopped_by := trial["stopped_by"]:
        return f"Stopped early: {broken or stopped_by}. Not measured any further."
    if not goal.feasible(measured):
        return f"Outside the limits: {broken or 'not every limit was measured'}."
    kept = [
        f"{name} {goal.value(name, measured):.4g} {figures()[name].bound} {limit:g}"
        for name, limit in goal.limits.items()
    ]
    return f"Within the limits: {', '.join(kept) or 'none are declared'}."


def assurance(result: Mapping[str, Any]) -> Iterator[str]:
    """How surely the champion keeps its limits and is the best."""
    goal, champion = declared_limits(result), result["champion"]
    if champion is None:
        return
    measured = measurement(champion)
    for name, limit in goal.limits.items():
        figure = figures()[name]
        ends, text = figure.interval(measured), figure.text(measured, goal.percentile)
        if ends is None:
            continue
        unit, basis = figure.unit and f" {figure.unit}", figure.basis and f", {figure.basis}"
        settled = ""
        if name == "accuracy_drop" and not figure.holds(ends, limit) and measured.samples_to_certify:
            settled = f" About {measured.samples_to_certify:,} evaluation samples would settle it."
        title = figure.titled(goal.percentile)
        yield (
            f"{title[0].upper()}{title[1:]} is {text}{unit} (95 % interval {printed(ends[0], figure.form)} to "
            f"{printed(ends[1], figure.form)}){basis}; the limit is {limit:g}{unit}.{settled}"
        )
    certified = "the bad end of each interval is within its limit"
    feasible = "the estimates are within the limits, but not the bad end of every interval"
    yield f"So it is {result['verdict']}: {certified if result['verdict'] == 'certified' else feasible}."
    if (noise := result["race"]["noise"]) is not None:
        yield (
            f"The speed-ups are from one race, side by side in {result['race']['rounds']} rounds of fresh processes, "
            f"which tells apart what differs by {100 * math.expm1(noise):.1f} % or more; nearer than that is a tie."
        )
        near = [row.label for row in rows(result) if row.role == "runner-up" and _apart(row, champion) <= noise]
        if near and result["objective"] == "throughput":
            yield (
                f"{', '.join(near)} {'is' if len(near) == 1 else 'are'} as good within that; a tie goes to fewer "
                "transforms, then to the smaller artifact."
            )
        gain, untuned = result["speedup"]["vs_best_untuned"], result["baselines"]["best_untuned"]
        if gain is not None and untuned["label"] != champion["label"] and gain <= math.exp(noise):
            yield f"So {gain:.2f}× the best untuned float32 runtime may be no gain at all."
    if opinion := result["loadgen"]:
        held = "agrees that the limit holds" if opinion["valid"] else f"objects: {opinion['problem']}"
        yield f"MLCommons LoadGen, an independent clock, {held} (p{goal.percentile} " + (
            f"{opinion[f'p{goal.percentile}']:.3g} ms over {opinion['samples']:,} queries, "
            f"{opinion['qps']:,.0f} a second)."
        )
    yield "The artifact was loaded again in a clean process and gave the recorded outputs and accuracy."


def _apart(row: Row, champion: Mapping[str, Any]) -> float:
    """The logarithm of the ratio of throughputs."""
    rate = row.measured.throughput
    return abs(math.log(rate / champion["throughput"])) if rate else math.inf


def setbacks(result: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> list[Setback]:
    """What was tried and did not do, by reason, failures first; at the end what could not be tried here."""
    goal = declared_limits(result)
    failed: dict[tuple[str, str], list[str]] = {}
    over: dict[tuple[str, str], list[tuple[float, str]]] = {}
    behind: list[str] = []
    for trial in trials:
        if failure := trial["failure"]:
            failed.setdefault((failure["kind"], failure["sentence"]), []).append(trial["label"])
            continue
        measured = Measurement.from_json(trial["measurement"])
        excess = goal.violations(measured)
        worst = trial["stopped_by"] or max(excess, key=excess.__getitem__, default=None)
        if worst is None or (trial["stopped_by"] is None and excess[worst] <= 0):
            continue
        if worst == "behind":
            behind.append(trial["label"])
            continue
        what = "stopped early" if trial["stopped_by"] else "over a limit"
        over.setdefault((what, worst), []).append((goal.value(worst, measured) or math.nan, trial["label"]))
    found = [Setback(kind, why, tuple(labels)) for (kind, why), labels in sorted(failed.items())]
    for (what, name), several in sorted(over.items(), reverse=True):
        several.sort()
        low, high = f"{several[0][0]:.3g}", f"{several[-1][0]:.3g}"
        values = low if low == high else f"{low} to {high}"
        why = f"{name} {values}, where {goal.limits[name]:g} is the limit"
        found.append(Setback(what, why, tuple(label for _, label in several)))
    if behind:
        found.append(Setback("stopped early", "a few calls showed it far behind the best by then", tuple(behind)))
    return [*found, *(Setback("left out", why, (label,)) for label, why in result["left_out"].items())]


def counted(result: Mapping[str, Any]) -> str:
    """How many candidates were tried, and what became of them."""
    trials = result["trials"]
    return (
        f"{trials['total']} candidates: {trials['complete']} measured, {trials['stopped_early']} stopped early, "
        f"{trials['failed']} failed, {trials['reused']} proposals seen before; {result['seconds']['total']:.0f} s, "
        f"ended by {trials['ended_by']}"
    )


def study_note(result: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown that MLflow shows as the description of a study's run."""
    percentile = declared_limits(result).percentile
    # MLflow shows the first lines, and the rest on demand
    parts = [f"**{_plain(sentence(result))}**"]
    parts.append(
        f"{counted(result)}. `{result['command']}` repeats it. The whole page is `report.html` under Artifacts."
    )
    if sure := list(assurance(result)):
        parts.append("### How surely\n" + "\n".join(f"- {_plain(line)}" for line in sure))
    columns, compared = table(result)
    heads = [f"{figure.heading(percentile)}{' (95 %)' * (figure.ends is not None)}" for figure in columns]
    lines = [["", "candidate", *heads], ["---", "---", *["---:"] * len(columns)]]
    for role, _, label, measured in compared:
        lines.append([role, label, *(_with_interval(figure, measured, percentile) for figure in columns)])
    parts.append("\n".join("| " + " | ".join(map(_plain, cells)) + " |" for cells in lines))
    if doubts := [*result["notes"], *(doubt["sentence"] for doubt in result["doubts"])]:
        parts.append("### What to question\n" + "\n".join(f"- {_plain(line)}" for line in doubts))
    if lost := setbacks(result, trials):
        told = ["### What did not work", "| what | candidates | why | such as |", "|---|---:|---|---|"]
        told += [f"| {s.what} | {len(s.labels)} | {_plain(s.why)} | {_plain(s.labels[0])} |" for s in lost]
        parts.append("\n".join(told))
    environment = result["environment"]
    versions = {"Python": environment["python"], **environment["versions"]}
    parts.append(
        f"### To reproduce\n```\n{result['command']}\n```\n"
        f"{environment['cpu']}, {environment['threads']} threads; {environment['system']}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}."
    )
    return "\n\n".join(parts)


def _with_interval(figure: Figure, measured: Measurement, percentile: int) -> str:
    ends, text = figure.interval(measured), figure.text(measured, percentile)
    return text if ends is None else f"{text} ({ends[0]:{figure.form}} to {ends[1]:{figure.form}})"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, in a table's cell too."""
    for sign in "\\`*_<|":
        text = text.replace(sign, "\\" + sign)
    return text.replace("\n", " ")
