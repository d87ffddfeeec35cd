"""Where the model registry is: the versions of `<model>-<target>`, which of them is the champion, and how that came.

MLflow holds all of it. The alias `champion` says who serves, wherever it was moved; each move that went through
`tune` is a tag of the registered model, and together they are the table in its description.
"""

import contextlib
import datetime
import errno
import getpass
import json
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import mlflow.artifacts
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS
from sqlalchemy.exc import SQLAlchemyError

from tuner.errors import RequestError
from tuner.system.said import first_line
from tuner.tracking.stores import unusable

CANDIDATE, CHAMPION = "candidate", "champion"
_MOVE = "move "  # the tags of moves begin with it, and end with the time
_OURS = ("registered_by", "inference-tuner")
_TABLE = "### Champions\n\n"  # what stands above it in the description is somebody else's
_LISTED = 20
_LONGEST_NAME = 200  # MLflow's column has 256


class FilesGone(RequestError):
    """The files of a registered version are not there any more."""


@dataclass(frozen=True)
class Move:
    """The alias `champion` came to `version`. `by hand` was found done, by someone in MLflow's UI or API."""

    when: str
    what: Literal["promote", "rollback", "by hand"]
    version: str
    who: str
    why: str


def _is_absence(error: Exception) -> bool:
    """Whether that says that files are not there, and not that nobody could look."""
    if isinstance(error, MlflowException):
        return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
    return isinstance(error, OSError) and error.errno in (None, errno.ENOENT, errno.ENOTDIR)  # MLflow's has no number


def registered_name(model: str, target: str) -> str:
    """The registered model of a model and a target; what MLflow takes neither in a name nor in a filter becomes '_'."""
    return re.sub(r"[^\w .()\[\],+@=\-]", "_", f"{model}-{target}")[:_LONGEST_NAME]


class Registry:
    """The registered models of one MLflow store. Raises RequestError where the store cannot be used."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with self._reached():
            self._client = MlflowClient(tracking_uri=uri)

    def register(
        self,
        name: str,
        run_id: str,
        save: Callable[[Model, Path], None],
        beside: Path,
        tags: Mapping[str, str],
        description: str,
    ) -> str:
        """Logs what `save` writes as the run's model and registers it; the new version has the alias `candidate`.

        `save` is called once, with what MLflow is to know of the model and a folder that is not there yet; it lies in
        the folder `beside` meanwhile. Returns the version.
        """
        with self._reached(), tempfile.TemporaryDirectory(dir=beside, prefix=".model-") as scratch:
            experiment = self._client.get_run(run_id).info.experiment_id
            logged = self._client.create_logged_model(experiment, CHAMPION, source_run_id=run_id)
            folder = Path(scratch) / CHAMPION
            save(Model(run_id=run_id, model_id=logged.model_id), folder)
            self._client.log_model_artifacts(logged.model_id, str(folder))
            self._client.finalize_logged_model(logged.model_id, "READY")
            self._client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
            if self.aliases(name) is None:
                self._client.create_registered_model(name, tags=dict([_OURS]))
            made = self._client.create_model_version(
                name, logged.artifact_location, run_id, dict(tags), description=description, model_id=logged.model_id
            )
            version = str(made.version)
            # by this tag the UI leads from the run's model to its versions
            links = json.dumps([{"name": name, "version": version}])
            self._client.set_logged_model_tags(logged.model_id, {MLFLOW_MODEL_VERSIONS: links})
            self._client.set_registered_model_alias(name, CANDIDATE, version)
            return version

    def names(self) -> list[str]:
        """The models that studies have registered."""
        with self._reached():
            models = self._client.search_registered_models(f"tags.{_OURS[0]} = '{_OURS[1]}'", max_results=1000)
            return sorted(model.name for model in models)

    def versions(self, name: str) -> list[str]:
        """Those that are there, oldest first."""
        with self._reached():
            versions = self._client.search_model_versions(f"name = '{name}'", max_results=10_000)
            return sorted((str(version.version) for version in versions), key=int)

    def aliases(self, name: str) -> dict[str, str] | None:
        """The version by alias; None where no such model is registered."""
        with self._reached():
            try:
                aliases = self._client.get_registered_model(name).aliases
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
            return {alias: str(version) for alias, version in aliases.items()}

    def study(self, name: str, version: str) -> str | None:
        """The study that registered the version."""
        with self._reached():
            tags: dict[str, str] = self._client.get_model_version(name, version).tags
            return tags.get("study")

    def champion(self, name: str) -> str | None:
        """The version that has the alias `champion`."""
        return (self.aliases(name) or {}).get(CHAMPION)

    def fetch(self, name: str, version: str, to: Path, part: str = "") -> Path:
        """Downloads what was registered: a folder with `champion/` and `record.json`, or that `part` of it.

        Raises FilesGone where they are not there, and RequestError where they cannot be had now.
        """
        try:
            source = self._client.get_model_version_download_uri(name, version)
            wanted = f"{source.rstrip('/')}/artifacts/{part}" if part else source
            path = Path(mlflow.artifacts.download_artifacts(wanted, dst_path=str(to), tracking_uri=self._uri))
        except (MlflowException, OSError) as error:
            kind = FilesGone if _is_absence(error) else RequestError
            raise kind(f"{name} version {version}: its files cannot be had: {first_line(error)}") from error
        return path if part else path / "artifacts"

    def promote(self, name: str, version: str, who: str, why: str) -> None:
        """Makes a version the champion."""
        self._move(name, "promote", version, who, why)

    def promote_after(self, before: str | None, name: str, version: str, who: str, why: str) -> bool:
        """The same where that version (None: none) still is the champion; whether it is."""
        if self.champion(name) != before:
            return False
        self.promote(name, version, who, why)
        return True

    def rollback(self, name: str, who: str, why: str) -> tuple[str, str]:
        """Makes the champion before this one champion again; returns the version that was it, and the one that is.

        Raises RequestError where there was none before.
        """
        current, earlier = self.champion(name), self._earlier(name)
        if not earlier:
            raise RequestError(
                f"{name}: no champion before version {current} is left; tune promote {name} version=N takes another, "
                f"there are versions {', '.join(self.versions(name))}"
            )
        self._move(name, "rollback", earlier[-1], who, why)
        return str(current), earlier[-1]

    def history(self, name: str) -> list[Move]:
        """The champions, oldest first."""
        with self._reached():
            tags = self._client.get_registered_model(name).tags
        return [Move(**json.loads(value)) for key, value in sorted(tags.items()) if key.startswith(_MOVE)]

    def _earlier(self, name: str) -> list[str]:
        """The champions before the present one that are still there, the last one last; rollbacks undo promotions."""
        stack: list[str] = []
        for move in self.history(name):
            if move.what == "rollback":
                while stack and stack[-1] != move.version:
                    stack.pop()
            if stack[-1:] != [move.version]:
                stack.append(move.version)
        current, versions = self.champion(name), self.versions(name)
        if current is not None and stack[-1:] == [current]:
            stack.pop()
        return [version for version in stack if version in versions and version != current]

    def _move(self, name: str, what: Literal["promote", "rollback"], version: str, who: str, why: str) -> None:
        moves, current = self.history(name), self.champion(name)
        by_hand = current is not None and (not moves or moves[-1].version != current)
        new = [Move(_now(), "by hand", str(current), "unknown", "found so")] if by_hand else []
        new.append(Move(_now(), what, version, who, why))
        with self._reached():
            self._client.set_registered_model_alias(name, CHAMPION, version)
            for move in new:
                self._client.set_registered_model_tag(name, _MOVE + move.when, json.dumps(asdict(move)))
            before = self._client.get_registered_model(name).description or ""
            text = before.partition(_TABLE)[0] + _TABLE + _table([*moves, *new])
            self._client.update_registered_model(name, text)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, sqlite3.Error, SQLAlchemyError) as error:
            raise unusable(self._uri, error) from error


def user() -> str:
    """Who moves an alias: the user of the MLflow server, or of this machine."""
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")


def _table(moves: list[Move]) -> str:
    """The latest moves first, as Markdown."""

    def cell(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|")[:200]

    rows = [
        f"| {move.version} | {move.what} | {move.when[:16]} UTC | {cell(move.who)} | {cell(move.why)} |"
        for move in moves[: -_LISTED - 1 : -1]
    ]
    return "\n".join(["| version | by | when | who | why |", "|---|---|---|---|---|", *rows])
