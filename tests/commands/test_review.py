"""`tune ui` and `tune show`, and in a real browser what they lead to."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page

from benchmarks.screenshots import CHROMIUM, browser_page, served
from tests import study
from tuner.cli import main
from tuner.goal import Goal
from tuner.testing.fakes import Null
from tuner.testing.faults import Faulty
from tuner.tracking import view

pytestmark = pytest.mark.xdist_group("ui")  # they look for a free port in the same place


def test_a_server_that_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert main(["ui", "tracking=server", f"tracking.uri={uri}"]) == 2
    assert "no server answers there" in capsys.readouterr().err


def test_a_store_without_the_experiment_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", f"out_dir={place / 'out'}", "tracking.experiment=elsewhere"]) == 2
    assert "tracking.experiment=elsewhere: no study has been recorded" in capsys.readouterr().err


def test_the_view_has_the_latency_that_is_limited() -> None:
    state = json.loads(view.state(Goal(latency_percentile=99)))
    assert "metrics.`latency_p99_ms`" in state["selectedColumns"]
    assert {chart["type"] for chart in state["compareRunCharts"]} == {"SCATTER", "PARALLEL", "BAR"}
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(state["compareRunCharts"])


def test_show_knows_the_nearest_name_and_what_has_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, file in (("digits-cpu-001", "result.json"), ("begun", "request.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"key": "k", "id": "i", "command": "tune latency_ms=3"}')
    assert main(["show", f"out_dir={tmp_path}", "study=digits-cpu-01"]) == 2
    assert "did you mean digits-cpu-001?" in capsys.readouterr().err
    assert main(["show", f"out_dir={tmp_path}", "study=begun"]) == 2
    assert "the same command continues it: tune latency_ms=3" in capsys.readouterr().err


def row_at(page: Page, index: int) -> list[str]:
    """The texts of a row of MLflow's table, which lies there in several parts."""
    parts = page.locator(f".ag-row[row-index='{index}']").all_inner_texts()
    return [text.strip() for part in parts for text in part.splitlines()]


@pytest.mark.slow
def test_a_browser_finds_the_columns_the_charts_the_note_and_the_report(place: Path) -> None:
    assert shutil.which(CHROMIUM), f"Debian's {CHROMIUM} is missing: apt-get install --no-install-recommends {CHROMIUM}"
    backends = (study.node(Null, ms=1.0), study.node(Null, ms=2.0), study.node(Faulty, fault="segfault"))
    assert study.tune(place, "latency_ms=20", study.deploy(*backends), "search_space.batch_size=[1,4]") == 0
    champion = study.result(place)["champion"]["label"]
    with served(f"out_dir={place / 'out'}") as addresses:
        with browser_page(1900, 1000) as page:
            page.goto(addresses["every trial"])
            page.get_by_text("linear-cpu-001", exact=True).first.wait_for()
            shown = set(page.locator(".ag-header-cell-text, .ag-header-cell").all_inner_texts())
            ours = ["champion", "role", "verdict", "state", "latency_p95_ms", "throughput_per_s", "accuracy_drop"]
            assert {*ours, "backend", "transforms", "batch_size"} <= {text.strip() for text in shown}
            page.get_by_text(champion).first.wait_for()  # a trial: the study is expanded
            page.get_by_text("champion", exact=True).first.wait_for()
            page.get_by_text("its process died of").first.wait_for()
            study_row, champion_row = (row_at(page, index) for index in (0, 1))
            assert "linear-cpu-001" in study_row and "study" in study_row
            assert any(champion in text for text in champion_row) and "champion" in champion_row, "the first below it"
            metrics = study.runs(place)[0].data.metrics
            shown = {metrics[name] for name in ("latency_p95_ms", "throughput_per_s")}
            assert shown <= {float(text) for text in study_row if re.fullmatch(r"[\d.]+", text)}
        with browser_page(1900, 1400) as page:
            page.goto(addresses["charts"])
            page.get_by_text("latency_p95_ms vs. accuracy_drop").wait_for()
            page.locator(".scatterlayer .point").first.wait_for()
            page.get_by_text("Parallel Coordinates").first.wait_for()
        with browser_page(1300, 1400) as page:
            page.goto(addresses["latest verdict"])
            page.get_by_text(f"{champion} serves").first.wait_for()
            page.get_by_text("Show more").first.click()
            page.get_by_text("What did not work").wait_for()
            page.get_by_text("Artifacts", exact=True).first.click()
            page.get_by_text("report.html").first.click()
            page.frame_locator("iframe").get_by_text("How surely").wait_for()
        base = addresses["charts"].partition("/#")[0]
        told = subprocess.run(
            [sys.executable, "-m", "tuner.cli", "ui", "tracking=server", f"tracking.uri={base}"],
            capture_output=True, text=True, check=True, timeout=300,
        )  # fmt: skip
        assert addresses["charts"] in told.stdout, "nothing is started beside a server"
    with browser_page(390, 800) as page:
        page.goto((place / "out/linear-cpu-001/report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "a phone need not scroll sideways"


@pytest.mark.slow
def test_the_ui_leaves_no_process_and_never_tells_the_address_of_another(place: Path) -> None:
    assert study.tune(place, "latency_ms=20", "search_space.batch_size=[4]") == 0
    command = [sys.executable, "-m", "tuner.cli", "ui", f"out_dir={place / 'out'}"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]  # they want the same port
    addresses, children = [], []
    for process in both:
        assert process.stdout is not None
        addresses.append(process.stdout.readline().split()[-1].partition("/#")[0])
        urllib.request.urlopen(f"{addresses[-1]}/health", timeout=10).close()
        own = psutil.Process(process.pid).children(recursive=True)
        assert len(own) >= 2
        children += own
    assert addresses[0] != addresses[1]
    for process, number in zip(both, (signal.SIGINT, signal.SIGTERM), strict=True):
        os.kill(process.pid, number)
        assert process.wait(30) == 0
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
