"""The bad inputs of `benchmarks/bad_inputs` that a command line alone makes: each in a process of its own."""

import subprocess
import sys

import pytest

from benchmarks.bad_inputs.table import KINDS
from tests import study


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["command line", "hydra", "numbers", "names"])
def test_each_is_refused_in_a_sentence_that_names_the_key_and_leaves_nothing(kind: str) -> None:
    # it forks, and this process may have threads whose locks a child would wait for
    command = [sys.executable, "-m", "benchmarks.bad_inputs", kind]
    tried = subprocess.run(command, cwd=study.ROOT, capture_output=True, text=True, check=False)
    count = len(KINDS[kind])
    assert f"{count} of {count} are right" in tried.stdout, tried.stdout + tried.stderr
