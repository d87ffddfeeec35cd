"""What calls a torch module keeps to the cores that it was given, in whatever thread it is called."""

import os
import subprocess
import sys

ASKED = """
import ctypes
import re
import threading
from pathlib import Path
import numpy as np
import torch
from tuner.forms.torch import TorchSession
from tuner.target import Target
openmp = ctypes.CDLL(re.search(r"\\S+libi?g?omp\\S*", Path("/proc/self/maps").read_text())[0])
session = TorchSession(lambda x: x, ["x"], "f32", Target("cpu", "cpu", threads=1))
told = []
def called():
    before = openmp.omp_get_max_threads()
    session.run({"x": np.zeros(3, np.float32)})
    told.append((before, openmp.omp_get_max_threads()))
torch.set_num_threads(1)  # as loading does, in this thread
thread = threading.Thread(target=called)
thread.start()
thread.join()
print(told)
"""


def test_a_replicas_thread_has_the_replicas_cores_and_not_all() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED], env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("[(2, 1)]\n", 0), done.stderr
