"""MLflow's stores: how they are used, where they are, and why one cannot be used."""

import contextlib
import logging
import os
import re
import sqlite3
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from tuner.errors import RequestError
from tuner.system import database
from tuner.system.environment import changed
from tuner.system.said import first_line
from tuner.system.secret import masked

# what the environment has of its own stands
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a request that fails is told by us, once; at once, where nothing listens
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds, instead of 120, of a server that dies under a study
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a study tells nobody else
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
for _name in ("mlflow", "alembic", "urllib3"):
    logging.getLogger(_name).setLevel(logging.ERROR)
FAILURES = (MlflowException, sqlite3.Error, SQLAlchemyError)
"""What a store raises that does not do what it is asked."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}  # its first answer is slow
_REGISTRY = "MLFLOW_REGISTRY_URI"
_MAGIC = b"SQLite format 3\0"
_USER, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"  # MLflow reads them


def reachable(uri: str) -> None:
    """Raises RequestError where a store, or the registry that $MLFLOW_REGISTRY_URI names, cannot be used: no server
    answers there, or not to this user, or it is none of MLflow's. A database gets its tables; a file that is not there
    is made when it is opened."""
    registry = os.environ.get(_REGISTRY, "")
    if registry and not registry.startswith("databricks"):
        try:
            _asked(registry)
        except RequestError as error:
            why = str(error).replace("tracking.uri=", f"${_REGISTRY}=", 1).partition(";")[0]
            raise RequestError(f"{why}; start it, or unset {_REGISTRY}") from error
    _asked(uri)


def _asked(uri: str) -> None:
    file = sqlite_file(uri)
    if file is not None and (fault := _fault(file)):
        raise RequestError(f"tracking.uri={uri}: {file} {fault}; choose another with tracking.uri= or out_dir=")
    if file is not None and not file.exists():
        return
    alone = database.alone(uri, "tracking.uri") if uri.startswith("postgresql") else contextlib.nullcontext()
    with alone, impatient():
        try:
            client = MlflowClient(tracking_uri=uri)
            if not client.search_experiments(max_results=1) and uri.startswith("http"):
                with contextlib.suppress(MlflowException):  # not every server has it
                    if client.get_experiment("0").experiment_id != "0":
                        raise unusable(uri, MlflowException("what answers there is no MLflow server"))
        except ModuleNotFoundError as error:
            driver = f"{error.name}, the driver of that database, is not installed"
            raise RequestError(f"tracking.uri={masked(uri)}: {driver}; pip install it") from error
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise unusable(uri, error) from error


def impatient() -> contextlib.AbstractContextManager[None]:
    """While it is only asked whether somebody answers, or told what need not arrive."""
    return changed(PATIENCE)


def _fault(file: Path) -> str | None:
    """Why that can be no SQLite database; None where nothing speaks against it."""
    if file.is_dir():
        return "is a folder"
    if not file.exists():
        above = next(path for path in file.parents if path.exists())
        return None if above.is_dir() and os.access(above, os.W_OK) else "cannot be written"
    if not os.access(file, os.R_OK | os.W_OK):
        return "cannot be written"
    with file.open("rb") as opened:
        start = opened.read(len(_MAGIC))
    return None if start in (b"", _MAGIC) else "is no SQLite database"


def sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def unusable(uri: str, error: Exception) -> RequestError:
    """The complaint about a store that did not do what it was asked."""
    mend = "start that server, or choose another store with tracking.uri="
    if isinstance(error, MlflowException) and error.get_http_status_code() in (401, 403):
        return RequestError(
            f"tracking.uri={masked(uri)}: the MLflow store cannot be used: it does not know this user; set {_USER} and "
            f"{_PASSWORD}"
        )
    if match := re.search(r"out-of-date database schema \(found version (\w+)", str(error)):
        migrations = Path(mlflow.__file__).parent / "store/db_migrations/versions"
        if any(migrations.glob(f"{match.group(1)}_*.py")):
            mend = f"back it up, then: mlflow db upgrade {masked(uri)}"
            return RequestError(f"tracking.uri={masked(uri)}: it was made by an older MLflow; {mend}")
        mend = f"this is {mlflow.__version__}: upgrade it, or choose another store with tracking.uri="
        return RequestError(f"tracking.uri={masked(uri)}: it was made by a newer MLflow; {mend}")
    if uri.startswith("sqlite"):
        mend = "move that file away, or choose another store with tracking.uri="
    return RequestError(f"tracking.uri={masked(uri)}: the MLflow store cannot be used: {_reason(error)}; {mend}")


def lost(uri: str, error: Exception, folder: Path) -> RequestError:
    """The complaint about a store that was usable when the work began whose results are in `folder`."""
    return RequestError(f"{unusable(uri, error)}; what is done is kept in {folder}, and the same command goes on")


def _reason(error: Exception) -> str:
    """Why, in a few words."""
    text = str(error)
    if match := re.search(r"too many (\d+) error responses", text):
        return f"it answers with an error ({match.group(1)})"
    if "timed out" in text:
        return f"it does not answer within {os.environ['MLFLOW_HTTP_REQUEST_TIMEOUT']} s"
    if "Failed to resolve" in text or "Name or service not known" in text:
        return "there is no such host"
    if "Max retries exceeded" in text:
        return "no server answers there"
    if "not in a valid JSON format" in text or re.search(r"error code [34]\d\d != 200", text):
        return "what answers there is no MLflow server"
    return first_line(error)
