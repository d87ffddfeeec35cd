"""Samples in the rows of a table: CSV, Parquet, JSON Lines, or a folder of a Hugging Face dataset."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import LABEL, ArraySamples, Dataset, Role, Samples, unlabelled
from tuner.errors import RequestError
from tuner.roles import Split
from tuner.system.said import first_line
from tuner.system.spelling import nearest
from tuner.tensors import Arrays, FreeSpec

_SETS = {"evaluation": ("test", "validation", "train"), "calibration": ("train",), "training": ("train",)}


@dataclass(frozen=True)
class Table(Split):
    """Rows are samples. `label` names the column of labels; `classes` are its values in the model's numbering, where
    they are not numbers and the model does not say it.

    `inputs` says which columns an input is made of; without it, columns that are called as the model's inputs are
    those, and a model of one input takes all `columns` in their order: without them those that the model itself names,
    else every one but the label.
    With a `preprocess` function a row is given to it as it is, texts and bytes too.
    """

    format: Literal["csv", "parquet", "jsonl", "huggingface"] = "csv"
    label: str = LABEL
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    inputs: dict[str, list[str]] = field(default_factory=dict)
    declared: tuple[Any, ...] = ()  # the model's inputs, where it says so
    missing: tuple[str, ...] = ()  # those that may lack a number

    folders: ClassVar[bool] = True

    def fitting(self, inputs: tuple[FreeSpec, ...]) -> Dataset:
        named = () if self.inputs else tuple(itertools.chain.from_iterable(spec.columns for spec in inputs))
        declared = tuple((spec.name, list(spec.axes), spec.dtype) for spec in inputs)
        return replace(
            self,
            declared=declared,
            columns=self.columns or named,
            missing=tuple(spec.name for spec in inputs if spec.missing),
            classes=self.classes or next((spec.classes for spec in inputs), ()),
        )

    def read(self, path: Path, field: str, role: Role) -> Samples:
        where = f"{field}={path}"
        frame = self.frame(path, role, where)
        names, labels = list(frame.columns), self.known(frame, role, where)
        if self.preprocess is not None:
            return Rows(frame.drop(columns=self.label, errors="ignore").to_dict("records"), labels)
        arrays = {name: self._input(frame, name, columns, where) for name, columns in self._made_of(names, where)}
        return ArraySamples(arrays, labels)

    def frame(self, path: Path, role: Role, where: str) -> Any:
        """The table in a file, its columns named. Raises RequestError."""
        try:
            frame = self._frame(path, role)
        except Exception as error:  # each format's reader has its own
            raise RequestError(f"{where} is no {self.format} that can be read ({first_line(error)})") from error
        frame.columns = [str(name) for name in frame.columns]
        return frame

    def _frame(self, path: Path, role: Role) -> Any:
        import pandas

        if self.format == "huggingface":
            return _huggingface(path, role)
        if self.format == "csv":
            return _without_index(_csv(path, self.words))
        if self.format == "jsonl":
            return pandas.read_json(path, lines=True, dtype=dict.fromkeys(self.words, object))
        return pandas.read_parquet(path)

    @property
    def words(self) -> tuple[str, ...]:
        """The columns that are texts even where numbers stand in them."""
        return ()

    def known(self, frame: Any, role: Role, where: str) -> NDArray[Any]:
        """The labels of a table's rows, as far as they are needed: those that judge, where the configuration names
        their column, and those that train, where the table has any. Raises RequestError."""
        names = list(frame.columns)
        if self.label not in names:
            if role == "evaluation" and self.label != LABEL:
                raise RequestError(
                    f"dataset.label={self.label}: {where} has no such column; it has {', '.join(names)}"
                    + nearest(self.label, names)
                )
            return unlabelled(len(frame))
        missing = frame[self.label].isna()
        if (role == "calibration" and missing.any()) or (role == "training" and missing.all()):
            return unlabelled(len(frame))
        return self.labels(frame[self.label], where)

    def labels(self, column: Any, where: str) -> NDArray[Any]:
        """A column as the model numbers it. Raises RequestError."""
        require_values(column, where)
        values: NDArray[Any] = column.to_numpy()
        if self.classes:
            known = {name: n for n, name in enumerate(self.classes)}
            if unknown := sorted({str(value) for value in values} - known.keys()):
                raise RequestError(
                    f"dataset.classes: {where} has the label {unknown[0]!r}, which is none of them "
                    f"({', '.join(self.classes)})"
                )
            return np.array([known[str(value)] for value in values])
        if values.dtype.kind == "b":
            return values.astype(np.int64)
        if values.dtype.kind not in "iuf":
            return _stacked(
                values, self.label, where, f"number them as the model does: dataset.classes={_some(values)}"
            )
        return values if values.dtype.kind in "iu" or (values != values.round()).any() else values.astype(np.int64)

    def _made_of(self, names: Sequence[str], where: str) -> list[tuple[str, list[str]]]:
        """Each input with the columns that it is made of. Raises RequestError."""
        wanted = list(self.columns) or [name for name in names if name != self.label]
        if lacking := [name for name in (*wanted, *itertools.chain(*self.inputs.values())) if name not in names]:
            raise RequestError(
                f"{where} has no column {lacking[0]!r}; it has {', '.join(names)}; those that the model takes, in its "
                "order, are named with dataset.columns=[…]"
            )
        if self.inputs:
            return list(self.inputs.items())
        takes = [name for name, _, _ in self.declared]
        if takes and set(takes) <= set(wanted):
            return [(name, [name]) for name in takes]
        if len(takes) > 1:
            raise RequestError(
                f"{where} has no columns called {', '.join(takes)}, as the model's inputs; say which make each: "
                f"'dataset.inputs={{{takes[0]}:[{wanted[0]}],…}}'"
            )
        name, axes, _ = self.declared[0] if self.declared else ("x", ["features"], "float32")
        if len(axes) == 1 and isinstance(axes[0], int) and axes[0] != len(wanted):
            raise RequestError(
                f"the model's input {name!r} takes {axes[0]} numbers a sample, and {where} has {len(wanted)} columns "
                f"besides {self.label!r} ({', '.join(wanted)}); name those that it takes, in its order: "
                "dataset.columns=[…], and the one that says what is right: dataset.label=…"
            )
        return [(name, wanted)]

    def _input(self, frame: Any, name: str, columns: Sequence[str], where: str) -> NDArray[Any]:
        """An input's array: a column by itself, or several side by side, in the model's dtype."""
        axes, dtype = next(((axes, dtype) for known, axes, dtype in self.declared if known == name), (None, None))
        parts = []
        for column in columns:
            values = frame[column].to_numpy()
            if values.dtype.kind not in "biuf":
                mend = "make it numbers, leave it out with dataset.columns=[…], or use dataset.preprocess"
                values = _stacked(values, column, where, mend)
            if name not in self.missing and values.dtype.kind == "f" and np.isnan(values).any():
                row = int(np.argwhere(np.isnan(values))[0][0])
                raise RequestError(
                    f"{where}: column {column!r} has no value in row {row + 1} of the data; fill it, or drop the row"
                )
            parts.append(values)
        array = parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)
        if array.ndim == 1 and (axes is None or len(axes) == 1):
            array = array[:, None]
        wanted = np.dtype(dtype or ("float32" if array.dtype.kind == "f" or len(parts) > 1 else array.dtype.name))
        made = array.astype(wanted)
        if wanted.kind in "iub" and (made != array).any():
            raise RequestError(
                f"{where}: {name!r} is {wanted} in the model, and column {columns[0]!r} has other numbers"
            )
        return made


@dataclass(frozen=True)
class Rows:
    """Rows as they are, for a function that makes inputs of them."""

    rows: list[dict[str, Any]]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Arrays, Any]:
        return self.rows[index], self.labels[index]


def require_values(column: Any, where: str) -> None:
    """Raises RequestError where a row has none in this column of a frame."""
    missing = column.isna().to_numpy()
    if missing.any():
        raise RequestError(
            f"{where}: column {column.name!r} has no value in row {int(missing.argmax()) + 1} of the data; fill it, or "
            "drop the row"
        )


def _csv(path: Path, words: Sequence[str]) -> Any:
    """In a column of texts only what is empty is missing: None, NA and null are texts too."""
    import pandas
    from pandas.api.types import infer_dtype

    frame = pandas.read_csv(path)
    texts = [
        name
        for name, column in frame.items()
        if name in words or column.isna().all() or infer_dtype(column, skipna=True) == "string"
    ]
    if not texts:
        return frame
    exact = pandas.read_csv(path, usecols=lambda name: name in texts, dtype=str, keep_default_na=False, na_values=[""])
    exact = exact.dropna(axis="columns", how="all")
    frame[exact.columns] = exact
    return frame


def _without_index(frame: Any) -> Any:
    """Without the nameless first column of row numbers that pandas' `to_csv` writes unless it is told not to."""
    first = str(frame.columns[0]) if len(frame.columns) else ""
    numbers = first.startswith("Unnamed: ") and np.array_equal(frame[first], np.arange(len(frame)))
    return frame.drop(columns=first) if numbers else frame


def _stacked(values: Any, column: str, where: str, mend: str) -> NDArray[Any]:
    """A column of lists of numbers as one array. Raises RequestError for what is text, or of several lengths."""
    if len(values) and isinstance(values[0], str):
        raise RequestError(f"{where}: column {column!r} is text ({_some(values)}); {mend}")
    try:
        array = np.array([np.asarray(value) for value in values])
    except ValueError as error:
        raise RequestError(f"{where}: the lists in column {column!r} are not of one length; pad them") from error
    if array.dtype.kind not in "biuf":
        raise RequestError(f"{where}: column {column!r} holds {type(values[0]).__name__}, not numbers; {mend}")
    return array


def _some(values: Any) -> str:
    return f"[{','.join(sorted({str(value)[:20] for value in values})[:4])}]"


def _huggingface(path: Path, role: Role) -> Any:
    """A folder as `Dataset.save_to_disk` writes it, one of several such sets, or of parquet files of them."""
    import pandas
    import pyarrow

    names = _SETS[role]
    files = sorted(file for kind in ("*.arrow", "*.parquet") for file in path.rglob(kind) if _is_data(file))
    parts = {name: [f for f in files if f.parent.name == name or f.name.startswith(f"{name}-")] for name in names}
    chosen = next((parts[name] for name in names if parts[name]), files)
    if not chosen:
        raise FileNotFoundError("it has no .arrow and no .parquet file")
    if chosen[0].suffix == ".parquet":
        return pandas.concat([pandas.read_parquet(file) for file in chosen], ignore_index=True)
    tables = [pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all() for file in chosen]
    return pyarrow.concat_tables(tables).to_pandas()


def _is_data(file: Path) -> bool:
    """Whether it is of the set itself, and no result of `map` or `filter` that the library keeps beside it."""
    state = file.parent / "state.json"
    if not state.is_file():
        return not file.name.startswith("cache-")
    return file.name in {listed["filename"] for listed in json.loads(state.read_text())["_data_files"]}
