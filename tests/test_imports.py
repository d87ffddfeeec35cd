"""What a process of the engine has loaded: the parent no runtime, the help text nothing at all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import study

HEAVY = {"torch", "tvm", "onnx", "onnxruntime", "openvino", "nncf", "torch_pruning", "sklearn"}
DRAWING = {"jinja2", "matplotlib"}  # for the report, when the study has ended

RUN = """
import json, sys
from tuner.cli import main
code = main(sys.argv[1:])
print()
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def run(*arguments: str) -> tuple[int, set[str]]:
    """The exit code of a command line, and the packages that its process had loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=study.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    return code, set(loaded)


def test_help_loads_nothing() -> None:
    code, loaded = run("--help")
    assert code == 0
    assert not loaded & (HEAVY | {"hydra", "omegaconf", "mlflow", "optuna", "numpy", "rich", "pydantic", "psutil"})
    assert not loaded & DRAWING


@pytest.mark.slow
def test_a_study_loads_no_runtime_in_its_own_process(place: Path) -> None:
    code, loaded = run(*study.overrides(place, "latency_ms=20", "search_space.batch_size=[4]"))
    assert code == 0
    assert {"optuna", "mlflow", "hydra"} <= loaded
    assert not loaded & HEAVY


def test_the_default_request_is_read_without_a_runtime(tmp_path: Path) -> None:
    code, loaded = run("latency_ms=5", "target.threads=4096", f"out_dir={tmp_path}")
    assert code == 2
    assert not loaded & HEAVY


def test_a_wrong_request_loads_neither_mlflow_nor_a_runtime() -> None:
    code, loaded = run("latncy_ms=5")
    assert code == 2
    assert not loaded & (HEAVY | DRAWING | {"mlflow"})


def test_schedules_are_listed_without_hydra_or_mlflow(tmp_path: Path) -> None:
    code, loaded = run("schedule", "list", f"--state-dir={tmp_path}")
    assert code == 0
    assert "apscheduler" in loaded
    assert not loaded & (HEAVY | {"hydra", "mlflow", "optuna"})


def test_plugins_are_found_without_a_runtime() -> None:
    find = "from tuner import catalog, plugin as p; catalog.members(p.Backend), catalog.members(p.Transform)"
    script = f"{find}; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not {name.partition(".")[0] for name in loaded.split()} & HEAVY
