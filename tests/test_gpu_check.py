"""`make gpu-check` where there is no GPU: the same way on the CPU, or a refusal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def checked(out: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu_check", str(out), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=900, check=False
    )


def test_without_a_gpu_it_says_what_it_looked_for(tmp_path: Path) -> None:
    done = checked(tmp_path / "out", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr.startswith("gpu_check: looked for one of a10, a100, ") and "h200" in done.stderr
    assert "--dry-run goes the same way on the CPU" in done.stderr
    assert "--steps: facs is none of" in checked(tmp_path / "out", "--steps=facs").stderr


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine
def test_every_step_goes_the_same_way_on_the_cpu(tmp_path: Path) -> None:
    done = checked(tmp_path, "--dry-run", "--minutes=14")
    found = json.loads((tmp_path / "gpu_cpu.json").read_text())
    assert done.returncode == 1, "the tests of a GPU fail without one"
    assert found["dry_run"] and found["facts"]["problem"] == "this machine has no nvidia-smi"
    assert "none of the GPUs" in str(found["tests"]["gpu"]["wrong"]) and found["tests"]["contract"]["passed"]
    for study in ("resnet50", "bert_base"):
        assert found[study]["ok"] and found[study]["result"]["champion"] and found[study]["clock"]["ok"], found[study]
    assert (tmp_path / "studies.tar.gz").exists()
