"""The Markdown that MLflow shows as the description of a study's run."""

from collections.abc import Sequence

from tuner.figures import Figure
from tuner.measurement import Measurement
from tuner.records import TrialRecord
from tuner.report.rows import table
from tuner.report.words import assurance, counted, sentence, setbacks
from tuner.result import Result


def study_note(result: Result, trials: Sequence[TrialRecord]) -> str:
    """MLflow shows its first lines, and the rest on demand."""
    parts = [
        f"**{_plain(sentence(result))}**",
        f"{counted(result)}. `{result.command}` repeats it. The whole page is `report.html` under Artifacts.",
        _list("How surely", list(assurance(result))),
        _compared(result),
        _list("What to question", result.remarks),
        _setbacks(result, trials),
        _to_reproduce(result),
    ]
    return "\n\n".join(part for part in parts if part)


def _list(title: str, lines: Sequence[str]) -> str:
    return f"### {title}\n" + "\n".join(f"- {_plain(line)}" for line in lines) if lines else ""


def _compared(result: Result) -> str:
    percentile = result.goal.percentile
    columns, rows = table(result)
    heads = [f"{figure.heading(percentile)}{' (95 %)' * (figure.ends is not None)}" for figure in columns]
    lines = [["", "candidate", *heads], ["---", "---", *["---:"] * len(columns)]]
    for role, finding in rows:
        cells = [_with_interval(figure, finding.measurement, percentile) for figure in columns]
        lines.append([role, finding.label, *cells])
    return "\n".join("| " + " | ".join(map(_plain, cells)) + " |" for cells in lines)


def _setbacks(result: Result, trials: Sequence[TrialRecord]) -> str:
    if not (lost := setbacks(result, trials)):
        return ""
    lines = ["### What did not work", "| what | candidates | why | such as |", "|---|---:|---|---|"]
    lines += [f"| {s.what} | {len(s.labels)} | {_plain(s.why)} | {_plain(s.labels[0])} |" for s in lost]
    return "\n".join(lines)


def _to_reproduce(result: Result) -> str:
    environment = result.environment
    versions = {"Python": environment["python"], **environment["versions"]}
    threads = "" if environment["threads"] is None else f", {environment['threads']} threads"
    content = " and the ".join(f"{what} is {digest}" for what, digest in result.content.items())
    return (
        f"### To reproduce\n```\n{result.command}\n```\n"
        f"{environment['cpu']}{threads}; {environment['system']}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}."
        + (f" By content, the {content}." if content else "")
    )


def _with_interval(figure: Figure, measured: Measurement, percentile: int) -> str:
    ends, text = figure.interval(measured), figure.text(measured, percentile)
    return text if ends is None else f"{text} ({ends[0]:{figure.form}} to {ends[1]:{figure.form}})"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, in a table's cell too."""
    for sign in "\\`*_<|":
        text = text.replace(sign, "\\" + sign)
    return text.replace("\n", " ")
