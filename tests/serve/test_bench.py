"""`tune bench`: what it refuses, and which rate it finds."""

import asyncio
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serve.serving import packaged, serving
from tuner.cli import main
from tuner.serve.load import Run, largest_rate

URL = "http://127.0.0.1:9/v2/models/model"


@settings(max_examples=20, deadline=None)
@given(capacity=st.floats(2, 1e4))
def test_the_rate_that_is_found_is_the_largest_within_its_step(capacity: float) -> None:
    async def run(rate: float, seed: int) -> Run:
        latency = np.full(300, 1.0 if rate <= capacity else 100.0)
        return Run(rate, latency, np.zeros(300), Counter({"200": 300}))

    held = asyncio.run(largest_rate(run, 100.0, 10.0))
    assert held is not None
    assert held.rate <= capacity <= 1.05 * held.rate
    assert held.interval[0] <= held.rate <= held.interval[1]


def test_nothing_holds_where_no_request_does() -> None:
    async def run(rate: float, seed: int) -> Run:
        return Run(rate, np.full(300, 100.0), np.zeros(300), Counter({"503": 300}))

    assert asyncio.run(largest_rate(run, 100.0, 10.0)) is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "needs one address"),
        ([URL], "rate=R"),
        ([URL, "rate=find"], "latency_ms=L must be given"),
        ([URL, "rate=-1"], "rate=-1: must be"),
        ([URL, "rate=1", "speed=2"], "speed=2: no such key"),
        ([URL, "rate=1", "batch=1.5"], "batch=1.5: must be a whole number"),
        ([URL, "rate=1"], "no server of the Open Inference Protocol"),
        (["http://127.0.0.1:9", "rate=1"], "/v2/models/NAME"),
    ],
)
def test_a_wrong_request_is_refused(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


@pytest.mark.xdist_group("serve")
def test_every_request_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(packaged(tmp_path / "artifact"), "--quiet", "--queue-ms", "20000") as served:
        url = f"{served.address}/v2/models/model"
        for more in ("binary=true", "binary=false"):
            assert main(["bench", url, "rate=300", "seconds=0.5", "batch=2", more]) == 0
        assert main(["bench", url, "rate=300", "seconds=0.5", "latency_ms=0.001"]) == 3
        assert served.outcomes() == {"answered": 3 * (20 + 300)}
    assert "100.0%" in capsys.readouterr().out
