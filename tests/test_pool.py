"""An artifact of several replicas, as its users load it."""

import gc
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.measure.test_replicas import packaged
from tuner import artifact
from tuner.errors import CandidateError


def children() -> list[psutil.Process]:
    return [c for c in psutil.Process().children() if "bootstrap" in " ".join(c.cmdline())]


def test_many_threads_get_each_its_own_answer(tmp_path: Path) -> None:
    deployed = artifact.load(packaged(tmp_path / "artifact"))
    batches = [np.full((1 + n % 2, 4), n, np.float32) for n in range(40)]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda batch: deployed.run({"x": batch})[0], batches))
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(answer, batch @ np.ones((4, 3), np.float32))


def test_one_that_dies_fails_its_call_and_is_loaded_anew(tmp_path: Path) -> None:
    before = children()
    deployed = artifact.load(packaged(tmp_path / "artifact"))
    mine = [child for child in children() if child not in before]
    assert len(mine) == 2
    os.kill(mine[0].pid, signal.SIGKILL)
    batch, failed = {"x": np.ones((2, 4), np.float32)}, 0
    for _ in range(6):
        try:
            np.testing.assert_array_equal(deployed.run(batch)[0], np.full((2, 3), 4, np.float32))
        except CandidateError as error:
            assert error.kind == "killed"
            failed += 1
    assert failed == 1


def test_its_processes_end_with_it(tmp_path: Path) -> None:
    before = children()
    deployed = artifact.load(packaged(tmp_path / "artifact"))
    assert len(children()) == len(before) + 2
    del deployed
    gc.collect()
    end = time.monotonic() + 10
    while len(children()) > len(before) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(children()) == len(before)


def test_one_that_does_not_load_is_told(tmp_path: Path) -> None:
    folder = packaged(tmp_path / "artifact")
    (folder / artifact.FILES / "weights.npy").unlink()
    with pytest.raises(CandidateError, match="No such file"):
        artifact.load(folder)
