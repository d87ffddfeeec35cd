"""docs/export.md: its commands do what it says."""

import re
import shlex
from pathlib import Path

import pytest

from tests import study
from tests.packaged import need_server
from tuner.cli import main

PAGE = (study.ROOT / "docs/export.md").read_text()


@pytest.mark.slow
def test_the_commands_of_the_page_write_what_it_lists(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need_server()
    runtime = {"_target_": "tuner.plugins.backends.onnxruntime.OnnxRuntime"}
    line = ("latency_ms=1000", "search_space.batch_size=[4]", "n_trials=1", "promote=auto")
    assert study.tune(place, study.deploy(runtime), *line) == 0
    (place / "outputs").symlink_to("out")
    monkeypatch.chdir(place)
    capsys.readouterr()
    block = re.findall(r"^```\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)[0]
    commands = [shlex.split(line)[1:] for line in block.splitlines()]
    for command in commands:
        assert main(command) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert told.count("3,000 samples/s at p99 within 1000 ms: 2 replicas, one of them to spare") == 2
    assert {"loader.py", "check.py", "requirements.txt"} < {file.name for file in (place / "plain").iterdir()}
    assert (place / "triton/linear-cpu-001/config.pbtxt").is_file()
    assert (place / "docker/Dockerfile").is_file()
    assert "image: registry.example/linear:1" in (place / "kubernetes/linear-cpu-001.yaml").read_text()
