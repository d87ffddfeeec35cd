"""The examples do what they say, as somebody would run them."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import study
from tests.conftest import with_store

EXAMPLES = study.ROOT / "examples"
PACKAGE = EXAMPLES / "plugin_package"
RUNTIME = {"_target_": "tuner.plugins.backends.onnxruntime.OnnxRuntime"}
SHORT = ("trial.measure_s=0.1", "target.threads=1", "search_space.batch_size=[4]", "latency_ms=1000", "n_trials=2")


def run(*command: str, folder: Path, path: Sequence[Path] = (study.ROOT,), code: int = 0) -> str:
    """What the command prints, run in that folder; `path` is importable, and `code` what it ends with."""
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# --- a study from Python, and what it leaves


def test_what_the_example_asks_for_is_a_request(tmp_path: Path) -> None:
    told = run(str(EXAMPLES / "tune_my_module.py"), "target.threads=4096", folder=tmp_path, code=2)
    assert told.endswith("lower target.threads or start it on more\n")
    assert (tmp_path / "eval.npz").exists()


@pytest.mark.slow
def test_a_module_is_tuned_from_python(tmp_path: Path, shared: Path) -> None:
    with_store(tmp_path, shared, out="outputs")
    told = run(str(EXAMPLES / "tune_my_module.py"), *SHORT, study.deploy(RUNTIME), "cache_dir=cache", folder=tmp_path)
    assert "onnxruntime · b4" in told
    told = run(str(EXAMPLES / "load_an_artifact.py"), "outputs/my_net-cpu-001/champion", folder=tmp_path)
    assert "as when it was packed: True" in told


def test_a_result_is_read_and_its_artifact_loaded(place: Path) -> None:
    assert study.tune(place, "latency_ms=20", "search_space.batch_size=[4]") == 0
    told = run(str(EXAMPLES / "read_a_result.py"), "out/linear-cpu-001", folder=place)
    assert told.startswith("linear-cpu-001: ")
    assert "champion  null-1 · b4: 1.0" in told
    assert "null-2 · b4 complete" in told
    (place / "out/linear-cpu-001/champion").rename(place / "elsewhere")
    told = run(str(EXAMPLES / "load_an_artifact.py"), "elsewhere", folder=place)
    assert "null-1 · b4 takes {'x': (4, 4)}" in told
    assert "as when it was packed: True" in told
    assert "one sample: (1, 3)" in told


# --- plugins in a package of their own


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, as pip would have installed it by its pyproject."""
    folder = tmp_path_factory.mktemp("site")
    package = tomllib.loads((PACKAGE / "pyproject.toml").read_text())
    project = package["project"]
    for name in package["tool"]["setuptools"]["packages"]:
        (folder / name).symlink_to(PACKAGE / name)
    about = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((name, module),) = project["entry-points"]["tuner.plugins"].items()
    (about / "entry_points.txt").write_text(f"[tuner.plugins]\n{name} = {module}\n")
    return folder


@pytest.mark.slow
def test_its_plugins_pass_the_suite_that_is_shipped(site: Path, tmp_path: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(PACKAGE / "tests")]
    told = run("-m", "pytest", *options, folder=tmp_path, path=(site,))
    assert "skipped" not in told
    assert "16 passed" in told


def own(folder: Path) -> list[str]:
    """A command line that tunes with the plugins of the package alone."""
    rounded = {"_target_": "onnx_reference.RoundedWeights", "bits": 8}
    return study.overrides(
        folder,
        study.deploy({"_target_": "onnx_reference.Evaluator"}),
        "search_space.compress=" + study.literal([None, rounded]),
        "search_space.batch_size=[4]",
        "latency_ms=1000",
        "reference.onnx._target_=onnx_reference.Evaluator",
    )


def test_its_plugins_can_run_here(site: Path, tmp_path: Path) -> None:
    told = run("-m", "tuner.cli", "doctor", *own(tmp_path), folder=tmp_path, path=(site, study.ROOT))
    rows = [line.split() for line in told.splitlines()]
    assert ["backend", "reference", "yes"] in rows
    assert ["transform", "rounded8", "yes"] in rows


@pytest.mark.slow
def test_its_plugins_are_tuned(site: Path, tmp_path: Path, shared: Path) -> None:
    with_store(tmp_path, shared)
    run("-m", "tuner.cli", *own(tmp_path), folder=tmp_path, path=(site, study.ROOT))
    result = study.result(tmp_path)
    assert result["champion"]["label"] in ("reference · b4", "reference · rounded8 · b4")
    assert result["trials"]["failed"] == 0


@pytest.mark.slow
def test_the_plugins_of_the_pages_pass_the_suite(tmp_path: Path) -> None:
    for page in ("write-a-plugin.md", "test-a-plugin.md"):
        text = (study.ROOT / "docs" / page).read_text()
        for name, code in re.findall(r"```python\n# ([\w]+\.py)\n(.*?)```", text, flags=re.DOTALL):
            (tmp_path / name).write_text(code)
    told = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py", folder=tmp_path, path=(tmp_path,))
    assert "skipped" not in told
    assert "16 passed" in told


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="nothing to build it with")
def test_pip_installs_it_with_its_entry_point(tmp_path: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(tmp_path / "site")]
    run("-m", "pip", "install", *options, str(PACKAGE), folder=tmp_path)
    find = "from tuner import catalog, plugin; print([kind.__name__ for kind in catalog.members(plugin.Backend)])"
    assert "Evaluator" in run("-c", find, folder=tmp_path, path=(tmp_path / "site",))
