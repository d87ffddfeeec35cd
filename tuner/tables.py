"""Tables for people: what a transform or a backend found out while it worked, beside what it made.

A plugin writes them into its `out`. They go along to all that is made of that, the artifact keeps them in a folder of
their own, and the outcome of its trial carries them to MLflow, `result.json` and the report.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLES = "tables"
"""The folder of an artifact that has them."""
_SUFFIX = ".table.json"

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """What a plugin found out while it worked, for people to read.

    `title` is one short sentence, `columns` are named with their units, and a row has a cell for each: None is not
    known. It is kept with each trial, so it is small: some hundred rows. `name` is what its file is called, once it has
    one. Raises ValueError where a row has another length.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: {len(row)} cells for {len(self.columns)} columns: {row}")

    def write(self, folder: Path, name: str) -> None:
        """As a file in the folder; an earlier one of that name is replaced. Raises ValueError for NaN and infinity,
        TypeError for what is no cell (NumPy's numbers)."""
        text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        (folder / f"{name}{_SUFFIX}").write_text(text + "\n", encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """As MLflow has tables, with a title."""
        return {"title": self.title, "columns": self.columns, "data": self.rows}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], name: str = "") -> "Table":
        return cls(value["title"], tuple(value["columns"]), tuple(map(tuple, value["data"])), name)


def encoded(tables: Iterable[Table]) -> dict[str, Any]:
    """Tables of different names as JSON, by name."""
    return {table.name: table.to_json() for table in tables}


def decoded(value: Mapping[str, Any]) -> tuple[Table, ...]:
    """What `encoded` gave."""
    return tuple(Table.from_json(table, name) for name, table in value.items())


def read_tables(folder: Path) -> list[Table]:
    """Those in the folder, by name; none where there is no such folder."""
    files = sorted(folder.glob(f"*{_SUFFIX}"))
    return [Table.from_json(json.loads(file.read_text("utf-8")), file.name.removesuffix(_SUFFIX)) for file in files]


def carry(source: Path, folder: Path) -> None:
    """Copies the tables of a folder to another, which is made where there are any. One that has the name there already
    is newer, and stays."""
    for file in source.glob(f"*{_SUFFIX}"):
        folder.mkdir(exist_ok=True)
        if not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def gather(source: Path, folder: Path, mark: str = "") -> None:
    """Moves the tables of a folder to another, which is made where there are any; `mark` is added to their names."""
    for file in source.glob(f"*{_SUFFIX}"):
        folder.mkdir(exist_ok=True)
        file.replace(folder / f"{file.name.removesuffix(_SUFFIX)}{mark}{_SUFFIX}")
