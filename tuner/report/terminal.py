"""Lines and tables for commands, on standard output."""

import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tuner.figures import NOTHING

_FILE_COLUMNS = 200  # where the output is no terminal


class Terminal:
    """Standard output, as wide as it is."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _FILE_COLUMNS)

    def line(self, text: str, *, bad: bool = False) -> None:
        """One line, however long; in red where it is `bad` news."""
        self._console.print(text, soft_wrap=True, style="red" if bad else None)

    def table(
        self,
        headings: Sequence[str],
        rows: Iterable[Sequence[str | None]],
        *,
        numbers: Collection[str] = (),
        title: str = "",
    ) -> None:
        """Columns headed so; those of `numbers` are flush right. None is nothing to say."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title or None, title_justify="left")
        for heading in headings:
            table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*(NOTHING if cell is None else cell for cell in row))
        self._console.print(table)

    def busy(self, text: str) -> AbstractContextManager[Any]:
        """While something takes its time."""
        return self._console.status(text)
