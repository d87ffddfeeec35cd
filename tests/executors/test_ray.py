"""Studies on a real Ray cluster: a head that evaluates nothing, and two nodes."""

import json
import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import study
from tests.conftest import furnished
from tests.ray_cluster import VARIABLES, Cluster, cluster
from tuner.testing.fakes import Null

pytestmark = pytest.mark.slow
TWO = ("--num-cpus", "2")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with cluster() as started, pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        for name in ("one", "two"):
            started.start(name, *TWO, STORE=name)
        started.until_started("one", "two")
        yield started


def on(nodes: Cluster, *more: str) -> list[str]:
    return ["latency_ms=20", "executor=ray", f"executor.address={nodes.address}", *more]


def outcomes(folder: Path) -> list[dict[str, Any]]:
    records = map(json.loads, (folder / "out/optuna.journal").read_text().splitlines())
    return [json.loads(r["user_attr"]["outcome"]) for r in records if "outcome" in r.get("user_attr", {})]


def test_two_studies_at_once_find_what_one_finds_here_and_never_time_together(
    nodes: Cluster, shared: Path, tmp_path: Path
) -> None:
    """The nodes have caches of their own, so that samples and model go there and the artifacts come home."""
    space = (study.deploy(study.node(Null, ms=[1.0, 2.0])), "search_space.batch_size=[1,4]")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    folders = [furnished(tmp_path / name, shared) for name in ("a", "b")]
    own = f"executor.cache_dir={tmp_path}/$STORE"
    running = [study.process(folder, *on(nodes, own, *space)) for folder in folders]
    for process in running:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert "evaluating on 2 of 3 nodes" in err and "it offers no CPUs" in err
    spans: dict[str, list[tuple[float, float]]] = {}
    for folder in folders:
        assert study.result(folder)["champion"]["label"] == "null-1 · b4", "as here: tests/study/test_ahead.py"
        done = outcomes(folder)
        assert len(done) == 4
        assert [run.data.tags.get("node") for run in study.runs(folder)[1]].count(None) == 0
        for outcome in done:
            spans.setdefault(outcome["node"], []).extend(map(tuple, outcome["held"]))
    assert len(spans) == 2, "both nodes had trials"
    for held in map(sorted, spans.values()):
        assert all(end <= start for (_, end), (start, _) in pairwise(held))


def test_a_worker_its_watcher_and_a_node_may_die_and_then_the_head(nodes: Cluster, place: Path, tmp_path: Path) -> None:
    (tmp_path / "stage").mkdir()
    held = study.Held(tmp_path / "stage", 2)
    limits = (*held.space(1, 2, 3), "trial.timeout_s=100", "study=held")
    process = study.process(place, *on(nodes, *limits))
    held.until(4)
    assert len(outcomes(place)) == 2
    pids = [int(pid) for pid in (held.stage / "loaded").read_text().split()]
    os.kill(pids[-1], signal.SIGKILL)
    held.until(5)
    watcher = next(p for p in nodes.processes("one") if p.cmdline()[:1] == ["ray::_evaluated"])
    watcher.kill()
    held.until(6)
    nodes.kill("two")
    held.until(6)
    nodes.kill("head")
    _, err = process.communicate(timeout=240)
    assert process.returncode == 2, err
    assert "what is done is kept, and the same command goes on" in err.splitlines()[-1]
    done = outcomes(place)
    assert len(done) == 2
    held.go()
    assert study.tune(place, "latency_ms=20", *limits) == 0
    assert study.result(place, "held")["trials"]["total"] == 6
    assert outcomes(place)[:2] == done
    assert not [p for p in psutil.process_iter() if p.pid in pids and p.status() != psutil.STATUS_ZOMBIE]
