"""Registered champions in a real MLflow store: what loads, who is champion, and how that came."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from tests.conftest import with_store
from tests.serve.serving import HEADER_LENGTH, encoded, identity_of
from tests.serve.serving import serving as tune_serving
from tests.study import ROOT
from tuner import artifact
from tuner.candidate import Candidate
from tuner.cli import main
from tuner.deploy import mlflow_model
from tuner.errors import RequestError
from tuner.request.tracking import default_uri
from tuner.target import Target
from tuner.testing.fakes import CENTRES, CLASSES, FEATURES, INPUTS, WEIGHTS, Null
from tuner.tracking.registry import FilesGone, Registry, registered_name
from tuner.tracking.tracker import Tracker

NAME = "linear-cpu"
CANDIDATE = Candidate((), Null(0.1), 4)


def saving(champion: Path, record: dict[str, Any]) -> Callable[[Model, Path], None]:
    return partial(mlflow_model.save, champion, record, {"tests.fakes"})


def packaged(folder: Path) -> Path:
    """A champion folder as a study leaves it."""
    champion = folder / "champion"
    (champion / artifact.FILES).mkdir(parents=True)
    np.save(champion / artifact.FILES / WEIGHTS, CENTRES.T)
    artifact.write_manifest(champion, CANDIDATE, Target("cpu", "cpu", threads=1), INPUTS, {})
    batch = np.ones((CANDIDATE.batch_size, FEATURES), np.float32)
    np.savez(champion / artifact.EXAMPLE, **{"input:x": batch, "output:0": batch @ CENTRES.T})
    return champion


@pytest.fixture
def uri(place: Path) -> str:
    return default_uri(place / "out")


@pytest.fixture
def registry(uri: str) -> Registry:
    return Registry(uri)


@pytest.fixture
def register(uri: str, registry: Registry, tmp_path: Path) -> Callable[[], str]:
    """Registers one more version."""
    champion = packaged(tmp_path)
    run_id = Tracker(uri, "tests", "mine").run_id
    return lambda: registry.register(
        NAME, run_id, saving(champion, {"accuracy": 1.0}), tmp_path, {"study": "mine"}, "!"
    )


@pytest.fixture
def versions(uri: str) -> list[str]:
    """Three versions, made the cheap way: nothing loads them."""
    client = MlflowClient(tracking_uri=uri)
    client.create_registered_model(NAME, {"registered_by": "inference-tuner"}, "Sorts points.")
    return [str(client.create_model_version(NAME, "file:///nowhere").version) for _ in range(3)]


def test_a_champion_that_came_meanwhile_keeps_its_place(
    registry: Registry, versions: list[str], tmp_path: Path
) -> None:
    assert registry.promote_after(None, NAME, "1", "study a", "there was no champion")
    assert not registry.promote_after(None, NAME, "2", "study b", "there was no champion")
    assert registry.champion(NAME) == "1" and len(registry.history(NAME)) == 1
    assert registry.promote_after("1", NAME, "2", "study b", "better than version 1")
    with pytest.raises(FilesGone):
        registry.fetch(NAME, "2", tmp_path)


LOAD = """
import sys
import mlflow.pyfunc, numpy as np
model = mlflow.pyfunc.load_model("models:/linear-cpu@candidate")
import tuner
assert sys.argv[1] not in tuner.__file__, "the tuner came with the model"
points = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
by_name, plain = model.predict({"x": points}), model.predict(points)
np.testing.assert_array_equal(by_name, plain)
expected = points @ (4 * np.eye(3, 4, dtype=np.float32)).T
np.testing.assert_allclose(by_name, expected, rtol=1e-6)
example = model.input_example
assert model.predict(example).shape == (1, 3)
for bad in ({"y": points}, {"x": points[:0]}, {"x": points[:, :2]}):
    try:
        model.predict(bad)
    except Exception as error:
        print(type(error).__name__)
print(model.metadata.signature)
"""


@pytest.mark.slow
def test_a_version_loads_by_its_alias_and_answers_any_number_of_samples(
    uri: str, register: Callable[[], str], tmp_path: Path
) -> None:
    assert register() == "1"
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(ROOT)], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.endswith(("Exception", "Error"))]) == 3
    assert "'x': Tensor('float32', (-1, 4))" in done.stdout
    assert f"Tensor('float32', (-1, {CLASSES}))" in done.stdout


@pytest.mark.slow
def test_mlflow_serves_it(uri: str, register: Callable[[], str], tmp_path: Path) -> None:
    register()
    arguments = ["models", "serve", "--model-uri", "models:/linear-cpu@candidate", "--env-manager", "local"]
    points = np.random.default_rng(0).normal(size=(9, FEATURES)).astype(np.float32)
    with serving(arguments, tmp_path, {"MLFLOW_TRACKING_URI": uri}) as address:
        for asked in ({"inputs": {"x": points.tolist()}}, {"inputs": points.tolist()}):
            content = json.dumps(asked).encode()
            request = urllib.request.Request(f"{address}/invocations", content, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                np.testing.assert_allclose(json.load(answer)["predictions"], points @ CENTRES.T, rtol=1e-5)


@pytest.mark.slow
def test_tune_serve_answers_with_it(uri: str, register: Callable[[], str], tmp_path: Path) -> None:
    register()
    points = np.random.default_rng(0).normal(size=(3, FEATURES)).astype(np.float32)
    body, headers = encoded({"x": points})
    for name in ("models:/linear-cpu@candidate", "models:/linear-cpu/1"):
        with tune_serving(name, f"tracking.uri={uri}", "--quiet", log=tmp_path / "server.log") as served:
            answer = requests.post(served.infer, body, headers=headers, timeout=30)
            first = identity_of(answer.content, answer.headers[HEADER_LENGTH])
            np.testing.assert_allclose(first, (points @ CENTRES.T)[:, 0], rtol=1e-5)


@pytest.mark.slow
def test_a_tracking_server_is_a_registry_too(tmp_path: Path, shared: Path) -> None:
    with_store(tmp_path, shared)
    arguments = ["server", "--backend-store-uri", f"sqlite:///{tmp_path / 'out/mlflow.db'}"]
    arguments += ["--artifacts-destination", str(tmp_path / "artifacts")]
    champion = packaged(tmp_path)
    with serving(arguments, tmp_path, {}) as address:
        registry, tracker = Registry(address), Tracker(address, "tests", "mine")
        for _ in range(2):
            version = registry.register(NAME, tracker.run_id, saving(champion, {}), tmp_path, {"study": "mine"}, "!")
            registry.promote(NAME, version, "me", "newer")
        assert registry.rollback(NAME, "me", "older") == ("2", "1")
        assert registry.aliases(NAME) == {"candidate": "2", "champion": "1"}
        folder = registry.fetch(NAME, "1", tmp_path / "fetched")
        assert artifact.read_manifest(folder / "champion").candidate == CANDIDATE
        assert registry.names() == [NAME]


@contextlib.contextmanager
def serving(arguments: list[str], folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of an `mlflow` command that serves, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", *arguments, "--port", str(port), "--workers", "1"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow looks for its own command there
    variables = os.environ | {"PATH": path} | environment
    with (folder / "serve.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 120
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, (folder / "serve.log").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_version_says_where_it_comes_from_and_is_logged_once(
    uri: str, registry: Registry, register: Callable[[], str], tmp_path: Path
) -> None:
    version = register()
    client = MlflowClient(tracking_uri=uri)
    made = client.get_model_version(NAME, version)
    run = client.get_run(made.run_id)
    assert made.tags == {"study": "mine"} and made.status == "READY"
    (logged,) = run.outputs.model_outputs
    assert logged.model_id in made.source
    assert client.list_artifacts(made.run_id) == []
    assert registry.aliases(NAME) == {"candidate": "1"}
    folder = registry.fetch(NAME, version, tmp_path / "fetched")
    assert json.loads((folder / "record.json").read_text()) == {"accuracy": 1.0}
    assert artifact.read_manifest(folder / "champion").candidate == CANDIDATE
    requirements = (folder.parent / "requirements.txt").read_text().split()
    assert f"numpy=={np.__version__}" in requirements and len(requirements) == 2
    assert not any("torch" in line for line in requirements)
    assert {path.name for path in (folder.parent / "code").iterdir()} == {"tuner", "tests"}
    assert (folder.parent / "code/tuner/plugins/backends/onnxruntime.py").exists()


def test_a_new_version_takes_the_alias_candidate_and_leaves_the_champion(
    registry: Registry, register: Callable[[], str]
) -> None:
    first, second = register(), register()
    registry.promote(NAME, first, "me", "it was there first")
    assert (first, second) == ("1", "2")
    assert registry.aliases(NAME) == {"candidate": "2", "champion": "1"}
    assert registry.names() == [NAME]


def test_files_that_are_gone_are_told(registry: Registry, versions: list[str], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="linear-cpu version 2: its files cannot be had"):
        registry.fetch(NAME, versions[1], tmp_path)


def test_moves_are_recorded_with_who_when_and_why(uri: str, registry: Registry, versions: list[str]) -> None:
    registry.promote(NAME, "1", "ann", "the first")
    registry.promote(NAME, "2", "bob", "faster | and\nsmaller")
    assert registry.rollback(NAME, "cy", "it was not") == ("2", "1")
    assert [(m.version, m.what, m.who) for m in registry.history(NAME)] == [
        ("1", "promote", "ann"), ("2", "promote", "bob"), ("1", "rollback", "cy"),
    ]  # fmt: skip
    text = MlflowClient(tracking_uri=uri).get_registered_model(NAME).description
    assert text.startswith("Sorts points.") and text.count("| version |") == 1
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 4 and "cy" in rows[1] and "faster \\| and smaller" in rows[2]


def test_rollbacks_go_further_back_and_end(registry: Registry, versions: list[str]) -> None:
    for version in versions:
        registry.promote(NAME, version, "me", "")
    assert registry.rollback(NAME, "me", "") == ("3", "2")
    assert registry.rollback(NAME, "me", "") == ("2", "1")
    with pytest.raises(RequestError, match="no champion before version 1"):
        registry.rollback(NAME, "me", "")
    registry.promote(NAME, "3", "me", "")
    assert registry.rollback(NAME, "me", "") == ("3", "1")


def test_an_alias_moved_by_hand_is_a_move_like_others(uri: str, registry: Registry, versions: list[str]) -> None:
    registry.promote(NAME, "1", "me", "")
    client = MlflowClient(tracking_uri=uri)
    client.set_registered_model_alias(NAME, "champion", "3")
    assert registry.champion(NAME) == "3"
    registry.promote(NAME, "2", "me", "")
    assert [(m.version, m.what) for m in registry.history(NAME)][1:] == [("3", "by hand"), ("2", "promote")]
    assert registry.rollback(NAME, "me", "") == ("2", "3")
    client.set_registered_model_alias(NAME, "champion", "2")
    assert registry.rollback(NAME, "me", "") == ("2", "3")


def test_a_rollback_passes_over_a_version_that_was_deleted(uri: str, registry: Registry, versions: list[str]) -> None:
    for version in versions:
        registry.promote(NAME, version, "me", "")
    MlflowClient(tracking_uri=uri).delete_model_version(NAME, "2")
    assert registry.rollback(NAME, "me", "") == ("3", "1")


def test_a_name_that_mlflow_does_not_take() -> None:
    assert registered_name("a/b:c", "cpu") == "a_b_c-cpu"


# --- the commands


def test_promote_takes_the_candidate_and_says_so(
    uri: str, registry: Registry, versions: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MlflowClient(tracking_uri=uri).set_registered_model_alias(NAME, "candidate", "2")
    where = f"out_dir={place / 'out'}"
    assert main(["promote", where]) == 0
    assert "version 2 is the champion, it was none" in capsys.readouterr().out
    assert main(["promote", NAME, "version=3", "reason=seen it in production", where]) == 0
    assert registry.history(NAME)[-1].why == "seen it in production"
    assert registry.history(NAME)[-1].who
    assert main(["promote", NAME, "version=3", where]) == 0
    assert "version 3 is the champion already" in capsys.readouterr().out
    assert len(registry.history(NAME)) == 2
    assert main(["rollback", where]) == 0
    assert "version 2 is the champion again, it was 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["promote", "linear-gpu"], "linear-gpu: no such registered model; there are linear-cpu"),
        (["promote", "version=9"], "version=9: linear-cpu has 1, 2, 3"),
        (["promote"], "no version has the alias candidate; name one of 1, 2, 3: version=N"),
        (["promote", "a", "b"], "needs the name of one registered model; there are linear-cpu"),
        (["rollback"], "no champion before version None is left"),
        (["rollback", "version=1"], "tune promote takes a version"),
        (["promote", "out_dri=x"], "did you mean out_dir?"),
        (["promote", "tracking=server"], "tracking.uri must be given"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_promoted_is_told(
    arguments: list[str], told: str, versions: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, f"out_dir={place / 'out'}"]) == 2
    assert told in capsys.readouterr().err


def test_where_nothing_is_recorded_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promote", f"out_dir={tmp_path / 'out'}"]) == 2
    assert "no study has been recorded there" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
