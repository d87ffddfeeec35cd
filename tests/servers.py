"""Real servers for tests: PostgreSQL from Debian's packages, and MLflow's own behind basic authentication."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "open sesame/#1"  # what an address must quote


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The address of a server on the loopback interface, `postgresql://tuner@127.0.0.1:PORT/postgres`.

    The user has the PASSWORD. The server, its data and its log are gone afterwards.
    """
    binaries = _postgres_binaries()
    as_owner = _unprivileged()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:  # not under pytest's folder, which is root's alone
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if as_owner:
            shutil.chown(folder, "postgres")
            shutil.chown(folder / "password", "postgres")
        initdb = [str(binaries / "initdb"), "--pgdata", str(folder / "data"), "--username=tuner", "--no-sync"]
        made = subprocess.run(
            [*as_owner, *initdb, "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [*as_owner, str(binaries / "postgres"), "-D", str(folder / "data"), *options],
                cwd=folder, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            wait_for(port, server, folder / "log")
            while subprocess.run([str(binaries / "pg_isready"), "-p", str(port), "-h", "127.0.0.1", "-q"]).returncode:
                time.sleep(0.1)  # it listens before it answers
            yield f"postgresql://tuner@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # ends its clients' connections; SIGTERM would wait for them
            server.wait(60)


def _postgres_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    return found[-1].parent


def _unprivileged() -> list[str]:
    """PostgreSQL refuses to be run by root; Debian's package made a user for it."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("postgres")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


@contextlib.contextmanager
def mlflow(folder: Path) -> Iterator[str]:
    """The address of an MLflow server that knows one user, `admin` with the PASSWORD, and takes artifacts itself.

    Its store and its artifacts are in `folder`.
    """
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder / 'auth.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    variables = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the test",
    }
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | variables, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(port, server, folder / "log")
        uri = f"http://127.0.0.1:{port}"
        urllib.request.urlopen(f"{uri}/health", timeout=60).close()  # it listens before its worker has imported MLflow
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # it has workers
        server.wait(60)


def new_database(server: str) -> str:
    """The address of another, empty, on the same server: within one process MLflow makes its tables once an address."""
    import psycopg

    name = f"tuner_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server, password=PASSWORD, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    return server.removesuffix("postgres") + name


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path, limit_s: float = 60) -> None:
    """Until something listens; raises with the log where the server ends or the time is up."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"the server did not start:\n{log.read_text()}")
