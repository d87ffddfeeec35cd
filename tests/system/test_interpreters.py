"""Environments of plugins whose libraries fit nobody else's: made once, whole or not at all, by pip and offline."""

import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests import outside, study
from tests.fakes import Secluded
from tuner import artifact
from tuner.build.available import unavailable
from tuner.build.store import Store
from tuner.deploy.code import needed, requirements
from tuner.errors import CandidateError, RequestError
from tuner.proxy import environment_of
from tuner.system import interpreters
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.testing.fakes import Null

WANTED = Secluded.requirements
CPU = Target("cpu", "cpu", threads=1)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which pip can install tiny-runtime 1.0."""
    folder = tmp_path_factory.mktemp("wheels")
    about = "tiny_runtime-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_runtime-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_runtime.py", "")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-runtime\nVersion: 1.0\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", f"tiny_runtime.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    return folder


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of environments, and why the one in it was not finished."""
    folder = tmp_path_factory.mktemp("kept") / "environments"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RequestError) as caught:
        patch.setenv("PIP_NO_INDEX", "1")
        interpreters.install(folder, WANTED, folder.with_name("log"))
    assert interpreters.find(folder, WANTED) is None
    assert (folder_of(folder) / "bin/python").exists()
    return folder, str(caught.value)


@pytest.fixture(scope="module")
def kept(torn: tuple[Path, str], wheels: Path) -> Path:
    """The same folder with the environment whole."""
    folder, _ = torn
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(wheels))
        interpreters.install(folder, WANTED, folder.with_name("log"))
    return folder


def test_what_pip_cannot_have_is_a_wrong_request(torn: tuple[Path, str]) -> None:
    folder, sentence = torn
    assert "pip install" in sentence
    assert "ERROR: No matching distribution found for tiny-runtime<2" in sentence
    assert sentence.endswith(f"the log is {folder.with_name('log')}")


def test_it_is_found_by_its_requirements_in_any_order(kept: Path) -> None:
    found = interpreters.find(kept, WANTED)
    assert found is not None
    assert found.interpreter.is_relative_to(kept)
    assert (found.requirements, found.locked) == (WANTED, ("tiny-runtime==1.0",))
    assert interpreters.find(kept, ("tiny-runtime",)) is None
    assert interpreters.find(kept, ("b", "a")) is None
    assert "Successfully installed tiny-runtime-1.0" in kept.with_name("log").read_text()


def test_it_is_made_once_and_not_asked_of_pip_again(kept: Path) -> None:
    again = kept.with_name("again")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        made = set(pool.map(lambda _: interpreters.install(kept, WANTED, again), range(3)))
    assert made == {interpreters.find(kept, WANTED)}
    assert not again.exists()


def test_versions_are_those_of_the_environment(kept: Path) -> None:
    launcher = Launcher(1000, environments=kept)
    assert launcher.versions(["tiny-runtime"]) == {"tiny-runtime": "absent"}
    secluded = launcher.with_libraries_of(Secluded()).versions(["tiny-runtime", "numpy"])
    assert secluded == {"tiny-runtime": "1.0", **launcher.versions(["numpy"])}


def test_without_it_a_launcher_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        CandidateError,
        match="a Python environment of its own with tiny-runtime<2, and there is none: tune doctor --install secluded",
    ):
        Launcher(1000, environments=tmp_path).with_libraries_of(Secluded())


def test_the_cache_knows_them(kept: Path) -> None:
    (entry,) = (entry for entry in Store(kept.parent).entries() if entry.path == folder_of(kept))
    assert entry.stage == "environments"
    assert entry.size_mb > 1


@pytest.mark.slow
def test_a_study_runs_a_plugin_in_its_environment(place: Path, kept: Path) -> None:
    space = study.deploy(study.node(Secluded, ms=1.0))
    settings = (space, "search_space.batch_size=[4]", f"cache_dir={kept.parent}")
    assert study.tune(place, *settings) == 0
    result = study.result(place)
    assert result["left_out"] == {}
    assert result["champion"]["label"] == "secluded · b4"
    manifest = json.loads((place / "out/linear-cpu-001/champion" / artifact.MANIFEST).read_text())
    assert manifest["versions"]["tiny-runtime"] == "1.0"
    assert manifest["environment"]["interpreter"] == str(folder_of(kept) / "bin/python")
    assert manifest["environment"]["locked"] == ["tiny-runtime==1.0"]
    answers_anywhere(place / "out/linear-cpu-001/champion")


def answers_anywhere(champion: Path) -> None:
    """In this process its runtime is not there, so another one answers; without the environment it is told."""
    with np.load(champion / artifact.EXAMPLE) as example:
        (answer,) = artifact.load(champion).run({"x": example["input:x"]})
        np.testing.assert_array_equal(answer, example["output:0"])
    manifest = json.loads((champion / artifact.MANIFEST).read_text())
    manifest["environment"]["interpreter"] = "/nowhere/environments/0123/bin/python"
    (champion / artifact.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(
        RequestError, match=f"{champion}: it needs .* and there is none: tune doctor --install secluded"
    ):
        artifact.load(champion)


@pytest.mark.slow
def test_a_study_makes_it_where_it_is_asked_to(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    space = study.deploy(study.node(Secluded, ms=1.0), study.node(Null, ms=2.0))
    settings = (space, "search_space.batch_size=[4]", "install=auto", f"cache_dir={tmp_path / 'cache'}")
    assert study.tune(place, *settings) == 0
    assert "No matching distribution found for tiny-runtime<2" in study.result(place)["left_out"]["secluded"]


def test_a_plugin_whose_environment_is_not_there_says_so(tmp_path: Path, kept: Path) -> None:
    def reasons(environments: Path) -> list[str]:
        launcher = Launcher(1000, environments=environments)
        return list(unavailable([Secluded()], CPU, Store(tmp_path / "store"), launcher, tmp_path / "log").values())

    assert "a Python environment of its own with tiny-runtime<2, and there is none" in reasons(tmp_path)[0]
    assert reasons(kept) == []


def test_an_environment_that_was_made_again_otherwise_is_told_of(kept: Path, tmp_path: Path) -> None:
    def loaded_from(*locked: str) -> Path | None:
        measured = {"interpreter": str(folder_of(kept) / "bin/python"), "locked": locked}
        (tmp_path / artifact.MANIFEST).write_text(json.dumps({"environment": measured}))
        found = environment_of(tmp_path, Secluded(), folder_of(kept) / "bin/python")
        return None if found is None else found.interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loaded_from("tiny-runtime==1.0") == folder_of(kept) / "bin/python"
    with pytest.warns(UserWarning, match="measured with other==2, tiny-runtime==0.9, .* again with tiny-runtime==1.0"):
        loaded_from("tiny-runtime==0.9", "other==2")


def test_a_distribution_in_anothers_place_goes_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "fast_thing_gpu-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fast-thing-gpu\nVersion: 1.0\n")
    (about / "top_level.txt").write_text("fast_thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Secluded, "libraries", ("fast-thing",))
    assert Launcher(1000).versions(["fast-thing"]) == {"fast-thing-gpu": "1.0"}
    other = Launcher(1000, instead="fast-thing-gpu==2.0")
    assert other.requirements_of(Secluded()) == ("tiny-runtime<2", "fast-thing-gpu==2.0")
    assert requirements(needed(["fast-thing"]), {"fast-thing-gpu": "1.0"}) == ["fast-thing-gpu==1.0"]


HERMIT = """
from dataclasses import dataclass
from typing import ClassVar
from tests.fakes import Secluded

@dataclass(frozen=True)
class Hermit(Secluded):
    requirements: ClassVar[tuple[str, ...]] = ("tiny-runtime==1.0",)
"""
ANSWERED = """
import sys
from pathlib import Path
import mlflow
import numpy as np
from tuner import artifact
from tuner.errors import RequestError
champion = Path(sys.argv[1])
with np.load(champion / artifact.EXAMPLE) as example:
    inputs, right = {"x": example["input:x"]}, example["output:0"]
try:
    (answer,) = artifact.load(champion).run(inputs)
except RequestError as error:
    sys.exit(str(error))
assert "tiny_runtime" not in sys.modules
mlflow.set_tracking_uri(sys.argv[2])
registered = mlflow.pyfunc.load_model("models:/linear-cpu@champion").predict(inputs)
assert (answer == right).all() and (registered == right).all()
"""


@pytest.mark.slow
def test_a_plugin_from_outside_goes_through_a_whole_study_in_its_environment(tmp_path: Path, wheels: Path) -> None:
    outside.install(tmp_path / "site", "hermitage", HERMIT)
    paths = os.pathsep.join([str(tmp_path / "site"), str(study.ROOT)])
    variables = os.environ | {"PYTHONPATH": paths, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}

    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], env=variables, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    def doctor(name: str) -> subprocess.CompletedProcess[str]:
        return ran("-m", "tuner.cli", "doctor", "--install", name, f"cache_dir={tmp_path / 'cache'}")

    wrong = doctor("hermits")
    assert (wrong.returncode, wrong.stderr) == (2, "tune: --install hermits: no such choice; did you mean hermit?\n")
    assert not (tmp_path / "cache").exists()
    made = doctor("hermit")
    assert made.returncode == 0, made.stderr
    assert "hermit has its Python environment: " in made.stdout
    kept = interpreters.find(tmp_path / "cache/environments", ("tiny-runtime==1.0",))
    assert kept is not None and kept.locked == ("tiny-runtime==1.0",)

    space = "search_space.deploy=[{backend:{_target_:hermitage.Hermit,ms:1.0}}]"
    tuned = ran("-m", "tuner.cli", *study.overrides(tmp_path, space, "search_space.batch_size=[4]", "promote=auto"))
    assert tuned.returncode == 0, tuned.stderr
    result = study.result(tmp_path)
    assert result["champion"]["candidate"]["backend"]["_target_"] == "hermitage.Hermit"
    assert result["registered"]["champion"], "promoted"
    champion, uri = str(tmp_path / "out/linear-cpu-001/champion"), f"sqlite:///{tmp_path / 'out/mlflow.db'}"
    answered = ran("-c", ANSWERED, champion, uri)
    assert answered.returncode == 0, answered.stderr
    shutil.rmtree(tmp_path / "cache/environments")
    told = ran("-c", ANSWERED, champion, uri).stderr
    assert "it needs a Python environment of its own with tiny-runtime==1.0, and there is none" in told
    assert told.endswith("tune doctor --install hermit\n")


def folder_of(environments: Path) -> Path:
    """The only environment there."""
    (folder,) = (path for path in environments.iterdir() if path.is_dir())
    return folder
