"""What a person at the terminal sees. Progress goes to standard error, the verdict to standard output."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import rich.console
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tuner.candidate import Candidate
from tuner.configure import Request
from tuner.constraints import Constraints, Measurement
from tuner.evaluate import Outcome
from tuner.honesty import Doubt

_FILE_COLUMNS = 120  # where the output is no terminal


class Console:
    """Prints one study."""

    def __init__(self) -> None:
        self._out = rich.console.Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_COLUMNS)
        self._err = rich.console.Console(
            stderr=True, highlight=False, width=None if sys.stderr.isatty() else _FILE_COLUMNS
        )

    def begin(self, request: Request, study: str, device: str) -> None:
        limits = ", ".join(f"{name} ≤ {value:g}" for name, value in request.constraints.limits().items())
        threads = f"{request.target.cores} thread{'s' * (request.target.cores > 1)}"
        self._err.print(f"[bold]{study}[/]: {request.workload.name} on {request.target.name} ({device}, {threads})")
        self._err.print(f"most {request.objective.name} within {limits or 'no limit'}")

    @contextlib.contextmanager
    def training(self, name: str) -> Iterator[Callable[[float, str], None]]:
        """A bar that appears with the first report."""
        with self._progress(TextColumn("{task.fields[text]}")) as bar:
            task = bar.add_task(f"preparing {name}", total=1.0, text="", visible=False)

            def report(fraction: float, text: str) -> None:
                bar.update(task, completed=fraction, text=text, visible=True)

            yield report

    def left_out(self, reasons: Mapping[str, str]) -> None:
        for label, reason in reasons.items():
            self._err.print(f"left out {label}: {reason}", style="yellow", markup=False)

    def float_model(self, accuracy: float, samples: Mapping[Any, int]) -> None:
        counted = ", ".join(f"{count} {role}" for role, count in samples.items() if count)
        self._err.print(f"float model: accuracy {accuracy:.4f} ({counted} samples)")

    @contextlib.contextmanager
    def trials(self, total: int, request: Request) -> Iterator["TrialBar"]:
        with self._progress(MofNCompleteColumn(), TextColumn("{task.fields[text]}")) as bar:
            yield TrialBar(bar, total, request)

    @contextlib.contextmanager
    def baselines(self, total: int) -> Iterator[Callable[[Candidate], None]]:
        """A bar over the baselines' batch sizes."""
        with self._progress(MofNCompleteColumn(), TextColumn("{task.fields[text]}")) as bar:
            task = bar.add_task("baselines", total=total, text="", completed=-1 if total else 0)

            def advance(candidate: Candidate) -> None:
                bar.update(task, advance=1, text=candidate.label)

            yield advance
            bar.update(task, completed=total, text="")

    def doubts(self, doubts: Sequence[Doubt]) -> None:
        for doubt in doubts:
            self._err.print(doubt.sentence, style="yellow", markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self._err.print(text, style="dim", markup=False)

    def verdict(self, result: Mapping[str, Any], folder: Path) -> None:
        """Prints what `result.json` says."""
        self._out.print()
        self._out.print(sentence(result), style="bold", markup=False, soft_wrap=True)
        for remark in (*result["notes"], *(doubt["sentence"] for doubt in result["doubts"])):
            self._out.print(remark, style="yellow", markup=False, soft_wrap=True)
        self._out.print(_table(result))
        trials, seconds = result["trials"], result["seconds"]
        self._out.print(
            f"{trials['total']} candidates: {trials['complete']} measured, {trials['stopped_early']} stopped early, "
            f"{trials['failed']} failed, {trials['reused']} proposals seen before; {seconds['total']:.0f} s",
            soft_wrap=True,
        )
        if champion := result["champion"]:
            if champion["roofline"]:
                self._out.print(f"it {champion['roofline']['sentence']}", markup=False, soft_wrap=True)
            self._out.print(f"artifact  {folder / 'champion'}", markup=False, soft_wrap=True)
        if registered := result.get("registered"):
            self._out.print(f"model     {_registered(registered)}", markup=False, soft_wrap=True)
        if watch := result.get("watch"):
            style = "red" if watch["regression"] else None
            self._out.print(f"watch     {watch['sentence']}", style=style, markup=False, soft_wrap=True)
        self._out.print(f"result    {folder / 'result.json'}", markup=False, soft_wrap=True)
        self._out.print(f"review    {result['review']}", markup=False, soft_wrap=True)

    def _progress(self, *columns: Any) -> Progress:
        return Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), *columns, TimeElapsedColumn(),
            console=self._err, transient=True,
        )  # fmt: skip


class TrialBar:
    """Trials done, the one running, the best feasible so far and the time left."""

    def __init__(self, bar: Progress, total: int, request: Request) -> None:
        self._bar = bar
        self._request = request
        self._task = bar.add_task("trials", total=total, text="")
        self._best: Outcome | None = None
        self._durations: list[float] = []
        self._started = time.monotonic()
        self._done = 0
        self._total = total

    def started(self, candidate: Candidate, budget_s: float) -> None:
        self._started = time.monotonic()
        left_s = budget_s
        if self._durations:
            left_s = min(left_s, (self._total - self._done) * sum(self._durations) / len(self._durations))
        left = f"≤ {left_s:.0f} s left"
        self._bar.update(self._task, text=f"{candidate.label} · {self._best_text()} · {left}")

    def finished(self, outcome: Outcome) -> None:
        self._durations.append(sum(outcome.seconds.values()))
        self._done += 1
        objective = self._request.objective
        if outcome.state == "complete" and self._request.constraints.feasible(outcome.measurement):
            score = objective.score(outcome.measurement)
            best = None if self._best is None else objective.score(self._best.measurement)
            if score is not None and (best is None or score > best):
                self._best = outcome
        self._bar.update(self._task, completed=self._done, text=self._best_text())

    def _best_text(self) -> str:
        if self._best is None:
            return "nothing feasible yet"
        rate = self._best.measurement.throughput or 0.0
        return f"best {rate:,.0f}/s {self._best.candidate.label}"


def sentence(result: Mapping[str, Any]) -> str:
    """The verdict of `result.json` in one sentence."""
    limits = Constraints(**result["constraints"]).limits()
    if champion := result["champion"]:
        rivals = {"torch eager": "vs_eager", "the best untuned float32 runtime": "vs_best_untuned"}
        ratios = [f"{result['speedup'][key]:.1f}× {name}" for name, key in rivals.items() if result["speedup"][key]]
        than = f", {' and '.join(ratios)}" if ratios else ""
        told = f"{champion['label']} serves {champion['throughput']:,.0f} samples/s{than}."
        untuned = result["baselines"]["best_untuned"]
        gained = "" if untuned is None or untuned["label"] != champion["label"] else " Tuning gained nothing here."
        return f"Champion ({result['verdict']}): {told}{gained}"
    declared = ", ".join(f"{name} ≤ {limit:g}" for name, limit in limits.items())
    nearest = result["nearest_miss"]
    if nearest is None:
        return f"None: no candidate could be measured within {declared}."
    constraints = Constraints(**result["constraints"])
    measured = _measurement(nearest)
    excess = constraints.violations(measured)
    missed = [
        f"{name} {constraints.value(name, measured):.4g} instead of {limit:g}"
        for name, limit in limits.items()
        if excess.get(name, 0.0) > 0
    ]
    return f"None within {declared}. Nearest: {nearest['label']} ({', '.join(missed) or 'not fully measured'})."


def _registered(found: Mapping[str, Any]) -> str:
    name = f"{found['model']} version {found['version']}"
    if found["champion"]:
        return f"{name}, now the champion" if found["new"] else f"{name} stays the champion"
    return f"{name}, a candidate: tune promote {found['model']}"


def _table(result: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("candidate", overflow="fold")
    quantile = result["constraints"]["latency_percentile"]
    for name in ("samples/s", "p50 ms", f"p{quantile} ms", "accuracy", "drop", "MB"):
        table.add_column(name, justify="right")
    rows = [("champion", result["champion"]), *(("runner-up", finding) for finding in result["runners_up"])]
    rows += [("eager", result["baselines"]["eager"]), ("best untuned", result["baselines"]["best_untuned"])]
    rows += [("nearest miss", result["nearest_miss"])]
    for role, finding in rows:
        if finding is not None:
            table.add_row(role, finding["label"], *_cells(_measurement(finding), quantile))
    return table


def _measurement(finding: Mapping[str, Any]) -> Measurement:
    return Measurement.from_json({f.name: finding[f.name] for f in fields(Measurement)})


def _cells(measured: Measurement, quantile: int) -> list[str]:
    latency = measured.latency_ms

    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    return [
        number(measured.throughput, ",.0f"),
        number(None if latency is None else latency.p50, ".3f"),
        number(None if latency is None else latency.percentile(quantile), ".3f"),
        number(measured.accuracy, ".4f"),
        number(measured.accuracy_drop, "+.4f"),
        number(measured.size_mb, ".2f"),
    ]
