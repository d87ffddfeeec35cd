"""A package has the champion's recipe for smaller batches too, and whoever loads it says for how many samples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests import study
from tests.fakes import Sized
from tests.serve.serving import BATCH, asked, identity_of, packaged, serving
from tuner import artifact
from tuner.decide.package import smaller_sizes
from tuner.serve.protocol import HEADER_LENGTH
from tuner.system.digests import digests
from tuner.testing.fakes import WEIGHTS, Null


def champion(place: Path, backend: dict[str, Any]) -> Path:
    assert study.tune(place, "latency_ms=20", "search_space.batch_size=4", study.deploy(backend)) == 0
    return place / "out/linear-cpu-001/champion"


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / artifact.MANIFEST).read_text())
    return found


def test_one_and_a_middling_batch_are_packaged_and_load_picks(place: Path) -> None:
    folder = champion(place, study.node(Sized))
    assert manifest(folder)["smaller"] == {"1": "files-1", "2": "files-2"}
    assert manifest(folder)["smaller_sha256"]["files-2"] == digests(folder / "files-2")
    whole = artifact.load(folder)
    inputs, _ = artifact.read_example(folder)
    for samples, batch_size in {1: 1, 2: 2, 3: 4, 4: 4}.items():
        loaded = artifact.load(folder, samples)
        few = {name: array[:samples] for name, array in inputs.items()}
        assert loaded.batch_size == batch_size
        np.testing.assert_allclose(loaded.run(few)[0], whole.run(few)[0])
    assert whole.batch_size == 4


@pytest.mark.slow
def test_a_smaller_batch_that_answers_otherwise_is_left_out(place: Path) -> None:
    folder = champion(place, study.node(Sized, off=1))
    assert manifest(folder)["smaller"] == {"2": "files-2"}
    assert not (folder / "files-1").exists()
    assert artifact.load(folder, 1).batch_size == 2


@pytest.mark.slow
def test_one_that_does_not_run_takes_no_champion_along(place: Path) -> None:
    folder = champion(place, study.node(Sized, dies=2))
    assert manifest(folder)["smaller"] == {} and not list(folder.glob("files-*"))
    assert artifact.load(folder, 1).batch_size == 4


@pytest.mark.slow
def test_where_memory_is_limited_there_are_none(place: Path) -> None:
    space = study.deploy(study.node(Sized))
    assert study.tune(place, "latency_ms=20", "memory_mb=4000", "search_space.batch_size=4", space) == 0
    assert "smaller" not in manifest(place / "out/linear-cpu-001/champion")


@pytest.mark.slow
def test_files_that_take_any_batch_are_kept_once(place: Path) -> None:
    folder = champion(place, study.node(Null))
    assert manifest(folder)["smaller"] == {"1": "files", "2": "files"}
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["files"]


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(1, []), (2, [1]), (4, [1, 2]), (8, [1, 4]), (48, [1, 8]), (64, [1, 8])]
)
def test_the_sizes(batch_size: int, sizes: list[int]) -> None:
    assert smaller_sizes(batch_size) == sizes


def test_a_server_answers_few_with_the_smaller_batch(tmp_path: Path) -> None:
    folder = packaged(tmp_path / "artifact", Sized(off=1))  # which one is asked, its answers tell
    (folder / artifact.FILES / "batch_size").write_text(str(BATCH))
    (folder / "files-1").mkdir()
    (folder / "files-1/batch_size").write_text("1")
    (folder / "files-1" / WEIGHTS).write_bytes((folder / artifact.FILES / WEIGHTS).read_bytes())
    artifact.extend_manifest(folder, smaller={1: "files-1"})

    def first(response: requests.Response) -> list[float]:
        assert response.status_code == 200, response.text
        return identity_of(response.content, response.headers[HEADER_LENGTH])

    with serving(folder, "--quiet") as served:
        assert first(asked(served, 2, count=1)) == [2 + 8], "by weights that are one larger: 4 numbers of 2"
        assert first(asked(served, 2, count=3)) == [2, 2, 2]
