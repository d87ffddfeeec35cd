"""Where studies are recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import RequestError

_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")


@dataclass(frozen=True)
class Tracking:
    """Where studies are recorded: MLflow's runs at `uri`, in an `experiment`; Optuna's studies in the PostgreSQL
    database `storage`, or in a file under `out_dir`."""

    uri: str
    storage: str | None
    experiment: str


def default_uri(out_dir: Path) -> str:
    """MLflow's SQLite store under the output folder, absolute: its own default depends on the folder one stands in."""
    return f"sqlite:///{(out_dir / 'mlflow.db').absolute()}"


def tracking(node: Mapping[str, Any], out_dir: Path) -> Tracking:
    """From the configuration's node. Raises RequestError for an address of a kind that cannot be used."""
    uri, storage = node["uri"], node["storage"]
    if uri is not None and uri.partition(":")[0] not in _SCHEMES:
        raise RequestError(f"tracking.uri={uri}: must begin with one of {', '.join(_SCHEMES)}")
    if storage is not None and not storage.startswith("postgresql"):
        raise RequestError(
            f"tracking.storage={storage}: must begin with postgresql://, or be null for a file in out_dir"
        )
    return Tracking(uri or default_uri(out_dir), storage, node["experiment"])
