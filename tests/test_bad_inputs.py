"""The bad inputs of `benchmarks/bad_inputs` that a command line alone makes: each in a process of its own."""

from pathlib import Path

import pytest

from benchmarks.bad_inputs import files
from benchmarks.bad_inputs.__main__ import tried
from benchmarks.bad_inputs.table import KINDS


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["command line", "hydra", "numbers", "names"])
def test_each_is_refused_in_a_sentence_that_names_the_key_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    files.write(tmp_path / "good")
    ends = {line: (tried(line, tmp_path / "good", tmp_path / "tried"), names) for line, names in KINDS[kind]}
    assert not {line: faults for line, (ended, names) in ends.items() if (faults := list(ended.faults(names)))}
