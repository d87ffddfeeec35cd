"""What a person at the terminal sees. Progress goes to standard error, the verdict to standard output."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import rich.console
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tuner.candidate import Candidate
from tuner.report.rows import table
from tuner.report.words import counted, limits, sentence, speedups
from tuner.request.request import Request
from tuner.result import Result, StudyFolder
from tuner.trial import Outcome
from tuner.verdict import Doubt

_FILE_COLUMNS = 120  # where the output is no terminal
LINE_EVERY_S = 30.0  # there, a line in place of the bar


class Console:
    """Prints one study."""

    def __init__(self) -> None:
        # no markup: names and sentences of others may have brackets
        self._out, self._err = (
            rich.console.Console(
                stderr=stream is sys.stderr,
                highlight=False,
                markup=False,
                width=None if stream.isatty() else _FILE_COLUMNS,
            )
            for stream in (sys.stdout, sys.stderr)
        )

    def begin(self, request: Request, study: str, device: str) -> None:
        most = "most" if request.goal.wanted.better == "more" else "least"
        threads = f", {request.target.cores} thread{'s' * (request.target.cores > 1)}"
        if request.target.hardware.far:  # how many it has there, nobody told
            threads = ""
        about = f": {request.workload.name} on {request.target.name} ({device}{threads})"
        self._err.print(Text.assemble((study, "bold"), about))
        self._err.print(f"{most} {request.goal.objective} within {limits(request.goal) or 'no limit'}")

    @contextlib.contextmanager
    def training(self, name: str) -> Iterator[Callable[[float, str], None]]:
        """A bar that appears with the first report."""
        with self._progress(_text("fields[text]")) as bar:
            task = bar.add_task(f"preparing {name}", total=1.0, text="", visible=False)

            def report(fraction: float, text: str) -> None:
                bar.update(task, completed=fraction, text=text, visible=True)

            yield report

    def left_out(self, reasons: Mapping[str, str]) -> None:
        for label, reason in reasons.items():
            self._err.print(f"left out {label}: {reason}", style="yellow")

    def float_model(
        self, title: str, accuracy: float | None, samples: Mapping[Any, int], quantized: bool = False
    ) -> None:
        """`title` says what accuracy is; it is None where nothing is said of it."""
        counted = ", ".join(f"{count} {role}" for role, count in samples.items() if count)
        judged = "nothing is known of its accuracy" if accuracy is None else f"{title} {accuracy:.4f}"
        called = "model, quantized as it came" if quantized else "float model"
        self._err.print(f"{called}: {judged} ({counted} samples)", markup=False)

    def outlook(self, seconds_per_trial: float | None, trials: int, timeout_s: float, earlier: int) -> None:
        """What the search is likely to cost, before it starts."""
        if earlier:
            self._err.print(
                f"starting from {earlier} of the best candidates of earlier studies (warm_start=false: none)"
            )
        most = f"at most {timeout_s / 60:.0f} min" if timeout_s >= 120 else f"at most {timeout_s:.0f} s"
        if seconds_per_trial is None:
            self._err.print(f"the search: {trials} candidates, {most} (nothing was tuned here before to estimate from)")
            return
        likely_s = min(seconds_per_trial * trials, timeout_s)
        likely = f"about {likely_s / 60:.0f} min" if likely_s >= 120 else f"about {likely_s:.0f} s"
        each = f"{seconds_per_trial:.1f} s each in earlier studies"
        self._err.print(f"the search: {trials} candidates, {likely} ({each}), {most}")

    @contextlib.contextmanager
    def trials(self, total: int, request: Request) -> Iterator["TrialBar"]:
        with self._progress(MofNCompleteColumn(), _text("fields[text]")) as bar:
            yield TrialBar(bar, total, request)

    @contextlib.contextmanager
    def baselines(self, total: int) -> Iterator[Callable[[Candidate], None]]:
        """A bar over the baselines' batch sizes."""
        with self._progress(MofNCompleteColumn(), _text("fields[text]")) as bar:
            task = bar.add_task("baselines", total=total, text="", completed=-1 if total else 0)

            def advance(candidate: Candidate) -> None:
                bar.update(task, advance=1, text=candidate.label)

            yield advance
            bar.update(task, completed=total, text="")

    def doubts(self, doubts: Sequence[Doubt]) -> None:
        for doubt in doubts:
            self._err.print(doubt.sentence, style="yellow", soft_wrap=True)

    def say(self, text: str) -> None:
        self._err.print(text, style="dim")

    def verdict(self, result: Result, study: StudyFolder) -> None:
        """Prints what a study found."""
        self._out.print()
        self.tell(sentence(result), style="bold")
        for remark in result.remarks:
            self.tell(remark, style="yellow")
        self._out.print(_table(result))
        self.tell(counted(result))
        if result.champion:
            for ratio in speedups(result):
                self.tell(f"speed-up  {ratio}")
            if result.champion.roofline:
                self.tell(f"it {result.champion.roofline['sentence']}")
            self.tell(f"artifact  {study.champion}")
        if result.registered:
            self.tell(f"model     {_registered(result.registered)}")
        if result.watch:
            self.tell(f"watch     {result.watch['sentence']}", style="red" if result.watch["regression"] else None)
        self.tell(f"result    {study.result}")
        if study.report.exists():
            self.tell(f"report    {study.report}")
        self.tell(f"review    {result.review}")

    def tell(self, line: str, style: str | None = None) -> None:
        """Prints a line of the answer."""
        self._out.print(line, style=style, soft_wrap=True)

    def _progress(self, *columns: Any) -> Progress:
        return Progress(
            SpinnerColumn(), _text("description"), BarColumn(bar_width=24), *columns, TimeElapsedColumn(),
            console=self._err, transient=True, disable=not self._err.is_terminal,
        )  # fmt: skip


class TrialBar:
    """Trials done, the one running, the best feasible so far and the time left."""

    def __init__(self, bar: Progress, total: int, request: Request) -> None:
        self._bar = bar
        self._request = request
        self._task = bar.add_task("trials", total=total, text="")
        self._best: Outcome | None = None
        self._durations: list[float] = []
        self._done = 0
        self._total = total
        self._line_due = time.monotonic() + LINE_EVERY_S

    def started(self, candidate: Candidate, budget_s: float, in_flight: int = 1, nodes: int = 0) -> None:
        """`in_flight` are the trials that are under way, on so many other machines; 0 is on this one."""
        left_s = budget_s
        if self._durations:
            mean_s = sum(self._durations) / len(self._durations)
            left_s = min(left_s, (self._total - self._done) * mean_s / in_flight)
        where = f"{in_flight} in flight on {nodes} node{'s' * (nodes > 1)} · " if nodes else ""
        text = f"{where}{candidate.label} · {self._best_text()} · ≤ {left_s:.0f} s left"
        self._bar.update(self._task, text=text)

    def waiting(self) -> None:
        self._bar.update(self._task, text="waiting for the other processes of this study")

    def finished(self, outcome: Outcome) -> None:
        self._durations.append(sum(outcome.seconds.values()))
        self._done += 1
        goal = self._request.goal
        if outcome.state == "complete" and self._request.goal.feasible(outcome.measurement):
            score = goal.score(outcome.measurement)
            best = None if self._best is None else goal.score(self._best.measurement)
            if score is not None and (best is None or score > best):
                self._best = outcome
        self._bar.update(self._task, completed=self._done, text=self._best_text())
        if not self._bar.console.is_terminal and time.monotonic() >= self._line_due:  # a bar shows on terminals alone
            self._line_due = time.monotonic() + LINE_EVERY_S
            self._bar.console.print(f"{self._done} of {self._total} candidates; {self._best_text()}", style="dim")

    def _best_text(self) -> str:
        if self._best is None:
            return "nothing feasible yet"
        goal = self._request.goal
        best = goal.wanted.text(self._best.measurement, goal.percentile)
        return f"best {best} {goal.wanted.unit} {self._best.candidate.label}"


def _text(field: str) -> TextColumn:
    return TextColumn(f"{{task.{field}}}", markup=False)


def _registered(registered: Mapping[str, Any]) -> str:
    name = f"{registered['model']} version {registered['version']}"
    if registered["champion"]:
        return f"{name}, now the champion" if registered["new"] else f"{name} stays the champion"
    return f"{name}, a candidate: tune promote {registered['model']}"


def _table(result: Result) -> Table:
    columns, rows = table(result)
    percentile = result.goal.percentile
    lines = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    lines.add_column("")
    lines.add_column("candidate", overflow="fold")
    for figure in columns:
        lines.add_column(figure.heading(percentile), justify="right")
    for role, finding in rows:
        lines.add_row(role, finding.label, *(figure.text(finding.measurement, percentile) for figure in columns))
    return lines
