"""The table of figures: what one entry more gives, from another package too, and what stands there already."""

import json
import math
import os
import subprocess
from pathlib import Path

import pytest

from tests import study
from tuner.figures import TABLE, Figure, columns
from tuner.goal import Goal
from tuner.measurement import Latency, Measurement

MEASURED = Measurement(
    Latency(1, 2, 3, 4, (2.5, 3.5)),
    8000.0,
    accuracy=0.75,
    accuracy_drop=0.125,
    size_mb=0.5,
    more={"tokens_per_s": 50.0},
)
TOKENS = Figure("tokens_per_s", "tokens per second", better="more")
PACKAGE = """
from tuner.figures import Figure

JITTER = Figure(
    "jitter", "p99 over p50", form=".3f", read=lambda m, _: m.latency_ms and m.latency_ms.p99 / m.latency_ms.p50
)
"""


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which another distribution with a figure is installed."""
    site = tmp_path_factory.mktemp("site")
    (site / "jittery.py").write_text(PACKAGE)
    installed = site / "jittery-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: jittery\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[tuner.plugins]\njittery = jittery\n")
    return os.environ | {"PYTHONPATH": str(site)}


def tuned(place: Path, outside: dict[str, str], *more: str) -> tuple[int, str, str]:
    process: subprocess.Popen[str] = study.process(place, *more, env=outside)
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    return process.returncode, out, err


def test_a_figure_of_another_package_is_limited_wanted_recorded_and_shown(place: Path, outside: dict[str, str]) -> None:
    space = ("search_space.batch_size=[4]", "latency_ms=20", "jitter=1000", "objective=jitter")
    code, out, err = tuned(place, outside, *space)
    assert code == 0, err
    assert "least jitter within latency_ms ≤ 20, accuracy_drop ≤ 0.01, jitter ≤ 1000" in err
    heading = next(line for line in out.splitlines() if "candidate" in line)
    assert heading.split()[-3:] == ["p99", "over", "p50"]
    result = study.result(place)
    latency = result["champion"]["latency_ms"]
    assert result["constraints"]["jitter"] == 1000
    assert result["objective"] == "jitter"
    parent, trials = study.runs(place)
    assert parent.data.metrics["champion_jitter"] == pytest.approx(latency["p99"] / latency["p50"], rel=1e-3)
    assert parent.data.params["limit_jitter"] == "1000.0"
    assert all(run.data.metrics["jitter"] >= 1 and run.data.metrics["excess_jitter"] < 0 for run in trials)
    assert "p99 over p50" in parent.data.tags["mlflow.note.content"]
    report = (place / "out/linear-cpu-001/report.html").read_text()
    assert "; the limit is 1000<" in report
    assert f'data-name="p99 over p50">{latency["p99"] / latency["p50"]:.3f}' in report


def test_a_limit_on_a_figure_of_another_package_is_checked(place: Path, outside: dict[str, str]) -> None:
    code, _, err = tuned(place, outside, "jitter=-1")
    assert (code, err) == (2, "tune: jitter=-1.0 must be more than 0, or null for no limit\n")
    assert study.main(["jitter=2"]) == 2, "without the package there is no such key"


def test_what_a_task_yields_beyond_the_fixed_figures_is_read_by_name() -> None:
    assert TOKENS.value(MEASURED, 95) == 50
    assert TOKENS.value(Measurement(), 95) is None
    assert Measurement.from_json(json.loads(json.dumps(MEASURED.to_json()))) == MEASURED


def test_where_more_is_better_the_limit_is_the_least() -> None:
    assert TOKENS.bound == "≥"
    assert TOKENS.excess(50, 100) == 0.5
    assert TOKENS.excess(150, 100) == -0.5
    assert TOKENS.holds((90, 110), 80) and not TOKENS.holds((90, 110), 100)
    score = TOKENS.score(MEASURED, 95)
    assert score is not None and math.isclose(score, math.log(50))


def test_of_a_limit_of_nothing_the_excess_is_a_number() -> None:
    assert Figure("lost", "lost").excess(2, 0) == 2


def test_a_score_of_nothing_is_a_number() -> None:
    score = Figure("lost", "lost").score(Measurement(more={"lost": 0.0}), 95)
    assert score is not None and math.isfinite(score)


def test_a_measurement_of_the_version_before_is_read() -> None:
    before = {name: value for name, value in MEASURED.to_json().items() if name != "more"}
    assert Measurement.from_json(before).more == {}
    assert Measurement.from_json(before).latency_ms == MEASURED.latency_ms


def test_a_table_has_what_was_measured_and_what_is_declared() -> None:
    goal = Goal({"memory_mb": 100.0})
    shown = [figure.heading(99) for figure in columns(99, goal.declared, [MEASURED])]
    assert shown == ["samples/s", "p50 ms", "p99 ms", "accuracy", "drop", "MB", "memory MB"]
    assert [figure.name for figure in columns(95, goal.declared, [Measurement()])] == ["throughput", "memory_mb"]


def test_every_figure_has_one_name_and_one_metric() -> None:
    assert len({figure.name for figure in TABLE}) == len(TABLE)
    assert len({figure.recorded(95) for figure in TABLE}) == len(TABLE)
