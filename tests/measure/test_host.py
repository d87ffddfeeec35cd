"""What a worker says of its own memory, in processes of their own: the most that a process has had never falls."""

import subprocess
import sys

PARENT = "import os, sys; had = b'1' * 400_000_000; os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
CHILD = """
from types import SimpleNamespace
from tuner.measure import host

host.hosted = lambda: SimpleNamespace(hardware=SimpleNamespace(memory_mb=lambda: 7000.0))
before = host.memory_mb()
held = b"1" * 200_000_000
most = host.memory_mb()
del held
print(before, most, host.memory_mb())
"""


def test_memory_is_the_most_of_this_process_and_of_the_device_and_not_of_who_started_it() -> None:
    done = subprocess.run([sys.executable, "-c", PARENT, CHILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, most, after = (float(megabytes) - 7000 for megabytes in done.stdout.split())
    assert 0 < before < 400, "the process that started it had 400 MB"
    assert 180 < most - before < 220
    assert abs(after - most) < 20, "what was given back was had; Linux counts its pages in lots"
