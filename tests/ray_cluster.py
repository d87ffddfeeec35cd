"""A real Ray cluster on the loopback interface: a head that evaluates nothing, and nodes that come and go."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.servers import free_port

VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3",  # nobody waits a minute for a head that is gone
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "10000",  # a node that is slow is there; one that is gone refuses at once
    "RAY_health_check_failure_threshold": "3",
}


def need_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'inference-tuner[ray]'")


class Cluster:
    """`address` is the head's. Each node has a folder for its temporary files, so that its device is its own."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self._folder = folder
        self._variables = VARIABLES | variables
        self._count = 1
        self._started: dict[str, psutil.Process] = {}
        port = free_port()
        self.address = f"127.0.0.2:{port}"
        self.start("head", "--head", "--port", str(port), "--include-dashboard", "false", "--num-cpus", "0")
        self.until_started("head")

    def start(self, name: str, *options: str, **variables: str) -> None:
        """One more, which needs some seconds; it has one CPU unless `options` say otherwise."""
        place = self._folder / name
        place.mkdir(exist_ok=True)
        cpus = () if "--num-cpus" in options else ("--num-cpus", "1")
        joins = () if "--head" in options else ("--address", self.address)
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address", self._next_ip(),
            "--object-store-memory", "80000000", "--disable-usage-stats", "--temp-dir", str(place / "ray"),
            *joins, *cpus, *options,
        ]  # fmt: skip
        with (place / "log").open("w") as log:
            started = subprocess.Popen(
                command, cwd=place, env=os.environ | self._variables | {"TMPDIR": str(place)} | variables,
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._started[name] = psutil.Process(started.pid)

    def _next_ip(self) -> str:
        """Every address that begins with 127 is this machine; Ray takes the first for another."""
        self._count += 1
        return f"127.0.0.{self._count}"

    def until_started(self, *names: str) -> None:
        end = time.monotonic() + 150
        for name in names:
            log = self._folder / name / "log"
            while "Ray runtime started" not in log.read_text():
                assert time.monotonic() < end and self._started[name].is_running(), log.read_text()
                time.sleep(0.1)

    def processes(self, name: str) -> list[psutil.Process]:
        """All that run for a node."""
        first = self._started[name]
        with contextlib.suppress(psutil.NoSuchProcess):
            return [first, *first.children(recursive=True)]
        return []

    def kill(self, name: str) -> None:
        """As if its power went."""
        for process in self.processes(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        del self._started[name]

    def close(self) -> None:
        for name in list(self._started):
            self.kill(name)


@contextlib.contextmanager
def cluster(**variables: str) -> Iterator[Cluster]:
    """Its head; what was started is gone afterwards."""
    need_ray()
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp", ignore_cleanup_errors=True) as folder:  # short: sockets
        started = Cluster(Path(folder), **variables)
        try:
            yield started
        finally:
            started.close()
            assert left(folder) == [], "a process is left behind"


def left(folder: str) -> list[str]:
    """The processes that have their temporary files below that folder and do not end within some seconds."""
    end = time.monotonic() + 15
    while there := [process for process in psutil.process_iter() if _below(process, folder)]:
        if time.monotonic() > end:
            return [" ".join(process.cmdline()) for process in there]
        time.sleep(0.2)
    return []


def _below(process: psutil.Process, folder: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TMPDIR", "").startswith(folder)
    except psutil.Error:
        return False
