"""A child may fail in any way: the parent hears of it in one sentence, and nothing is left running."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests import study
from tests.fakes import fail
from tuner.errors import CandidateError, RequestError
from tuner.system.environment import environment
from tuner.system.worker import Worker


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


def limited(log: Path, memory_mb: float = 2000, **more: Any) -> Worker:
    return Worker(log, memory_mb=memory_mb, **more)


def double(value: int) -> int:
    print("doubling", value)
    return 2 * value


def noisy() -> None:
    os.write(2, b"a library's own words\n")


def with_grandchild() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid


def grandchild_that_grows() -> None:
    code = (
        "import time\nkept = bytearray(400_000_000)\nfor i in range(0, len(kept), 4096): kept[i] = 1\ntime.sleep(600)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def count(progress: Callable[[float, str], None], steps: int) -> int:
    for step in range(steps):
        progress(step / steps, f"step {step}")
    return steps


def wrong_request() -> None:
    raise RequestError("model.path=x: no such file")


def unpicklable() -> Any:
    return lambda: None


def _gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
                continue
        return True
    return False


def test_functions_run_one_after_the_other_elsewhere(log: Path) -> None:
    with limited(log) as worker:
        assert [worker.run(double, n) for n in range(3)] == [0, 2, 4]
        assert worker.run(os.getpid) != os.getpid()
    assert not worker.alive
    assert "doubling 2" in log.read_text()


def test_what_libraries_print_goes_to_the_log(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with limited(log) as worker:
        worker.run(noisy)
    assert "a library's own words" in log.read_text()
    assert capfd.readouterr() == ("", "")


def test_the_environment_is_set(log: Path) -> None:
    with limited(log, environment=environment(3)) as worker:
        assert worker.run(os.getenv, "OMP_NUM_THREADS") == "3"
    assert os.environ.get("OMP_NUM_THREADS") != "3"


def test_progress_arrives_in_order(log: Path) -> None:
    heard: list[tuple[float, str]] = []
    with limited(log) as worker:
        assert worker.run_watched(lambda f, text: heard.append((f, text)), count, 3) == 3
    assert [text for _, text in heard] == ["step 0", "step 1", "step 2"]


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("raise", "error", "ValueError: three is not a colour"),
        ("refuse", "unsupported_op", "leave it in float"),
        ("memory_error", "out_of_memory", "MemoryError"),
        ("segfault", "crash", "SIGSEGV"),
        ("exit", "crash", "exit code 7"),
        ("hang", "timeout", "1 s"),
        ("blow_up", "out_of_memory", "300 MB"),
    ],
)
def test_a_fault_is_told_by_its_class(fault: Any, kind: str, said: str, log: Path) -> None:
    timeout_s = 1 if fault == "hang" else 60
    with limited(log, memory_mb=300) as worker, pytest.raises(CandidateError) as caught:
        worker.run_for(timeout_s, fail, fault)
    assert caught.value.kind == kind
    assert said in caught.value.sentence
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize("whose", [os.getpid, os.getppid], ids=["its own", "the fork server's"])
def test_who_is_killed_from_outside_is_told_from_who_died(whose: Callable[[], int], log: Path) -> None:
    with limited(log) as worker:
        os.kill(worker.run(whose), signal.SIGKILL)
        with pytest.raises(CandidateError) as caught:
            worker.run(time.sleep, 60)
    assert caught.value.kind == "killed"
    with limited(log) as worker:
        assert worker.run(double, 4) == 8


@pytest.mark.parametrize("fault", ["raise", "refuse", "memory_error"])
def test_a_worker_outlives_what_was_only_raised(fault: Any, log: Path) -> None:
    with limited(log) as worker:
        with pytest.raises(CandidateError):
            worker.run(fail, fault)
        assert worker.run(double, 4) == 8
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("fault", ["segfault", "exit", "hang"])
def test_a_dead_worker_says_so_when_asked_again(fault: Any, log: Path) -> None:
    with limited(log) as worker:
        for timeout_s in (0.5, 30):
            with pytest.raises(CandidateError):
                worker.run_for(timeout_s, fail, fault)


def test_a_wrong_request_stays_one(log: Path) -> None:
    with limited(log) as worker, pytest.raises(RequestError, match="no such file"):
        worker.run(wrong_request)


def test_a_result_that_does_not_pickle_is_an_error_of_its_function(log: Path) -> None:
    with limited(log) as worker, pytest.raises(CandidateError):
        worker.run_for(60, unpicklable)


def test_children_of_the_child_end_with_it(log: Path) -> None:
    with limited(log) as worker:
        pid = worker.run(with_grandchild)
        assert psutil.pid_exists(pid)
    assert _gone(pid)


def test_memory_counts_children_of_the_child(log: Path) -> None:
    with limited(log, memory_mb=300) as worker, pytest.raises(CandidateError) as caught:
        worker.run_for(60, grandchild_that_grows)
    assert caught.value.kind == "out_of_memory"


def test_a_paused_worker_does_nothing_until_resumed(log: Path) -> None:
    with limited(log) as worker:
        pid = worker.run(os.getpid)
        worker.pause()
        end = time.monotonic() + 10
        while psutil.Process(pid).status() != psutil.STATUS_STOPPED and time.monotonic() < end:
            time.sleep(0.01)
        assert psutil.Process(pid).status() == psutil.STATUS_STOPPED
        worker.resume()
        assert worker.run(double, 2) == 4
        worker.pause()
    assert _gone(pid)


def test_large_arguments_and_results_pass(log: Path) -> None:
    array = np.arange(3_000_000)
    with limited(log) as worker:
        np.testing.assert_array_equal(worker.run(np.negative, array), -array)


def test_ctrl_c_does_not_reach_the_child(log: Path) -> None:
    with limited(log) as worker:
        pid = worker.run(os.getpid)
        os.kill(pid, signal.SIGINT)
        assert worker.run(double, 1) == 2
        assert os.getpgid(pid) != os.getpgid(0)


def test_an_interrupted_wait_ends_the_child(log: Path) -> None:
    pid = -1
    with pytest.raises(KeyboardInterrupt), limited(log) as worker:
        pid = worker.run(os.getpid)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        worker.run(time.sleep, 60)
    assert _gone(pid)


PARENT = """
import os, sys, time
from pathlib import Path
from tuner.system.worker import Worker
worker = Worker(Path(sys.argv[1]), memory_mb=1000)
print(worker.run(os.getpid), flush=True)
if sys.argv[2] == "stopped":
    worker.pause()
else:
    worker._send(time.sleep, (600,), {})
time.sleep(600)
"""


@pytest.mark.parametrize("state", ["stopped", "busy"])
def test_a_worker_ends_with_its_parent_however_that_dies(state: str, log: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(log), state]
    with subprocess.Popen(command, cwd=study.ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    try:
        assert _gone(pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
