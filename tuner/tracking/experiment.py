"""The experiment that all studies are recorded in: its note, its view, where `tune ui` lands."""

import sqlite3
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from tuner.errors import RequestError
from tuner.goal import Goal
from tuner.tracking import view
from tuner.tracking.stores import sqlite_file, unusable

NOTE = "mlflow.note.content"
EXPERIMENT = """\
Each run without a parent is a **study**: one search for the best deployable artifact of a model within declared \
limits. Its description has the verdict, its artifact `report.html` the evidence, and its model is what was delivered.

The runs under it are its **trials**, one for each candidate. `role` says what the final race made of one, `verdict` \
whether it keeps the limits (`behind`: a few calls showed it far behind the best by then), `state` how far its trial \
came, and its description why it was or was not good enough.
"""


def open_experiment(client: MlflowClient, uri: str, name: str, artifacts: Path | None) -> str:
    """Its id; it is made where there is none. `artifacts` is where those of a bare database lie."""
    stored = client.get_experiment_by_name(name)
    if stored is not None:
        return str(stored.experiment_id)
    # the artifacts of a file store lie beside it; MLflow's own default is the folder one happens to stand in
    file = sqlite_file(uri)
    folder = artifacts if file is None else file.parent / "mlartifacts"
    location = None if folder is None or uri.startswith("http") else folder.as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return open_experiment(client, uri, name, artifacts)  # another study made it in this very moment


def furnish(client: MlflowClient, experiment_id: str, goal: Goal) -> None:
    """Gives an experiment the view that `tune ui` opens, with the columns of that goal; and a note for who sees it
    first, unless it has its own."""
    client.set_experiment_tag(experiment_id, view.TAG, view.state(goal))
    if NOTE not in client.get_experiment(experiment_id).tags:
        client.set_experiment_tag(experiment_id, NOTE, EXPERIMENT)


def landing(uri: str, experiment: str) -> tuple[str, str | None]:
    """The experiment's id and its latest study's run, for the addresses that `tune ui` prints.

    Raises RequestError where the store cannot be used or nothing was recorded in it.
    """
    try:
        client = MlflowClient(tracking_uri=uri)
        stored = client.get_experiment_by_name(experiment)
        if stored is None:
            raise RequestError(f"tracking.experiment={experiment}: no study has been recorded in it at {uri}; run one")
        if view.TAG not in stored.tags:
            furnish(client, stored.experiment_id, Goal())
        studies = client.search_runs([stored.experiment_id], "tags.role = 'study'", max_results=1)
    except (MlflowException, sqlite3.Error, SQLAlchemyError) as error:
        raise unusable(uri, error) from error
    return str(stored.experiment_id), studies[0].info.run_id if studies else None
