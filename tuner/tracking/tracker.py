"""Where MLflow is: a run per sweep, under it one per study, under that one per trial; the champion's artifact."""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from tuner.goal import Goal
from tuner.records import TrialRecord
from tuner.report.note import study_note
from tuner.report.rows import Row, rows
from tuner.report.words import trial_fate
from tuner.result import Result, StudyFolder
from tuner.tracking import order
from tuner.tracking.experiment import NOTE, furnish, open_experiment
from tuner.tracking.metrics import (
    candidate_params,
    excess_metrics,
    measurement_metrics,
    result_metrics,
    result_tags,
)
from tuner.tracking.order import TrialVerdict
from tuner.tracking.stores import FAILURES, impatient, sqlite_file, unusable
from tuner.trial import Outcome

# in the environment of a sweep's members: the run that their studies belong under, and which member each is
SWEEP_RUN, SWEEP_MEMBER = "TUNER_SWEEP_RUN", "TUNER_SWEEP_MEMBER"
_COLOURS = {
    "champion": "#b8860b",
    "feasible": "#1f77b4",
    "infeasible": "#c7c7c7",
    "behind": "#c7c7c7",
    "failed": "#d62728",
}
_LOGGED = "mlflow.loggedArtifacts"  # the UI shows as tables what is listed there
_LOG_BYTES = 200_000  # of a trial's log, its end
_PAGE = 200  # runs at a time


class Tracker:
    """The record of one study, or of one sweep (`kind`). Opening it proves that the store can be written.

    Metrics have units in their names. A study's run has its champion's figures by the names that trials have, for the
    columns of the view, and by names of their own that begin with `champion_`. The view's order is a tag
    (`tuner.tracking.order`).
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        name: str,
        *,
        kind: Literal["study", "sweep"] = "study",
        identity: str | None = None,
        artifacts: Path | None = None,
    ) -> None:
        """`identity` is the name where those of several machines meet; `artifacts` is where a bare database's lie."""
        try:
            if file := sqlite_file(uri):
                file.parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(tracking_uri=uri)
            self._experiment = open_experiment(self._client, uri, experiment, artifacts)
            run = self._run(kind, name, identity or name)
            self.run_id, self._start_ms = str(run.info.run_id), int(run.info.start_time)
            self._log(self.run_id, tags={order.TAG: order.of_study(self._start_ms)})
        except (*FAILURES, OSError) as error:
            raise unusable(uri, error) from error

    def describe(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """The study's own parameters (its limits and settings) and tags."""
        self._log(self.run_id, params=params, tags=tags)

    def recorded(self) -> set[str]:
        """The keys of the candidates that have a finished run. Those that a killed process left half told are
        deleted."""
        whole, half = set(), []
        for run in self._trials():
            if run.info.status == "RUNNING":
                half.append(run.info.run_id)
            else:
                whole.add(str(run.data.tags["candidate"]))
        for run_id in half:
            self._client.delete_run(run_id)
        return whole

    def study_of(self, member: str) -> str | None:
        """The name of the study that a member of this sweep recorded, the latest if it did so again."""
        under = f"tags.`mlflow.parentRunId` = '{self.run_id}' and tags.sweep_member = '{member}'"
        runs = self._client.search_runs([self._experiment], under, max_results=1)
        return str(runs[0].data.tags["study"]) if runs else None

    def trial(self, number: str, title: str, outcome: Outcome, goal: Goal, log: Path) -> None:
        """One trial as a child run, called `title` and the candidate's label, with the log of its worker
        and the tables of its plugins."""
        candidate, measured = outcome.candidate, outcome.measurement
        verdict = _verdict(outcome, goal)
        tags = {
            "mlflow.parentRunId": self.run_id,
            "mlflow.runType": "evaluation",  # the UI shows the studies of such runs expanded
            "trial": number,
            "state": outcome.state,
            "verdict": verdict,
            order.TAG: order.of_trial(self._start_ms, verdict, goal.score(measured)),
            "mlflow.runColor": _COLOURS[verdict],
            "candidate": candidate.key,
            NOTE: trial_fate(TrialRecord.of(outcome), goal),
        }
        if outcome.failure is not None:
            tags |= {"failure": outcome.failure.kind, "failure_sentence": outcome.failure.sentence}
        if outcome.stopped_by is not None:
            tags["stopped_by"] = outcome.stopped_by
        if outcome.node is not None:
            tags["node"] = outcome.node
        files = {f"tables/{table.name}.json": table.to_json() for table in outcome.tables}
        if files:
            tags[_LOGGED] = json.dumps([{"path": path, "type": "table"} for path in files])
        run = self._client.create_run(self._experiment, tags=tags, run_name=f"{title} {candidate.label}")
        metrics = measurement_metrics(measured)
        metrics |= excess_metrics(measured, goal)
        metrics |= {f"seconds_{stage}": value for stage, value in outcome.seconds.items()}
        self._log(run.info.run_id, params=candidate_params(candidate), metrics=metrics)
        if text := _end(log):
            self._client.log_text(run.info.run_id, text, "trial.log")
        for path, content in files.items():
            self._client.log_dict(run.info.run_id, content, path)
        # what was stopped early ended well: MLflow's UI shows a killed run as one that went wrong
        self._client.set_terminated(run.info.run_id, "FAILED" if outcome.state == "failed" else "FINISHED")

    def summary(self, file: Path, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """What this run came to: its figures, and the file that tells all of it."""
        self._log(self.run_id, metrics={name: float(value) for name, value in metrics.items()}, tags=tags)
        self._client.log_artifact(self.run_id, str(file))

    def verdict(self, study: StudyFolder, result: Result, trials: Sequence[TrialRecord]) -> None:
        """What a study found, its result and report lying in its folder: for a reviewer the note first, and the role of
        each trial. The champion's files come along unless they are registered."""
        note = {"role": "study", NOTE: study_note(result, trials)}
        colour = {} if result.champion is None else {"mlflow.runColor": _COLOURS["champion"]}
        self.summary(study.result, result_metrics(result), result_tags(result) | note | colour)
        self._client.log_artifact(self.run_id, str(study.report))
        if result.champion is not None and not result.registered:
            self._client.log_artifacts(self.run_id, str(study.champion), study.champion.name)
        self._tell_roles(rows(result))
        furnish(self._client, self._experiment, result.goal)

    def _tell_roles(self, compared: Sequence[Row]) -> None:
        """Tags each trial that the verdict speaks of with its role, and takes it from one that had it before."""
        roles: dict[str, tuple[int, str]] = {}
        for place, (role, finding) in enumerate(compared):  # a baseline may be the champion: the first word counts
            roles.setdefault(finding.key, (place, role))
        for run in self._trials():  # a registered champion that stays may be no trial of this study
            verdict: TrialVerdict = run.data.tags["verdict"]
            if (part := roles.get(run.data.tags["candidate"])) is not None:
                place, role = part
                colour = _COLOURS["champion" if role == "champion" else verdict]
                tags = {"role": role, "mlflow.runColor": colour, order.TAG: order.of_role(self._start_ms, place)}
                self._log(run.info.run_id, tags=tags)
            elif "role" in run.data.tags:
                self._client.delete_tag(run.info.run_id, "role")
                tags = {"mlflow.runColor": _COLOURS[verdict], order.TAG: order.of_trial(self._start_ms, verdict)}
                self._log(run.info.run_id, tags=tags)

    def close(self, status: str) -> None:
        """Ends the parent run as FINISHED, KILLED (interrupted) or FAILED."""
        with impatient(), contextlib.suppress(*FAILURES, OSError):  # what ended it is told
            self._client.set_terminated(self.run_id, status)

    def _trials(self) -> Iterator[Run]:
        """The runs under the study's, some at a time: each comes with all that was told of it."""
        under = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        token = None
        while True:
            page = self._client.search_runs([self._experiment], under, max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _run(self, kind: str, name: str, identity: str) -> Run:
        tags = {kind: name, f"{kind}_id": identity}
        if kind == "study" and (parent := os.environ.get(SWEEP_RUN)):
            # the UI shows a sweep of such runs expanded
            tags |= {"mlflow.parentRunId": parent, "sweep_member": os.environ[SWEEP_MEMBER]}
            tags["mlflow.runType"] = "evaluation"
        before = self._client.search_runs([self._experiment], f"tags.{kind}_id = '{identity}'", max_results=1)
        if not before:
            return self._client.create_run(self._experiment, tags=tags, run_name=name)
        run = before[0]
        self._client.update_run(run.info.run_id, status="RUNNING")
        self._log(run.info.run_id, tags=tags)
        return run

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


def _verdict(outcome: Outcome, goal: Goal) -> TrialVerdict:
    """Whether the candidate keeps the limits, or why that is not known."""
    if outcome.failure is not None:
        return "failed"
    if outcome.stopped_by == "behind":
        return "behind"
    return "feasible" if goal.feasible(outcome.measurement) else "infeasible"


def _end(log: Path) -> str:
    """The last part of a trial's log; nothing where it wrote none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_BYTES))
        return file.read().decode(errors="replace").strip()
