"""The table that a sweep ends with."""

from typing import Any

from tuner.figures import printed

_FIGURES = {  # heading, name in `summary.json`, how it is printed
    "samples/s": ("throughput", ",.0f"),
    "latency ms": ("latency_ms", ".3f"),
    "drop": ("accuracy_drop", "+.4f"),
    "× eager": ("vs_eager", ".1f"),
    "× untuned": ("vs_best_untuned", ".1f"),
}


def show(summary: dict[str, Any]) -> None:
    """Prints what `summary.json` says as a table."""
    from tuner.report.terminal import Terminal

    headings = ("member", "verdict", "champion", *_FIGURES, "study")
    Terminal().table(headings, map(_row, summary["members"]), numbers=_FIGURES, title=summary["sweep"])


def _row(member: dict[str, Any]) -> list[str | None]:
    verdict = member["verdict"] or "not run"
    if verdict == "failed":
        verdict += f" ({member['exit_code']})"
    figures = [printed(member[name], form) for name, form in _FIGURES.values()]
    return [
        member["chosen"] or member["member"], verdict, member["champion"], *figures,
        member["study"],
    ]  # fmt: skip
