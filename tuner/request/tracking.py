"""Where studies are recorded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tuner.errors import RequestError
from tuner.system.fields import shown
from tuner.system.loader import fill, mapping

_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")
_LONGEST = 200


@dataclass(frozen=True)
class Tracking:
    """Where studies are recorded: MLflow's runs at `uri`, in an `experiment`; Optuna's studies in the PostgreSQL
    database `storage`, or in a file under `out_dir`."""

    uri: str
    storage: str | None
    experiment: str


@dataclass(frozen=True)
class _Node:
    uri: str | None = None
    storage: str | None = None
    experiment: str = "inference-tuner"


def _sqlite(uri: str) -> str:
    """The address of a file, its path as it is on disk. Raises RequestError where it names none."""
    path = unquote(uri.removeprefix("sqlite:///"))  # SQLAlchemy reads it so, and MLflow the other way
    if not uri.startswith("sqlite:///") or path in ("", ":memory:"):
        raise RequestError(f"tracking.uri={uri}: must read sqlite:///relative/file.db or sqlite:////absolute/file.db")
    return f"sqlite:///{path}"


def default_uri(out_dir: Path) -> str:
    """MLflow's SQLite store under the output folder, absolute: its own default depends on the folder one stands in."""
    return f"sqlite:///{(out_dir / 'mlflow.db').absolute()}"


def tracking(node: Any, out_dir: Path) -> Tracking:
    """From the configuration's node. Raises RequestError for an address of a kind that cannot be used."""
    kept = fill(_Node, mapping(node, "tracking"), "tracking")
    uri, storage = kept.uri, kept.storage
    if not kept.experiment.strip() or not kept.experiment.isprintable() or len(kept.experiment) > _LONGEST:
        raise RequestError(f"tracking.experiment={shown(kept.experiment)} must be a name of 1 to {_LONGEST} characters")
    if uri is not None and uri.partition(":")[0] not in _SCHEMES:
        raise RequestError(f"tracking.uri={uri}: must begin with one of {', '.join(_SCHEMES)}")
    if uri is not None and uri.startswith("sqlite"):
        uri = _sqlite(uri)
    file = (uri or default_uri(out_dir)).removeprefix("sqlite:///")
    if not file.startswith(_SCHEMES) and (strange := {"%", "?"}.intersection(file)):
        key = f"out_dir={out_dir}" if uri is None else f"tracking.uri={uri}"
        raise RequestError(f"{key}: MLflow takes no {min(strange)!r} in the path of a database; choose another")
    if storage is not None and not storage.startswith("postgresql"):
        raise RequestError(
            f"tracking.storage={storage}: must begin with postgresql://, or be null for a file in out_dir"
        )
    return Tracking(uri or default_uri(out_dir), storage, kept.experiment)
