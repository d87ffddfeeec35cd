"""A board over TVM's RPC: a real tracker and real servers, on loopback."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import with_store
from tests.servers import free_port
from tuner.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("boards")]
if importlib.util.find_spec("tvm") is None:  # without importing it here
    pytest.skip("tvm is not installed", allow_module_level=True)

SERVERS = {"desk": 6, "lonely": 1}
TVM = "tuner.plugins.backends.tvm.TVM"
ONE_THREAD = os.environ | {"TVM_NUM_THREADS": "1"}
WITHOUT_TUNER = "import runpy, sys; sys.modules['tuner'] = None; sys.path.insert(0, '.'); runpy.run_path('check.py')"


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of one that knows `desk` and `lonely`."""
    folder = tmp_path_factory.mktemp("rpc")
    port = free_port()
    at = f"127.0.0.1:{port}"
    commands = [["rpc_tracker", "--host=127.0.0.1", f"--port={port}", f"--port-end={port + 1}"]]
    for key, count in SERVERS.items():
        for _ in range(count):
            own = free_port()
            ports = [f"--port={own}", f"--port-end={own + 1}"]
            commands.append(["rpc_server", "--host=127.0.0.1", f"--tracker={at}", f"--key={key}", *ports])
    processes = []
    with (folder / "log").open("w") as log:
        for module, *options in commands:
            command = [sys.executable, "-m", f"tvm.exec.{module}", *options]
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=ONE_THREAD, start_new_session=True))
    try:
        _wait_for(at, folder / "log")
        yield at
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(tracker: str, log: Path) -> None:
    from tuner.errors import RequestError
    from tuner.plugins.devices.tvm_board import TvmBoard

    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if TvmBoard(tracker, "desk").servers() == SERVERS:
                return
        except RequestError:
            pass
        time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution and a product of matrices, with random weights, from (n, 1, 8, 8) to (n, 10)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = {"w": (8, 1, 3, 3), "m": (512, 10)}
    constants = [numpy_helper.from_array(random.random(s, np.float32) / 9, n) for n, s in weights.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Flatten", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "m"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])
    model = helper.make_model(
        helper.make_graph(nodes, "net", [x], [y], constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each server takes seconds to start, and the race here is small."""
    from tuner.plugins.devices.tvm_board import TvmBoard

    monkeypatch.setattr(TvmBoard, "least", SERVERS["desk"])


def tune(folder: Path, net: Path, *more: str) -> int:
    return main(
        [
            "target=board", "model=onnx", f"model.path={net}", "dataset=random", "latency_ms=500", "study=board",
            f"out_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}", "trial.measure_s=0.1",
            "search_space.batch_size=2", *more,
        ]
    )  # fmt: skip


def at(tracker: str, key: str = "desk") -> list[str]:
    return [f"target.remote.tracker={tracker}", f"target.remote.key={key}"]


def test_a_study_times_on_the_board_and_its_champion_loads_there(
    tracker: str, net: Path, tmp_path: Path, shared: Path
) -> None:
    with_store(tmp_path, shared)
    space = f"search_space.deploy=[{{backend:{{_target_:{TVM},trials_per_task:[0,8]}}}}]"
    assert tune(tmp_path, net, *at(tracker), space) == 0
    found = json.loads((tmp_path / "out/board/result.json").read_text())
    champion: dict[str, Any] = found["champion"]
    assert champion["latency_ms"]["p50"] > 0
    assert {champion["cpu_ms"], champion["memory_mb"], champion["energy_j"], found["environment"]["threads"]} == {None}
    assert found["environment"]["hardware"] == {"name": f"desk at {tracker}", "servers": 6.0}
    assert found["baselines"]["eager"] is None, "no framework runs there"
    assert "None" not in (tmp_path / "out/board/report.html").read_text().partition("<footer")[0].partition("<h2")[0]
    folder = tmp_path / "out/board/champion"
    tuned = json.loads((folder / "files/tuning.json").read_text())
    assert champion["label"].startswith("tvm-ms8") and tuned["tasks_with_valid_record"] > 0
    out = tmp_path / "plain"
    assert main(["export", str(folder), "--format", "plain", "--out", str(out), "--name", "net"]) == 0
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TUNER], cwd=out, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_is_not_there_is_refused_in_a_sentence(
    tracker: str, net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        absent = f"127.0.0.1:{nobody.getsockname()[1]}"
        for options, said in {
            (): "say where the board is: target.remote.tracker=HOST:PORT target.remote.key=KEY",
            tuple(at(tracker, "rpi5")): "knows no board 'rpi5', but desk, lonely",
            tuple(at(tracker, "lonely")): f"has 1 of the {SERVERS['desk']} servers that a race may need",
            tuple(at(absent)): f"no tracker of TVM's RPC answers at {absent}",
            ("target.remote.tracker=somewhere",): "target.remote.tracker=somewhere: must be HOST:PORT",
            ("target.remote.host=here",): "target.remote.host: no such key; there are tracker and key",
            (*at(tracker), "memory_mb=100"): "memory_mb: ",
            (*at(tracker), "+search_space.replicas=2"): "has no cores to share",
        }.items():
            assert tune(tmp_path, net, *options) == 2
            told = capsys.readouterr().err
            assert said in told and "Traceback" not in told, told
    assert not (tmp_path / "out").exists()


def test_another_device_is_not_reached(tmp_path: Path, net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(tmp_path, net, "target=cpu", "target.remote.tracker=127.0.0.1:1") == 2
    assert "target.remote is for devices that are reached over the network" in capsys.readouterr().err
