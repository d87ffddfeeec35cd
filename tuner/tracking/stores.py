"""MLflow's stores: how they are used, where they are, and why one cannot be used."""

import contextlib
import logging
import os
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from tuner.errors import RequestError
from tuner.system import database
from tuner.system.said import first_line
from tuner.system.secret import masked

# what the environment has of its own stands
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a request that fails is told by us, once; at once, where nothing listens
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a study tells nobody else
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
for _name in ("mlflow", "alembic", "urllib3"):
    logging.getLogger(_name).setLevel(logging.ERROR)
_USER, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"  # MLflow reads them


def reachable(uri: str) -> None:
    """Raises RequestError where no server answers at an address, or not to this user. A database gets its tables; a
    file store is made when it is opened."""
    if uri.startswith("sqlite"):
        return
    alone = database.alone(uri, "tracking.uri") if uri.startswith("postgresql") else contextlib.nullcontext()
    with alone:
        try:
            MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError) as error:
            raise unusable(uri, error) from error


def sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def unusable(uri: str, error: Exception) -> RequestError:
    text = first_line(error)
    mend = "start that server, or choose another store with tracking.uri="
    if isinstance(error, MlflowException) and error.get_http_status_code() in (401, 403):
        text, mend = "it does not know this user", f"set {_USER} and {_PASSWORD}"
    elif "Max retries exceeded" in text:
        text = "no server answers there"
    return RequestError(f"tracking.uri={masked(uri)}: the MLflow store cannot be used: {text}; {mend}")
