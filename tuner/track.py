"""Where MLflow is: a run per sweep, under it one per study, under that one per trial; the champion's artifact."""

import logging
import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from tuner.candidate import Candidate
from tuner.constraints import Measurement
from tuner.errors import RequestError
from tuner.evaluate import Outcome
from tuner.plugin import encode

# a request that fails is told by us, once; and at once, where nothing listens
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "1")
for _name in ("mlflow", "alembic", "urllib3"):
    logging.getLogger(_name).setLevel(logging.ERROR)

# in the environment of a sweep's members: the run that their studies belong under, and which member each is
SWEEP_RUN, SWEEP_MEMBER = "TUNER_SWEEP_RUN", "TUNER_SWEEP_MEMBER"
_FINISHED = {"complete": "FINISHED", "stopped_early": "KILLED", "failed": "FAILED"}


class Tracker:
    """The record of one study, or of one sweep (`kind`). Opening it proves that the store can be written.

    Children's metrics have units in their names; the parent's begin with `champion_`, so that it does not sort among
    its trials.
    """

    def __init__(self, uri: str, experiment: str, name: str, kind: Literal["study", "sweep"] = "study") -> None:
        self._uri = uri
        try:
            if file := _sqlite_file(uri):
                file.parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(tracking_uri=uri)
            self._experiment = self._experiment_id(experiment)
            self.run_id = self._run(kind, name)
        except (MlflowException, OSError, sqlite3.Error, SQLAlchemyError) as error:
            raise _unusable(uri, error) from error

    def describe(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """The study's own parameters (its limits and settings) and tags."""
        self._log(self.run_id, params=params, tags=tags)

    def recorded(self) -> set[str]:
        """The keys of the candidates that have a finished run."""
        found = self._client.search_runs(
            [self._experiment], f"tags.`mlflow.parentRunId` = '{self.run_id}'", max_results=50_000
        )
        return {str(r.data.tags["candidate"]) for r in found if r.info.status != "RUNNING"}

    def study_of(self, member: str) -> str | None:
        """The name of the study that a member of this sweep recorded, the latest if it did so again."""
        under = f"tags.`mlflow.parentRunId` = '{self.run_id}' and tags.sweep_member = '{member}'"
        found = self._client.search_runs([self._experiment], under, max_results=1)
        return str(found[0].data.tags["study"]) if found else None

    def trial(self, number: str, title: str, outcome: Outcome, violations: Mapping[str, float], log: Path) -> None:
        """One trial as a child run, called `title` and the candidate's label."""
        candidate, measured = outcome.candidate, outcome.measurement
        name = f"{title} {candidate.label}"
        tags = {
            "mlflow.parentRunId": self.run_id,
            "trial": number,
            "state": outcome.state,
            "candidate": candidate.key,
        }
        if outcome.failure is not None:
            tags |= {"failure": outcome.failure.kind, "failure_sentence": outcome.failure.sentence}
        if outcome.stopped_by is not None:
            tags["stopped_by"] = outcome.stopped_by
        run = self._client.create_run(self._experiment, tags=tags, run_name=name)
        metrics = measurement_metrics(measured)
        metrics |= {f"excess_{name}": value for name, value in violations.items()}
        metrics |= {f"seconds_{stage}": value for stage, value in outcome.seconds.items()}
        self._log(run.info.run_id, params=candidate_params(candidate), metrics=metrics)
        if outcome.state == "failed" and log.exists():
            self._client.log_artifact(run.info.run_id, str(log))
        self._client.set_terminated(run.info.run_id, _FINISHED[outcome.state])

    def verdict(
        self, result: Path, champion: Path | None, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> None:
        """The study's result and the champion's artifact, on the parent run."""
        self._log(self.run_id, metrics={k: float(v) for k, v in metrics.items()}, tags=tags)
        self._client.log_artifact(self.run_id, str(result))
        if champion is not None:
            self._client.log_artifacts(self.run_id, str(champion), "champion")

    def close(self, status: str) -> None:
        """Ends the parent run as FINISHED, KILLED (interrupted) or FAILED."""
        self._client.set_terminated(self.run_id, status)

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # the artifacts of a file store lie beside it; MLflow's own default is the folder one happens to stand in
        file = _sqlite_file(self._uri)
        location = None if file is None else (file.parent / "mlartifacts").as_uri()
        return str(self._client.create_experiment(name, artifact_location=location))

    def _run(self, kind: str, name: str) -> str:
        tags = {kind: name}
        if kind == "study" and (parent := os.environ.get(SWEEP_RUN)):
            tags |= {"mlflow.parentRunId": parent, "sweep_member": os.environ[SWEEP_MEMBER]}
        found = self._client.search_runs([self._experiment], f"tags.{kind} = '{name}'", max_results=1)
        if not found:
            return str(self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id)
        run_id = str(found[0].info.run_id)
        self._client.update_run(run_id, status="RUNNING")
        self._log(run_id, tags=tags)
        return run_id

    def _log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in (metrics or {}).items()],
            params=[Param(name, str(value)) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )


def reachable(uri: str) -> None:
    """Raises RequestError where no MLflow server answers at an address. A file store is made when it is opened."""
    if uri.startswith("http"):
        try:
            MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
        except MlflowException as error:
            raise _unusable(uri, error) from error


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def _unusable(uri: str, error: Exception) -> RequestError:
    text = str(error).strip().splitlines()[0]
    reason = "no server answers there" if "Max retries exceeded" in text else text[:200]
    return RequestError(
        f"tracking.uri={uri}: the MLflow store cannot be used: {reason}; start that server, or choose another store "
        "with tracking.uri="
    )


def candidate_params(candidate: Candidate) -> dict[str, Any]:
    """Flat parameters that mean the same in every trial, then those of each plugin by its class."""
    flat: dict[str, Any] = {
        "backend": candidate.backend.label,
        "transforms": " + ".join(t.label for t in candidate.transforms) or "none",
        "batch_size": candidate.batch_size,
    }
    for plugin in (*candidate.transforms, candidate.backend):
        flat |= {f"{type(plugin).__name__}.{k}": v for k, v in encode(plugin).items() if k != "_target_"}
    return flat


def measurement_metrics(measured: Measurement, prefix: str = "") -> dict[str, float]:
    """Metrics with units in their names; what was not measured is absent."""
    latency = measured.latency_ms
    found: dict[str, float | None] = {
        "throughput_per_s": measured.throughput,
        "throughput_normalised_per_s": measured.throughput_normalised,
        "latency_vs_reference": measured.latency_vs_reference,
        "cpu_ms": measured.cpu_ms,
        "accuracy": measured.accuracy,
        "accuracy_drop": measured.accuracy_drop,
        "size_mb": measured.size_mb,
        "memory_mb": measured.memory_mb,
    }
    if latency is not None:
        found |= {f"latency_p{q}_ms": latency.percentile(q) for q in (50, 90, 95, 99)}
    return {prefix + name: value for name, value in found.items() if value is not None}


def default_uri(out_dir: Path) -> str:
    """MLflow's SQLite store under the output folder, absolute: its own default depends on the folder one stands in."""
    return f"sqlite:///{(out_dir / 'mlflow.db').absolute()}"
