"""A model between an edge and a cloud: what a request takes from end to end, and which way is best."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx.reference
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests import fakes, graphs, study
from tests.study import Refused
from tuner import artifact
from tuner.cli import main
from tuner.goal import Goal
from tuner.measurement import Latency, Measurement
from tuner.study.ways import Link, Way, chosen, end_to_end

LINK = ["link.mbit_s=20", "link.rtt_ms=30"]
BOTH = ["target=cpu", "target.threads=1", "target.cloud=cpu", "target.cloud.threads=2"]
NUMBERS = some.floats(0, 1e6)
OFF = 0.08  # of an output: a cosine loses some thousandths


def latency(p95: float, off: float = 0.0) -> Latency:
    return Latency(p95 / 2, p95 * 0.9, p95, p95 * 2, (p95 - off, p95 + off))


def way(where: str, p95: float, drop: float = 0.0, off: float = 0.0) -> Way:
    return Way(where, None, None, measured=Measurement(latency_ms=latency(p95, off), accuracy_drop=drop))


def test_a_link_takes_its_round_trip_and_its_bits() -> None:
    assert Link(20, 30).ms(0) == 30
    assert Link(20, 30).ms(25_000) == pytest.approx(30 + 10), "200,000 bits at 20,000 a millisecond"


@given(some.floats(0.1, 1e6), NUMBERS, some.integers(0, 10**9), some.integers(0, 10**9))
def test_what_is_sent_at_once_pays_one_round_trip(mbit_s: float, rtt_ms: float, one: int, other: int) -> None:
    link = Link(mbit_s, rtt_ms)
    assert link.ms(one) + link.ms(other) - rtt_ms == pytest.approx(link.ms(one + other))


@given(NUMBERS, NUMBERS, NUMBERS)
def test_percentiles_of_parts_and_the_link_are_added(edge_ms: float, cloud_ms: float, link_ms: float) -> None:
    parts = [Measurement(latency_ms=latency(ms, ms / 10)) for ms in (edge_ms, cloud_ms)]
    total = end_to_end(parts, link_ms)
    assert total is not None
    for q in (50, 90, 95, 99):
        assert total.percentile(q) == pytest.approx(
            link_ms + sum(part.latency_ms.percentile(q) for part in parts if part.latency_ms)
        )
    assert total.ci95 == pytest.approx(tuple(link_ms + sign * (edge_ms + cloud_ms) for sign in (0.9, 1.1)))


def test_what_was_not_timed_has_no_end_to_end() -> None:
    assert end_to_end([Measurement(latency_ms=latency(1)), Measurement()], 3) is None


def test_the_least_within_the_limits_is_chosen_and_a_tie_goes_to_the_first() -> None:
    goal = Goal({"latency_ms": 5.0, "accuracy_drop": 0.01}, objective="latency")
    edge, cloud, cut = way("edge", 4), way("cloud", 3), way("cut", 2)
    assert chosen([edge, cloud, cut], goal) is cut
    assert chosen([edge, cloud, way("cut", 2, drop=0.02)], goal) is cloud
    assert chosen([edge, way("cloud", 3, off=0.5), way("cut", 2.9, off=0.5)], goal).where == "cloud"  # type: ignore[union-attr]
    assert chosen([way("edge", 6), Way("cloud", None, None)], goal) is None


@pytest.fixture
def files(place: Path) -> list[str]:
    """A network of nine nodes and samples that it labels itself, as a command line names them."""
    proto = graphs.images()
    onnx.save(proto, str(place / "net.onnx"))
    images = np.random.default_rng(0).normal(size=(120, 3, 8, 8)).astype(np.float32)
    scores = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": images})[0]
    np.savez(place / "eval.npz", x=images, label=scores.argmax(1))
    return ["model=onnx", f"model.path={place / 'net.onnx'}", f"dataset.path={place / 'eval.npz'}"]


def stepping(place: Path, files: list[str], *more: str) -> list[str]:
    """A split by the fakes: 1 ms a node on the edge, a tenth in the cloud."""
    line = study.overrides(
        place,
        *files,
        *BOTH,
        "dataset=npz",
        *study.PEAKS,
        "target.cloud.peak_tflops={f32:0.1}",
        "target.cloud.memory_gb_s=10",
        "trial.measure_s=0.1",
        "trial.timeout_s=30",
        "sampler=random",
        *(
            []
            if any(o.startswith("search_space.deploy") for o in more)
            else [study.deploy(study.node(fakes.Stepping, ms=1.0))]
        ),
        "search_space.batch_size=1",
        f"tracking.uri=sqlite:///{place / 'out/mlflow.db'}",
        "reference.onnx._target_=tests.fakes.Stepping",
        *more,
    )
    return ["split", *line]


def split(place: Path, name: str = "net-split-001") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "out" / name / "split.json").read_text())
    return found


def answered(folder: Path, inputs: dict[str, Any]) -> list[Any]:
    return artifact.load(folder).answer(inputs)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the cloud has two threads")
def test_the_best_of_edge_cloud_and_cuts_is_packaged(
    place: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """9 ms on the edge; 0.9 ms in the cloud, but 6.2 ms to send the input; behind the pooling a third of that."""
    assert main(stepping(place, files, "link.mbit_s=1", "link.rtt_ms=0", "cuts=1", "latency_ms=6")) == 0
    said, found = capsys.readouterr().out, split(place)
    assert found["verdict"] == "feasible" and found["best"] == "cut after p1"
    edge, cloud, cut = found["ways"]
    assert edge["end_to_end_ms"]["p50"] == pytest.approx(9, rel=0.02) and edge["link_ms"] == 0
    assert cloud["sent_bytes"] == 768 and cloud["link_ms"] == pytest.approx(8 * (768 + 16) / 1e3)
    assert cloud["end_to_end_ms"]["p50"] == pytest.approx(0.9 + cloud["link_ms"], rel=0.02)
    assert cut["sent_bytes"] == 256 and cut["link_ms"] == pytest.approx(8 * (256 + 16) / 1e3)
    for q in ("p50", "p95", "p99"):
        parts = cut["edge"]["latency_ms"][q] + cut["cloud"]["latency_ms"][q]
        assert cut["end_to_end_ms"][q] == pytest.approx(parts + cut["link_ms"])
    assert cut["accuracy"] == 1 and cut["accuracy_drop"] == 0
    assert "Best: cut after p1" in said and "as if both were slow in the same request" in said
    folder = place / "out/net-split-001"
    with np.load(place / "eval.npz") as samples:
        sent = answered(folder / "edge", {"x": samples["x"][:1]})
        scores = answered(folder / "cloud", {"p1": sent[0]})[0]
        assert scores.argmax(1) == samples["label"][:1]


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the cloud has two threads")
def test_a_link_that_alone_is_too_slow_spares_the_studies_and_a_miss_is_told(
    place: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(stepping(place, files, *LINK, "latency_ms=5")) == 3
    said, found = capsys.readouterr().out, split(place)
    assert (found["verdict"], found["best"], found["nearest_miss"]) == ("infeasible", None, "all on the edge")
    assert "None within latency_ms ≤ 5, accuracy_drop ≤ 0.01. Nearest: all on the edge (latency_ms 9.0" in said
    assert all("its link alone takes longer" in way["note"] for way in found["ways"][2:]) and len(found["ways"]) == 4
    assert not (place / "out/net-split-001/edge").exists()


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        ([], "tune split needs a model"),
        ([*BOTH[:2], *LINK], "target.cloud must be given"),
        ([*BOTH, LINK[0]], "link.rtt_ms must be given"),
        ([*BOTH, "link.mbit_s=0", LINK[1]], "link.mbit_s=0: must be a number of more than 0"),
        ([*BOTH, LINK[0], "link.rtt_ms=-1"], "link.rtt_ms=-1: must be a number of 0 or more"),
        ([*BOTH, LINK[0], "link.rtt_ms=soon"], "link.rtt_ms=soon: must be a number"),
        ([*BOTH, *LINK, "link.mbps=3"], "the link has link.mbit_s and link.rtt_ms"),
        ([*BOTH, *LINK, *LINK], "link.mbit_s=20 is given too"),
        ([*BOTH, *LINK, "cloud=cpu"], "the target in the cloud is target.cloud=cpu"),
        ([*BOTH, *LINK, "cuts=1.5"], "cuts=1.5: must be a whole number"),
        ([*BOTH, *LINK, "cuts=-1"], "cuts=-1: must be a number of 0 or more"),
        ([*BOTH[:2], "target.cloud=cpx", *LINK], "target.cloud=cpx: no such choice; did you mean cpu?"),
        ([*BOTH[:2], "target.cloud=cpu", "target.cloud.thread=2", *LINK], "did you mean target.cloud.threads?"),
        ([*BOTH[:2], "target.cloud=raspberry_pi5", *LINK], "target.cloud=raspberry_pi5: "),
        (["target=raspberry_pi5", *BOTH[2:], *LINK], "target=raspberry_pi5: "),
        ([*BOTH, *LINK, "objective=throughput"], "objective=throughput: tune split looks for the least latency"),
        ([*BOTH, *LINK, "scenario=Offline"], "scenario=Offline: tune split answers one request at a time"),
        ([*BOTH, *LINK, "compile_only=true"], "takes no compile_only"),
        ([*BOTH, *LINK, "watch=true"], "takes no watch"),
        ([*BOTH, *LINK, "-m"], "takes no -m"),
        ([*BOTH, *LINK, "latncy_ms=5"], "did you mean latency_ms?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_told_with_its_mend(arguments: list[str], mend: str, refused: Refused) -> None:
    assert mend in refused("split", *arguments)


def test_a_model_without_a_narrow_place_is_refused(place: Path, refused: Refused) -> None:
    one_layer = study.overrides(place, *BOTH[:2], "target.cloud=cpu", *LINK)
    said = refused("split", *(o for o in one_layer if not o.startswith("cache_dir=")), written=True)
    assert "model linear: no place in its graph is as narrow" in said and "cuts=0 compares" in said


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the cloud has two threads")
def test_parts_that_lose_too_much_together_are_tuned_again(place: Path, files: list[str]) -> None:
    """The head is like enough to its float part, and yet the tail takes some of what it sends for another class."""
    backends = [study.node(fakes.Stepping, ms=1.0), study.node(fakes.Stepping, ms=0.5, off=OFF)]
    more = ["link.mbit_s=1", "link.rtt_ms=0", "cuts=1", "accuracy_drop=0.004", study.deploy(*backends)]
    assert main(stepping(place, files, *more)) == 0
    cut = split(place)["ways"][2]
    assert cut["edge"]["study"] == "cut1-head-again" and cut["accuracy_drop"] == 0
    studies = place / "out/net-split-001/studies"
    assert {path.name for path in studies.glob("cut1-*")} == {
        f"cut1-{part}{again}" for part in ("head", "tail") for again in ("", "-again")
    }


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the cloud has two threads")
def test_a_network_is_split_with_runtimes_as_they_are(place: Path, files: list[str]) -> None:
    quick = ["timeout_s=40", "n_trials=2", "trial.measure_s=0.2", *study.PEAKS, "cuts=1"]
    clouds = ["target.cloud.peak_tflops={f32:0.1}", "target.cloud.memory_gb_s=10"]
    where = [f"out_dir={place / 'out'}", f"cache_dir={place / 'cache'}"]
    wide = ["link.mbit_s=1e6", "link.rtt_ms=0"]  # so that the cut is tried
    assert main(["split", *files, *BOTH, *wide, *quick, *clouds, *where]) == 0
    found = split(place)
    _, _, cut = found["ways"]
    parts = cut["edge"]["latency_ms"]["p95"] + cut["cloud"]["latency_ms"]["p95"]
    assert cut["end_to_end_ms"]["p95"] == pytest.approx(parts + cut["link_ms"])
    studies = place / "out/net-split-001/studies"
    with np.load(place / "eval.npz") as samples:
        sent = answered(studies / cut["edge"]["study"] / "champion", {"x": samples["x"][:1]})
        scores = answered(studies / cut["cloud"]["study"] / "champion", {"p1": sent[0]})[0]
    assert scores.shape == (1, 4)
    best = next(way for way in found["ways"] if way["where"] == found["best"])
    for side in ("edge", "cloud"):
        assert (place / "out/net-split-001" / side / "manifest.json").exists() == (best[side] is not None)
