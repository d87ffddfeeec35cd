"""The table that a sweep ends with."""

import sys
from typing import Any

from tuner.figures import NOTHING, printed


def show(summary: dict[str, Any]) -> None:
    """Prints what `summary.json` says as a table."""
    import rich.console
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=summary["sweep"], title_justify="left")
    for heading in ("member", "verdict", "champion"):
        table.add_column(heading, overflow="fold")
    for heading in ("samples/s", "latency ms", "drop", "× eager", "× untuned"):
        table.add_column(heading, justify="right")
    table.add_column("study", overflow="fold")
    for member in summary["members"]:
        verdict = member["verdict"] or "not run"
        if verdict == "failed":
            verdict += f" ({member['exit_code']})"
        figures = [("throughput", ",.0f"), ("latency_ms", ".3f"), ("accuracy_drop", "+.4f"), ("vs_eager", ".1f"),
                   ("vs_best_untuned", ".1f")]  # fmt: skip
        cells = [printed(member[name], form) for name, form in figures]
        table.add_row(
            member["chosen"] or member["member"],
            verdict,
            member["champion"] or NOTHING,
            *cells,
            member["study"] or NOTHING,
        )
    rich.console.Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)
