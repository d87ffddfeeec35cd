"""The report's pictures, as SVG to be set into a page."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from tuner.goal import Goal
from tuner.measurement import Measurement
from tuner.records import TrialRecord
from tuner.result import Result

Trials = Sequence[TrialRecord]
Point = tuple[float, float]
# Okabe and Ito's colours, which colour-blind readers tell apart
_PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d1f", "#4d4d4d")
_LIMIT, _GREY, _BEST = "#b3261e", "#9a9a9a", "#d4a017"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, read aloud
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
_SIZE = (5.0, 3.6)  # inches at 72 a point: about as wide as a phone, so that type keeps its size there


def front(result: Result, trials: Trials, against: str) -> str:
    """Latency and `throughput` or `accuracy_drop` of every measured candidate, with the limits and the champion."""
    goal = result.goal
    figure, axes = _figure()
    done = [(t, t.measurement) for t in trials if t.state == "complete"]
    if against == "accuracy_drop":  # what is lost at the least has no place
        done = [(t, measured) for t, measured in done if measured.accuracy_samples is None]
    for colour, name in zip(_PALETTE * 3, dict.fromkeys(backend(t) for t, _ in done), strict=False):
        mine = [(_place(m, goal, against), goal.feasible(m)) for t, m in done if backend(t) == name]
        _dots(axes, [place for place, feasible in mine if feasible], colour, filled=True)
        _dots(axes, [place for place, feasible in mine if not feasible], colour, filled=False)
        axes.scatter([], [], s=26, color=colour, label=name)
    for role, marker, finding in (
        ("champion", "*", result.champion),
        ("torch eager", "s", result.eager),
        ("best untuned", "D", result.best_untuned),
    ):
        if finding is not None:
            x, y = _place(finding.measurement, goal, against)
            size = 210 if marker == "*" else 46
            axes.scatter([x], [y], s=size, marker=marker, color=_BEST, edgecolors="black", zorder=4, label=role)
    if (limit_ms := goal.limits.get("latency_ms")) is not None:
        axes.axvline(limit_ms, color=_LIMIT, linestyle="--", linewidth=1.2, label="limit")
    axes.set(xscale="log", xlabel=f"p{goal.percentile} latency of one call, ms")
    _plain_logarithm(axes.xaxis)
    if against == "throughput":
        _staircase(axes, [_place(m, goal, against) for _, m in done if _keeps_the_rest(m, goal)])
        axes.set(yscale="log", ylabel="samples/s")
        _plain_logarithm(axes.yaxis)
    else:
        declared = goal.limits.get("accuracy_drop")
        limit = declared or 0.01
        drops = [0.0, *(m.accuracy_drop for _, m in done if m.accuracy_drop is not None)]
        # plain around the limit, logarithmic beyond it: a ruined model must not flatten the rest
        axes.set_yscale("symlog", linthresh=2 * limit)
        axes.set(ylabel="accuracy lost against float", ylim=(min(*drops, -0.4 * limit), 1.3 * max(*drops, 2 * limit)))
        beyond = [tick for tick in (0.1, 0.3, 1.0) if 3 * limit < tick < 1.3 * max(drops)]
        axes.set_yticks([0.0, limit, 2 * limit, *beyond])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        if declared is not None:
            axes.axhline(limit, color=_LIMIT, linestyle="--", linewidth=1.2)
    _legend(figure, axes)
    return _svg(figure, f"front-{against}")


def history(result: Result, trials: Trials) -> str:
    """What each trial found, and the best feasible so far."""
    goal = result.goal
    figure, axes = _figure()
    better = max if goal.wanted.better == "more" else min
    good: list[Point] = []
    bad: list[Point] = []
    best: list[Point] = []
    glanced: list[Point] = []
    unmeasured = []
    for number, trial in enumerate(trials):
        value = wanted(goal, trial)
        if value is None:
            unmeasured.append(number)
        elif trial.measurement.probed and goal.wanted.timed:
            glanced.append((number, value))
        elif goal.feasible(trial.measurement):
            good.append((number, value))
            best.append((number, better(value, best[-1][1]) if best else value))
        else:
            bad.append((number, value))
    _dots(axes, good, _PALETTE[0], filled=True, label="within the limits")
    _dots(axes, bad, _GREY, filled=False, label="outside the limits")
    if glanced:
        x, y = zip(*glanced, strict=True)
        axes.scatter(x, y, s=22, marker="D", facecolors="none", edgecolors=_GREY, label="≈ by a few calls")
    if best:
        best.append((len(trials) - 1, best[-1][1]))
        x, y = zip(*best, strict=True)
        axes.step(x, y, where="post", color=_BEST, linewidth=2, label="the best so far")
    if unmeasured:
        at_the_foot = axes.get_xaxis_transform()
        axes.plot(unmeasured, [0.02] * len(unmeasured), "x", color=_LIMIT, label="not measured", transform=at_the_foot)
    axes.set(xlabel="candidates in the order tried, baselines last", ylabel=goal.wanted.axis(goal.percentile))
    if good or bad or glanced:
        axes.set_yscale("log")
        _plain_logarithm(axes.yaxis)
    _legend(figure, axes)
    return _svg(figure, "history")


def choices(result: Result, trials: Trials) -> str:
    """For each backend, combination of transforms and batch size: the best feasible candidate that has it. What was far
    behind after a few calls says nothing of the limits."""
    goal = result.goal
    up = goal.wanted.better == "more"
    bars: list[tuple[str, float, str] | None] = []
    for kind in (backend, transforms, batch):
        tried: dict[str, list[float | None]] = {}
        for t in trials:
            scores = tried.setdefault(kind(t), [])
            if t.stopped_by != "behind":
                kept = goal.feasible(t.measurement)
                scores.append(wanted(goal, t) if kept else None)
        several = []
        for name, scores in tried.items():
            kept_scores = [s for s in scores if s]
            best = (max if up else min)(kept_scores) if kept_scores else 0.0
            counted = f"{len(kept_scores)} of {len(scores)}"
            text = f"{_short(best)}  ({counted})" if best else f"none within the limits  ({counted})"
            several.append((name, best, text if scores else "far behind"))
        several.sort(key=lambda bar: bar[1] if up else -bar[1], reverse=True)
        bars += [*several, None]
    figure, axes = _figure(0.6 + 0.23 * len(bars))
    names = []
    for place, bar in enumerate(bars[:-1]):
        names.append("" if bar is None else bar[0])
        if bar is not None:
            _, value, text = bar
            axes.barh(place, value, color=_PALETTE[0] if value else _GREY, height=0.72)
            axes.text(value, place, f" {text}", va="center", fontsize=8)
    _rows(axes, names)
    axes.set_xlim(0, 1.45 * max((bar[1] for bar in bars if bar), default=1.0) or 1.0)
    axes.set_xlabel(goal.wanted.axis(goal.percentile))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    return _svg(figure, "choices")


def time_spent(seconds: Mapping[str, float]) -> str:
    """Seconds by what they went into, longest first."""
    figure, axes = _figure(0.7 + 0.26 * len(seconds))
    total = sum(seconds.values()) or 1.0
    ordered = sorted(seconds.items(), key=lambda item: item[1], reverse=True)
    for place, (_, value) in enumerate(ordered):
        axes.barh(place, value, color=_PALETTE[2], height=0.7)
        axes.text(value, place, f" {value:.0f} s, {100 * value / total:.0f} %", va="center", fontsize=8)
    _rows(axes, [name for name, _ in ordered])
    axes.set_xlim(0, 1.3 * max(seconds.values(), default=1.0) or 1.0)
    axes.set_xlabel("seconds")
    return _svg(figure, "time")


def backend(trial: TrialRecord) -> str:
    return trial.label.split(" · ")[0]


def transforms(trial: TrialRecord) -> str:
    end = -2 if trial.replicas > 1 else -1  # the batch size, and the replicas
    return " + ".join(trial.label.split(" · ")[1:end]) or "no transform"


def batch(trial: TrialRecord) -> str:
    return f"batch {trial.batch_size}"


def wanted(goal: Goal, trial: TrialRecord) -> float | None:
    """What the objective wants, in its unit; None where it was not measured."""
    return goal.wanted.wanted(trial.measurement, goal.percentile)


def _place(measured: Measurement, goal: Goal, against: str) -> Point:
    nan = float("nan")
    latency = measured.latency_ms
    x = nan if latency is None else latency.percentile(goal.percentile)
    y = measured.accuracy_drop if against == "accuracy_drop" else measured.throughput
    return x, nan if y is None else y


def _keeps_the_rest(measured: Measurement, goal: Goal) -> bool:
    """Every limit but that of latency, which the picture shows."""
    return all(value <= 0 for name, value in goal.violations(measured).items() if name != "latency_ms")


def _staircase(axes: Axes, places: Sequence[Point]) -> None:
    """The highest there is up to each place."""
    steps: list[Point] = []
    for x, y in sorted(places):
        if not steps or y > steps[-1][1]:
            steps.append((x, y))
    if steps:
        across, up = zip(*steps, strict=True)
        axes.step(across, up, where="post", color="#666666", linewidth=1, zorder=1, label="the front")


def _dots(axes: Axes, places: Sequence[Point], colour: str, *, filled: bool, label: str | None = None) -> None:
    if places:
        x, y = zip(*places, strict=True)
        axes.scatter(x, y, s=26, facecolors=colour if filled else "none", edgecolors=colour, alpha=0.9, label=label)


def _figure(height: float = _SIZE[1]) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_SIZE[0], height))
        return figure, figure.subplots()


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the bars from the top down."""
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _legend(figure: Figure, axes: Axes) -> None:
    """Under the picture, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.set_size_inches(_SIZE[0], _SIZE[1] + 0.2 * ((len(labels) + 3) // 4))
    with matplotlib.rc_context(_STYLE):
        axes.legend(
            handles, labels, loc="upper center", bbox_to_anchor=(0.45, -0.17), ncols=4, fontsize=8, handletextpad=0.3,
            columnspacing=1.0,
        )  # fmt: skip


def _plain_logarithm(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{value / 1e3:.3g} k" if value >= 1e3 else f"{value:.3g}"


def _svg(figure: Figure, name: str) -> str:
    """The drawing as an element of a page; `name` keeps the ids of several on one page apart."""
    text = io.StringIO()
    FigureCanvasSVG(figure)
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        tight = figure.get_tightbbox().padded(0.05)  # the word "tight" would have it draw everything once more for this
        figure.savefig(text, format="svg", bbox_inches=tight, metadata={"Date": None})
    drawing = text.getvalue()
    drawing = re.sub(r' id="[\w.]+_\d+"', "", drawing[drawing.index("<svg") :])
    return re.sub(r'(<svg [^>]*?) ?width="[^"]*"|height="[\d.]+pt"', lambda m: m.group(1) or "", drawing, count=2)
