"""`tune ui`: MLflow's UI on the store in use, with the address of a view that is useful at first sight."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import webbrowser
from collections.abc import Iterator, Sequence
from typing import IO

import psutil

from tuner.errors import ExitCode, RequestError
from tuner.request import compose
from tuner.system.said import last_line
from tuner.system.secret import masked
from tuner.tracking import view

_FIRST_PORT = 5000
_PORTS = 100
_START_S = 120.0
_END_S = 10.0


def run(arguments: Sequence[str]) -> int:
    """Serves the UI on loopback until Ctrl-C or SIGTERM and prints where to look; `--open` opens it in a browser.

    Where `tracking.uri` is a server, only prints that server's addresses.
    """
    _, where = compose.recorded([argument for argument in arguments if argument != "--open"])
    from tuner.tracking.experiment import landing
    from tuner.tracking.stores import reachable

    reachable(where.uri)
    experiment_id, study_run = landing(where.uri, where.experiment)

    def tell(base: str) -> None:
        table = view.address(base, experiment_id, "TABLE")
        sys.stdout.write(f"every trial    {table}\n")
        sys.stdout.write(f"charts         {view.address(base, experiment_id, 'CHART')}\n")
        if study_run is not None:
            sys.stdout.write(f"latest verdict {view.run_address(base, experiment_id, study_run)}\n")
        sys.stdout.flush()
        if "--open" in arguments:
            webbrowser.open(table)

    if where.uri.startswith("http"):
        tell(masked(where.uri))
        return ExitCode.OK
    with _serving(where.uri) as (process, base), contextlib.suppress(KeyboardInterrupt):
        tell(base)
        sys.stdout.write("Ctrl-C ends it\n")
        sys.stdout.flush()
        return process.wait()
    return ExitCode.OK


@contextlib.contextmanager
def _serving(uri: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """MLflow's UI in a process group of its own, which ends with this block, and its address once it answers."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # it runs no jobs; and calls nobody, as `tuner.tracking.stores` has seen to
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    for port in range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        if not _free(port):
            continue
        command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--workers=1", f"--port={port}"]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            try:
                if _answers(process, port, log):
                    yield process, f"http://127.0.0.1:{port}"
                    return
            finally:
                _end(process)
    raise RequestError(f"no free port from {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1}")


def _answers(process: "subprocess.Popen[bytes]", port: int, log: IO[bytes]) -> bool:
    """Waits until the server answers; false where another process took the port while it started."""
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        if _listens(process.pid, port):
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                return True
        time.sleep(0.2)
    log.seek(0)
    said = log.read().decode(errors="replace").strip() or f"no answer within {_START_S:.0f} s"
    if process.poll() is not None and "address already in use" in said:
        return False
    raise RequestError(f"MLflow's UI did not start: {last_line(said)}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends the whole group: MLflow's command starts the server as a child."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _listens(pid: int, port: int) -> bool:
    """Whether the process or a child of it listens there: it may be another server that answers."""
    with contextlib.suppress(psutil.Error):
        server = psutil.Process(pid)
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for process in (server, *server.children(recursive=True))
            for connection in process.net_connections("tcp")
        )
    return False
