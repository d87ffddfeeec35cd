"""Stores that cannot be used: one sentence that names it and the mend, within seconds, before anything is spent."""

import contextlib
import http.server
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tests import study
from tests.study import Refused
from tuner.errors import RequestError
from tuner.request.tracking import tracking
from tuner.tracking import stores
from tuner.tracking.stores import reachable


def fault(uri: str) -> str:
    with pytest.raises(RequestError) as refusal:
        reachable(uri)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@contextlib.contextmanager
def answering(status: int, body: bytes, seconds: float = 0.0) -> Iterator[str]:
    """The address of a server that answers everything so, after so long or when it is closed."""
    closed = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            closed.wait(seconds)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody waited that long
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        closed.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, b"hello", "is no MLflow server"),
        (200, b"{}", "is no MLflow server"),
        (302, b"", "is no MLflow server"),
        (404, b"<html>", "is no MLflow server"),
        (401, b"", "does not know this user"),
        (500, b"", r"an error \(500\)"),
        (503, b"", r"an error \(503\)"),
    ],
)
def test_a_server_that_answers_something_else_is_told(status: int, body: bytes, why: str) -> None:
    with answering(status, body) as uri:
        assert re.search(rf"tracking\.uri={uri}: .*{why}", fault(uri))


def test_a_server_that_never_answers_is_left_after_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stores.PATIENCE, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with answering(200, b"", seconds=5) as uri:
        assert "does not answer within 1 s" in fault(uri)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        assert "does not answer within 1 s" in fault(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_database_that_is_none_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage").write_bytes(b"not a database")
    assert "is a folder" in fault(f"sqlite:///{tmp_path / 'folder'}")
    assert "is no SQLite database" in fault(f"sqlite:///{tmp_path / 'garbage'}")
    assert "cannot be written" in fault(f"sqlite:///{tmp_path / 'garbage/deeper/mlflow.db'}")
    reachable(f"sqlite:///{tmp_path / 'new/mlflow.db'}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "garbage"]


@pytest.mark.parametrize(
    ("revision", "told"), [("451aebb31d03", "older MLflow; back it up"), ("f" * 12, "newer MLflow")]
)
def test_a_store_of_another_mlflow_is_told_with_its_mend(
    revision: str, told: str, shared: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes((shared / "mlflow.db").read_bytes())
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    assert told in fault(f"sqlite:///{file}")


@pytest.mark.parametrize("uri", ["mysql://u:secret@127.0.0.1/x", "mssql://u:secret@127.0.0.1/x"])
def test_a_database_without_its_driver_is_told_without_the_password(uri: str) -> None:
    told = fault(uri)
    assert "the driver of that database, is not installed; pip install" in told and "secret" not in told


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "foo://x"])
def test_a_dead_registry_is_called_by_its_variable(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    told = fault(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert told.startswith(f"$MLFLOW_REGISTRY_URI={uri}: ") and told.endswith("unset MLFLOW_REGISTRY_URI")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("uri", ["sqlite:x", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a%25b"])
def test_an_address_that_names_no_file_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"tracking\.uri="):
        tracking({"uri": uri}, tmp_path)


def test_a_path_that_mlflow_would_read_otherwise_is_refused_or_read_rightly(tmp_path: Path) -> None:
    for name in ("100%", "a%20b", "what?"):
        with pytest.raises(RequestError, match=f"out_dir=.*{re.escape(name)}: MLflow takes no"):
            tracking({}, tmp_path / name)
    assert tracking({"uri": "sqlite:///a%20b/x.db"}, tmp_path).uri == "sqlite:///a b/x.db"
    assert tracking({}, tmp_path / "a b#").uri == f"sqlite:///{tmp_path}/a b#/mlflow.db"


@pytest.mark.slow
def test_a_store_that_is_lost_under_a_study_is_told_and_the_same_command_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    line = ["latency_ms=20", "search_space.batch_size=[4]"]
    alive, real = iter(range(2)), MlflowClient.log_batch

    def dying(client: MlflowClient, *arguments: Any, **named: Any) -> Any:
        if next(alive, None) is None:
            raise MlflowException("API request failed with exception: Read timed out. (read timeout=30)")
        return real(client, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", dying)
        assert study.tune(place, *line) == 2
    told = capfd.readouterr().err
    assert told.count("tune: ") == 1 and "Traceback" not in told
    assert "does not answer within 30 s" in told and "out/linear-cpu-001, and the same command goes on" in told
    assert study.tune(place, *line) == 0
    assert {path.name for path in (place / "out").glob("linear-*")} == {"linear-cpu-001"}
    _, trials = study.runs(place)
    assert sorted(run.data.tags["trial"] for run in trials) == ["0", "1"], "what was not told is told now"


def test_a_refused_study_leaves_no_folder(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "deep").mkdir()
    line = [o for o in study.overrides(tmp_path / "deep", "latency_ms=20") if not o.startswith("cache_dir=")]
    with answering(500, b"") as uri:
        refused(*line, f"tracking.uri={uri}")
    (tmp_path / "eval.npz").write_bytes(b"no samples")
    refused(*line, "dataset=npz", f"dataset.path={tmp_path / 'eval.npz'}")
