"""What goes to another machine, and what is refused before anything does."""

import contextlib
import importlib.metadata
import importlib.util
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest

from tests.servers import free_port
from tests.study import Refused, overrides
from tuner.candidate import Candidate
from tuner.errors import CandidateError, Kind, RequestError
from tuner.executors import ray_connection, ray_driver, staging
from tuner.executors.base import NodeReport
from tuner.executors.parcel import archive, packed, restore, unpacked
from tuner.executors.ray import Ray, report
from tuner.executors.ray_driver import Node
from tuner.executors.ray_node import Facts
from tuner.plugins.conversions.torch_to_onnx import TorchToOnnx
from tuner.request import compose
from tuner.study.usable import needed
from tuner.system.worker import Worker
from tuner.target import Target
from tuner.testing.fakes import Null


@dataclass(frozen=True)
class Thing:
    folder: Path
    elsewhere: Path


def test_a_path_below_the_root_is_set_below_the_other_one(tmp_path: Path) -> None:
    thing = Thing(tmp_path / "here/float/abc", Path("/usr/lib"))
    data, places = packed({"a": thing, "again": thing.folder}, tmp_path / "here")
    assert places == ["float/abc"]
    there = unpacked(data, lambda relative: tmp_path / "there" / relative)
    assert there["a"] == Thing(tmp_path / "there/float/abc", Path("/usr/lib"))


def test_a_folder_or_a_file_arrives_whole_and_the_first_to_arrive_stays(tmp_path: Path) -> None:
    (tmp_path / "one/deep").mkdir(parents=True)
    (tmp_path / "one/deep/file").write_text("first")
    restore(archive(tmp_path / "one"), tmp_path / "x/copy")
    restore(archive(tmp_path / "one/deep"), tmp_path / "x/copy")
    restore(archive(tmp_path / "one/deep/file"), tmp_path / "x/file")
    assert (tmp_path / "x/copy/deep/file").read_text() == (tmp_path / "x/file").read_text() == "first"
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["copy", "file"]


def test_the_code_that_is_shipped_works_without_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, code = tmp_path / "mine", tmp_path / "code"
    for folder in (mine / "package", mine / "venv/lib", code):
        folder.mkdir(parents=True)
    (mine / "package/part.py").write_text("answer = 42\n")
    (mine / "venv/pyvenv.cfg").write_text("")
    (mine / "venv/lib/other.py").write_text("")
    monkeypatch.chdir(mine)
    staging.stage(code)
    assert not (code / "venv").exists()
    program = "import package.part, tuner.plugins.backends.eager as e, tuner.executors.ray_node; print(e.__file__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=code, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(code / "tuner/plugins/backends/eager.py"), done.stderr


def test_more_than_code_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "huge.py").open("wb") as file:
        file.truncate(30_000_000)
    (tmp_path / "code").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=r"executor\.runtime_env: .* more than 20 MB"):
        staging.stage(tmp_path / "code")


def test_an_address_that_nobody_answers_is_refused(tmp_path: Path, refused: Refused) -> None:
    if importlib.util.find_spec("ray") is None:
        expected = "executor=ray needs Ray; pip install 'inference-tuner[ray]'"
    else:
        expected = "nothing answers there"
    kept = [o for o in overrides(tmp_path) if not o.startswith("cache_dir=")]
    assert expected in refused(*kept, "executor=ray", f"executor.address=127.0.0.1:{free_port()}")


HERE = {"eager": {"torch": "2.11.0", "python": "3.11.7"}, "iree": {"iree": "3.1", "python": "3.11.7"}}


def _node(name: str, versions: dict[str, dict[str, str]], device: str = "Xeon, 2 cores", **unable: str) -> Node:
    return Node(name, "10.0.0.2", 8, Facts(name, device, "", versions, unable, True))


def test_a_node_that_differs_from_here_is_left_out_in_one_sentence() -> None:
    ours = Facts("here", "Xeon, 2 cores", "", HERE, {"tvm": "not installed"}, True)
    older = {label: {**versions, "python": "3.12.1"} for label, versions in HERE.items()}
    nodes = {
        "alike": (_node("alike", HERE, tvm="not installed"), None),
        "python": (_node("python", older), "eager: python is 3.12.1 there and 3.11.7 here; install the same"),
        "bare": (_node("bare", {}, eager="torch does not import", iree="no iree"), "eager: torch does not import"),
        "other": (_node("other", HERE, "EPYC, 8 cores"), "two kinds of machine are never compared"),
        "silent": (Node("silent", "10.0.0.9", 8, None, "it does not answer"), "it does not answer"),
    }
    for node, sentence in nodes.values():
        refusal = report(node, ours, shared=False).refusal
        assert (refusal is None) if sentence is None else (refusal is not None and sentence in refusal)


def test_a_node_whose_disk_is_full_is_dropped_and_its_trial_goes_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    trial = ray_driver._Submitted(Candidate((), Null(), 1), None, math.inf)
    cluster = ray_driver._Cluster(names={"a": "one", "b": "two"}, trials={1: trial})
    again: list[int] = []
    monkeypatch.setattr(ray_driver, "_cluster", cluster)
    monkeypatch.setattr(ray_driver, "_launch", again.append)
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": node, "Alive": True} for node in "ab"])
    monkeypatch.setattr(ray, "wait", lambda references, **_: (references, []))
    monkeypatch.setattr(ray, "get", lambda node: (node, "its disk is full"))
    cluster.flying["a"] = 1
    assert ray_driver.finished(0.0) == ([], 1, {"one": "its disk is full"})
    assert again == [1]
    cluster.flying["b"] = 1
    with pytest.raises(RequestError, match="no node that evaluated can go on; two: its disk is full"):
        ray_driver.finished(0.0)


def test_a_device_that_only_the_nodes_have_is_told_as_theirs() -> None:
    absent = Facts("here", None, "no such device", {}, {}, True)
    refusal = report(_node("far", HERE, "NVIDIA A100"), absent, shared=False).refusal
    assert refusal == "it has NVIDIA A100, and this machine has not: start the study on such a node"


@dataclass(frozen=True)
class Surveyed(Ray):
    """A cluster of a node with four CPUs and one with two, whose driver fails so."""

    fails: ClassVar[CandidateError]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Worker]:
        def run_for(*_: object) -> None:
            raise self.fails

        yield cast(Worker, SimpleNamespace(run_for=run_for))

    def _reports(self, *_: object) -> list[tuple[Node, NodeReport]]:
        return [
            (Node(name, "", cpus, None), NodeReport(name, "Xeon", cpus, {}, None))
            for name, cpus in {"large": 4, "small": 2}.items()
        ]


def test_a_node_with_too_few_cpus_is_left_out_with_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    with Surveyed(cpus=3).open(Target("cpu", "cpu"), [], tmp_path, said.append) as trials:
        assert (trials.nodes, trials.capacity) == (1, 1)
    assert "left out node small: it has 2 of executor.cpus=3" in said
    with (
        pytest.raises(RequestError, match="no node that could evaluate has so many"),
        Surveyed(cpus=5).open(Target("cpu", "cpu"), [], tmp_path, said.append),
    ):
        pass


@pytest.mark.parametrize(("kind", "gone"), [("crash", True), ("timeout", True), ("error", False)])
def test_a_cluster_is_gone_where_nobody_answers_and_not_where_something_is_full(
    kind: Kind, gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Surveyed, "fails", CandidateError(kind, "ObjectStoreFullError: full"), raising=False)
    with Surveyed().open(Target("cpu", "cpu"), [], tmp_path, print) as trials, pytest.raises(RequestError) as refusal:
        trials.finished()
    assert "ObjectStoreFullError: full" in str(refusal.value) and ("the cluster is gone" in str(refusal.value)) == gone


def test_the_driver_knows_a_cluster_that_is_gone_from_one_that_is_full() -> None:
    ray = pytest.importorskip("ray")

    def failing(error: Exception) -> None:
        raise error

    for error in (ray.exceptions.RaySystemError("no GCS"), ConnectionError("closed")):
        with pytest.raises(CandidateError, match="crash: "):
            ray_driver.answered(failing, error)
    for full in (ray.exceptions.ObjectStoreFullError("full"), OSError("full"), MemoryError()):
        with pytest.raises(type(full)):
            ray_driver.answered(failing, full)


def test_what_a_node_must_have_alike_is_more_than_the_space_names(tmp_path: Path) -> None:
    request = compose.request(["model=digits_cnn", "dataset=digits", "search_space=quick", f"out_dir={tmp_path}"])
    labels = {plugin.label for plugin in needed(request)}
    assert labels > {plugin.label for plugin in request.space.plugins}
    assert {request.reference["torch"].label, TorchToOnnx().label} <= labels


def test_another_version_of_ray_or_python_is_told_with_both_sides() -> None:
    """By the words of the Ray that is installed."""
    utils = pytest.importorskip("ray._private.utils")
    with pytest.raises(RuntimeError) as mismatch:
        utils.check_version_info({"ray_version": "2.9.0", "python_version": "3.9.1"}, "10.0.0.1:6379")
    here = importlib.metadata.version("ray")
    sentence = ray_connection.explained(mismatch.value)
    assert sentence.startswith("it runs Ray 2.9.0 on Python 3.9.1, this machine Ray " + here)
    assert sentence.endswith("install the same versions on both")
