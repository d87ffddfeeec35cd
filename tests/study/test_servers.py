"""Studies on a team's servers: PostgreSQL, and MLflow behind basic authentication. Both are real."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import optuna
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests import servers, study
from tests.servers import PASSWORD
from tests.study import Refused
from tuner import cli
from tuner.search.storage import storage
from tuner.system.secret import masked

pytestmark = pytest.mark.slow

FOUND = "latency_ms=20"


def runs(uri: str) -> tuple[list[Run], list[Run]]:
    """Those of studies and those of trials."""
    client = MlflowClient(tracking_uri=uri)
    every = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    trials = [run for run in every if "mlflow.parentRunId" in run.data.tags]
    return [run for run in every if run not in trials], trials


def studies(url: str) -> list[optuna.Study]:
    kept = storage(url, Path("unused"))
    return [optuna.load_study(study_name=name, storage=kept) for name in optuna.get_all_study_names(kept)]


# --- PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with servers.postgres() as url:
        yield url


@pytest.fixture
def database(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database whose password the environment has."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return servers.new_database(server)


def test_one_setting_puts_studies_and_runs_into_postgresql(database: str, place: Path) -> None:
    assert study.tune(place, FOUND, "tracking=postgres", f"tracking.uri={database}") == 0
    assert not (place / "out/optuna.journal").exists()
    (kept,) = studies(database)
    assert kept.study_name.startswith("linear-cpu-001-")
    assert len(kept.trials) == 4
    (parent,), trials = runs(database)
    assert sorted(run.data.tags["trial"] for run in trials) == [str(trial.number) for trial in kept.trials]
    assert parent.info.status == "FINISHED"
    assert list((place / "out/mlartifacts").rglob("manifest.json")), "the champion's files are beside the database"


def test_a_study_on_postgresql_goes_on(database: str, place: Path) -> None:
    where = ("tracking=postgres", f"tracking.uri={database}", "study=mine")
    assert study.tune(place, FOUND, "n_trials=2", *where) == 0
    assert study.tune(place, FOUND, "n_trials=4", *where) == 0
    assert study.result(place, "mine")["trials"]["total"] == 4
    (kept,) = studies(database)
    assert [trial.state for trial in kept.trials] == [optuna.trial.TrialState.COMPLETE] * 4
    (parent,), trials = runs(database)
    assert len({run.data.tags["candidate"] for run in trials}) == 4
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    candidate = MlflowClient(database).get_model_version_by_alias("linear-cpu", "candidate")
    assert cli.main(["promote", *where[:2]]) == 0
    assert MlflowClient(database).get_model_version_by_alias("linear-cpu", "champion").version == candidate.version


def test_colleagues_share_an_empty_database_from_the_first_moment(database: str, tmp_path: Path) -> None:
    """Both make the tables, and both call their study linear-cpu-001."""
    folders = [tmp_path / "one", tmp_path / "two"]
    where = ("tracking=postgres", f"tracking.uri={database}")
    processes = [study.process(folder, FOUND, *where) for folder in folders]
    for process in processes:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    assert sorted(len(kept.trials) for kept in studies(database)) == [4, 4]
    parents, trials = runs(database)
    assert [run.data.tags["study"] for run in parents] == ["linear-cpu-001"] * 2
    assert len(trials) == 8


def test_studies_may_be_in_postgresql_and_runs_elsewhere(database: str, place: Path) -> None:
    assert study.tune(place, FOUND, f"tracking.storage={database}") == 0
    assert len(studies(database)[0].trials) == 4
    assert len(study.runs(place)[1]) == 4


def test_a_password_in_the_address_is_recorded_nowhere(
    database: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PGPASSWORD")
    secret = quote(PASSWORD, safe="")
    url = database.replace("tuner@", f"tuner:{secret}@")
    assert study.tune(place, FOUND, "tracking=postgres", f"tracking.uri={url}") == 0
    told = capfd.readouterr()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    (parent,), trials = runs(database)
    recorded = json.dumps([run.to_dictionary() for run in (parent, *trials)])
    assert f"tracking.uri={masked(url)}" in parent.data.tags["command"]
    for word in (secret, PASSWORD):
        assert word not in told.out + told.err + recorded
        files = [
            path for path in place.rglob("*") if path.is_file() and path.name != "servers.py"
        ]  # a model has its code
        assert not [str(path) for path in files if word.encode() in path.read_bytes()]


@pytest.mark.parametrize("key", ["tracking.uri", "tracking.storage"])
def test_a_database_that_cannot_be_used_is_told_at_once(
    key: str,
    database: str,
    place: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(url: str) -> str:
        asked = study.overrides(place, FOUND, f"{key}={url}")
        return refused(*(o for o in asked if not o.startswith("cache_dir=")), written=True)

    assert f"{key}=postgresql://tuner@127.0.0.1:1/tuner: the database cannot be used" in told(
        "postgresql://tuner@127.0.0.1:1/tuner"
    )
    assert 'database "nowhere" does not exist' in told(database.rpartition("/")[0] + "/nowhere")
    monkeypatch.setenv("PGPASSWORD", "guessed")
    assert "password authentication failed" in told(database)
    assert not list(place.glob("out/linear*"))


# --- MLflow


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "mlflow.db").write_bytes((shared / "mlflow.db").read_bytes())
    with servers.mlflow(folder) as uri:
        yield uri, folder


def test_a_study_is_recorded_on_an_mlflow_server_that_wants_a_password(
    mlflow_server: tuple[str, Path], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, folder = mlflow_server
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert study.tune(place, FOUND, "tracking=server", f"tracking.uri={uri}") == 0
    (parent,), trials = runs(uri)
    assert (parent.data.tags["study"], parent.info.status, len(trials)) == ("linear-cpu-001", "FINISHED", 4)
    client = MlflowClient(tracking_uri=uri)
    assert {"report.html", "result.json"} <= {found.path for found in client.list_artifacts(parent.info.run_id)}
    (stored,) = folder.glob("artifacts/**/manifest.json")
    assert stored.read_text() == (place / "out/linear-cpu-001/champion/manifest.json").read_text()
    assert not (place / "out/mlartifacts").exists()


@pytest.mark.parametrize("user", ["admin", None])
def test_an_mlflow_server_that_refuses_is_told_at_once(
    user: str | None,
    mlflow_server: tuple[str, Path],
    place: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if user:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guessed")
    asked = study.overrides(place, FOUND, "tracking=server", f"tracking.uri={mlflow_server[0]}")
    told = refused(*(o for o in asked if not o.startswith("cache_dir=")), written=True)
    assert f"tracking.uri={mlflow_server[0]}" in told
    assert "MLFLOW_TRACKING_PASSWORD" in told
    assert not list(place.glob("out/linear*"))
