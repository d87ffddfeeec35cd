"""A child may fail in any way: the parent hears of it in one sentence, and nothing is left running.

Whether it was forked from the server or begins anew in another interpreter makes no difference.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import venv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests import study
from tests.chores import (
    count,
    double,
    executable,
    full_disk,
    grandchild_that_grows,
    noisy,
    unpicklable,
    with_grandchild,
    wrong_request,
)  # fmt: skip
from tuner.errors import CandidateError, RequestError
from tuner.system import forked
from tuner.system.environment import environment
from tuner.system.interpreters import Environment
from tuner.system.launcher import Launcher
from tuner.system.worker import Worker
from tuner.testing.faults import fail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter where nothing is installed."""
    folder = tmp_path_factory.mktemp("another")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin/python"


FORKED = Launcher(2000)
KINDS = {"forked": FORKED, "forked from one with a library": replace(FORKED, ahead="tests.loaded_ahead")}


@pytest.fixture(params=[*KINDS, "another interpreter"])
def launcher(request: pytest.FixtureRequest, another: Path) -> Launcher:
    return KINDS.get(request.param) or replace(FORKED, environment=Environment(another))


def _gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
                continue
        return True
    return False


def test_functions_run_one_after_the_other_elsewhere(launcher: Launcher, log: Path) -> None:
    with launcher.open(log) as worker:
        assert [worker.run(double, n) for n in range(3)] == [0, 2, 4]
        assert worker.run(os.getpid) != os.getpid()
    assert not worker.alive
    assert "doubling 2" in log.read_text()


def test_what_libraries_print_goes_to_the_log(launcher: Launcher, log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with launcher.open(log) as worker:
        worker.run(noisy)
    assert "a library's own words" in log.read_text()
    assert capfd.readouterr() == ("", "")


def test_the_environment_is_set(launcher: Launcher, log: Path) -> None:
    with replace(launcher, variables=environment(3)).open(log) as worker:
        assert worker.run(os.getenv, "OMP_NUM_THREADS") == "3"
    assert os.environ.get("OMP_NUM_THREADS") != "3"


def test_progress_arrives_in_order(launcher: Launcher, log: Path) -> None:
    heard: list[tuple[float, str]] = []
    with launcher.open(log) as worker:
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
def test_a_fault_is_told_by_its_class(fault: Any, kind: str, said: str, launcher: Launcher, log: Path) -> None:
    timeout_s = 1 if fault == "hang" else 60
    with replace(launcher, memory_mb=300).open(log) as worker, pytest.raises(CandidateError) as caught:
        worker.run_for(timeout_s, fail, fault)
    assert caught.value.kind == kind
    assert said in caught.value.sentence
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_disk_that_is_full_is_no_candidates_failure(wrapped: bool, launcher: Launcher, log: Path) -> None:
    with launcher.open(log) as worker, pytest.raises(RequestError, match=r"disk is full .*the same command goes on"):
        worker.run(full_disk, wrapped=wrapped)


def test_who_is_killed_from_outside_is_told_from_who_died(launcher: Launcher, log: Path) -> None:
    with launcher.open(log) as worker:
        os.kill(worker.run(os.getpid), signal.SIGKILL)
        assert _kind_of_death(worker) == "killed"
    with launcher.open(log) as worker:
        assert worker.run(double, 4) == 8


def test_a_killed_fork_server_takes_its_children_along_and_another_is_started(log: Path) -> None:
    with FORKED.open(log) as worker:
        os.kill(worker.run(os.getppid), signal.SIGKILL)
        assert _kind_of_death(worker) == "killed"
    with FORKED.open(log) as worker:
        assert worker.run(double, 4) == 8


def test_a_fork_server_that_is_killed_while_it_starts_a_child_costs_that_child(log: Path) -> None:
    with FORKED.open(log) as worker:
        server = worker.run(os.getppid)
    os.kill(server, signal.SIGSTOP)  # it takes no request any more
    killer = threading.Timer(0.5, os.kill, (server, signal.SIGKILL))
    killer.start()
    with pytest.raises(CandidateError) as caught:
        FORKED.open(log)
    killer.join()
    assert caught.value.kind == "killed" and _gone(server)
    with FORKED.open(log) as worker:
        assert worker.run(double, 4) == 8


def _kind_of_death(worker: Worker) -> str:
    """The kind of error that a worker's death is."""
    with pytest.raises(CandidateError) as caught:
        worker.run(time.sleep, 60)
    return caught.value.kind


@pytest.mark.parametrize("fault", ["raise", "refuse", "memory_error"])
def test_a_worker_outlives_what_was_only_raised(fault: Any, launcher: Launcher, log: Path) -> None:
    with launcher.open(log) as worker:
        with pytest.raises(CandidateError):
            worker.run(fail, fault)
        assert worker.run(double, 4) == 8
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("fault", ["segfault", "exit", "hang"])
def test_a_dead_worker_says_so_when_asked_again(fault: Any, launcher: Launcher, log: Path) -> None:
    with launcher.open(log) as worker:
        for timeout_s in (0.5, 30):
            with pytest.raises(CandidateError):
                worker.run_for(timeout_s, fail, fault)


def test_a_wrong_request_stays_one(launcher: Launcher, log: Path) -> None:
    with launcher.open(log) as worker, pytest.raises(RequestError, match="no such file"):
        worker.run(wrong_request)


def test_a_result_that_does_not_pickle_is_an_error_of_its_function(launcher: Launcher, log: Path) -> None:
    with launcher.open(log) as worker, pytest.raises(CandidateError):
        worker.run_for(60, unpicklable)


def test_children_of_the_child_end_with_it(launcher: Launcher, log: Path) -> None:
    with launcher.open(log) as worker:
        pid = worker.run(with_grandchild)
        assert psutil.pid_exists(pid)
    assert _gone(pid)


def test_memory_counts_children_of_the_child(launcher: Launcher, log: Path) -> None:
    with replace(launcher, memory_mb=300).open(log) as worker, pytest.raises(CandidateError) as caught:
        worker.run_for(60, grandchild_that_grows)
    assert caught.value.kind == "out_of_memory"


def test_a_paused_worker_does_nothing_until_resumed(launcher: Launcher, log: Path) -> None:
    with launcher.open(log) as worker:
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


def test_large_arguments_and_results_pass(launcher: Launcher, log: Path) -> None:
    array = np.arange(3_000_000)
    with launcher.open(log) as worker:
        np.testing.assert_array_equal(worker.run(np.negative, array), -array)


def test_ctrl_c_does_not_reach_the_child(launcher: Launcher, log: Path) -> None:
    with launcher.open(log) as worker:
        pid = worker.run(os.getpid)
        os.kill(pid, signal.SIGINT)
        assert worker.run(double, 1) == 2
        assert os.getpgid(pid) != os.getpgid(0)


def test_an_interrupted_wait_ends_the_child(launcher: Launcher, log: Path) -> None:
    pid = -1
    with pytest.raises(KeyboardInterrupt), launcher.open(log) as worker:
        pid = worker.run(os.getpid)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        worker.run(time.sleep, 60)
    assert _gone(pid)


PARENT = """
import os, sys, threading, time
from pathlib import Path
from tuner.system.interpreters import Environment
from tuner.system.launcher import Launcher
log, state, interpreter = sys.argv[1:]
environment = None if interpreter == sys.executable else Environment(Path(interpreter))
worker = Launcher(1000, environment=environment).open(Path(log))
print(worker.run(os.getpid), flush=True)
if state == "stopped":
    worker.pause()
    time.sleep(600)
worker.run(time.sleep, 600)
"""


@pytest.mark.parametrize("state", ["stopped", "busy"])
def test_a_worker_ends_with_its_parent_however_that_dies(state: str, launcher: Launcher, log: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(log), state, str(launcher.interpreter)]
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


def test_a_child_of_another_interpreter_is_one(another: Path, log: Path) -> None:
    with replace(FORKED, environment=Environment(another)).open(log) as worker:
        assert worker.run(os.path.realpath, "/proc/self/exe") == os.path.realpath(another)
        assert worker.run(executable) == str(another)


def test_an_interpreter_that_is_not_there_is_told(log: Path) -> None:
    with pytest.raises(CandidateError, match="python4 does not start: No such file"):
        replace(FORKED, environment=Environment(Path("/nowhere/python4"))).open(log)


def test_a_child_that_begins_anew_has_loaded_nothing(log: Path) -> None:
    with FORKED.open_anew(log) as worker:
        assert worker.run(eval, "__import__('sys').executable") == sys.executable
        loaded = worker.run(eval, "set(__import__('sys').modules)")
    assert not {"numpy", "psutil", "tuner.system.worker"} & loaded


# --- a library that is loaded before the fork


def ahead() -> tuple[bool, str | None, bool]:
    """Whether the library was loaded by somebody else, the threads that it read, whether Ctrl-C could be heeded."""
    from tests import loaded_ahead

    heeded = signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return os.getpid() != loaded_ahead.LOADED_BY, loaded_ahead.THREADS, heeded


@pytest.mark.slow
def test_the_library_was_loaded_with_the_variables_of_the_child(log: Path) -> None:
    for threads in (1, 3):
        launcher = replace(FORKED, variables=environment(threads), ahead="tests.loaded_ahead")
        with launcher.open(log) as one, launcher.open(log) as other:
            assert one.run(ahead) == other.run(ahead) == (True, str(threads), True)
    assert "TUNER_LOADED" not in os.environ and os.environ.get("OMP_NUM_THREADS") != "3"


def test_what_goes_with_a_library_was_loaded_too(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "_ahead", {"json": ("tests.loaded_ahead",)})
    with replace(FORKED, ahead="json").open(log) as worker:
        assert worker.run(ahead)[0]


def test_children_of_both_kinds_start_at_once(log: Path) -> None:
    found: list[int] = []

    def start(launcher: Launcher) -> None:
        with launcher.open(log) as worker:
            found.append(worker.run(double, 21))

    threads = [threading.Thread(target=start, args=(launcher,)) for launcher in [*KINDS.values()] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [42] * 8


def test_a_library_that_does_not_import_is_told_of_by_the_child_that_needs_it(log: Path) -> None:
    with replace(FORKED, ahead="tests.no_such_library").open(log) as worker:
        assert worker.run(double, 21) == 42
