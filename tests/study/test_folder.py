"""The folder of a study: whatever the model is called, a finished study stays as it is."""

import json
import re
import shutil
import tempfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import study
from tests.fakes import Labelled
from tests.study import Refused
from tuner import target as targets
from tuner.errors import RequestError
from tuner.request import compose
from tuner.request.request import Request
from tuner.result import StudyFolder
from tuner.study.folder import study_folder
from tuner.testing.fakes import Null
from tuner.testing.faults import Faulty


@pytest.fixture(scope="module")
def request_of_fakes(tmp_path_factory: pytest.TempPathFactory) -> Request:
    return compose.request(study.overrides(tmp_path_factory.mktemp("request")))


def once(request: Request) -> StudyFolder:
    with study_folder(request, {}) as folder:
        return StudyFolder(folder.path)


@given(label=st.text(min_size=1) | st.sampled_from(["net (1)[v2]:best", "../x", "/x", "[red]", "a*", "..", "?"]))
def test_the_same_command_after_a_finished_study_makes_the_next(label: str, request_of_fakes: Request) -> None:
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        workload = replace(request_of_fakes.workload, model=Labelled(label))
        request = replace(request_of_fakes, workload=workload, out_dir=out)
        first = once(request)
        assert once(request).path == first.path, "it goes on until it is finished"
        first.result.write_text(json.dumps({"interrupted": False}))
        before = first.request.read_bytes()
        second = once(request)
        assert (first.name[-4:], second.name[-4:]) == ("-001", "-002")
        assert first.path.parent == second.path.parent == out and list(Path(name).iterdir()) == [out]
        assert first.request.read_bytes() == before and not second.result.exists()


def test_a_study_goes_on_where_it_was_begun_alone_and_one_of_the_version_before_anywhere(
    request_of_fakes: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(request_of_fakes, out_dir=tmp_path / "out")
    begun = once(request)
    monkeypatch.setattr(targets, "instructions", lambda: "others")
    with pytest.raises(RequestError, match=r"it was begun on .*, 1 core, .*, and this is .* instruction sets others"):
        once(request)
    assert once(replace(request, study="mine")).name == "mine"
    before = json.loads(begun.request.read_text())
    del before["machine"]
    begun.request.write_text(json.dumps(before))
    assert once(request).path == begun.path
    assert json.loads(begun.request.read_text()) == before, "nobody knows which machine it was"


DAMAGED = [b"", b"{", b"[]", b"null", b"{}", b'{"key": 1, "id": 2}', b"\xff\0", b"[" * 100_000]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_request_hurts_the_study_that_is_named_and_no_other(
    content: bytes, request_of_fakes: Request, tmp_path: Path
) -> None:
    request = replace(request_of_fakes, out_dir=tmp_path / "out")
    broken = once(request)
    broken.request.write_bytes(content)
    assert once(request).name == "linear-cpu-002"
    assert broken.request.read_bytes() == content
    with pytest.raises(RequestError, match=re.escape(f"{broken.request}: it is damaged")):
        once(replace(request, study=broken.name))


def test_a_lock_that_is_no_file_is_named(request_of_fakes: Request, tmp_path: Path) -> None:
    (tmp_path / "out/mine/.turn").mkdir(parents=True)
    with pytest.raises(RequestError, match=r"mine/\.turn: it is damaged \(it is no file that can be locked\)"):
        once(replace(request_of_fakes, study="mine", out_dir=tmp_path / "out"))


def test_a_damaged_request_of_a_named_study_is_told_before_anything(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "out/mine").mkdir(parents=True)
    (tmp_path / "out/mine/request.json").write_text("{")
    assert "mine/request.json: it is damaged" in refused("study=mine", f"out_dir={tmp_path / 'out'}")


def test_a_damaged_result_is_told_by_show(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "out/mine").mkdir(parents=True)
    (tmp_path / "out/mine/result.json").write_text('{"study": "mine"}')
    assert "mine/result.json: it is damaged" in refused("show", f"out_dir={tmp_path / 'out'}")


@pytest.mark.slow
def test_studies_of_models_with_one_odd_name_are_kept_apart_and_never_registered_together_without_a_word(
    place: Path,
) -> None:
    label = '[red]o\'Hara[/] <b>/x; DROP TABLE "runs" -- %{0}'
    line = ["model._target_=tests.fakes.Labelled", f"+model.label={json.dumps(label)}", "n_trials=1", "latency_ms=20"]
    assert study.tune(place, *line) == 0
    assert study.tune(place, *line, "+model.scale=2") == 0
    assert {path.name for path in place.iterdir()} == {"out", "cache"}
    stem = "_red_o_Hara_b_x_DROP_TABLE_runs_--_0_-cpu"
    assert sorted(path.name for path in (place / "out").glob("*-cpu-*")) == [f"{stem}-001", f"{stem}-002"]
    results = [study.result(place, f"{stem}-00{number}") for number in (1, 2)]
    assert [result["model"] for result in results] == [label, label]
    assert [result["registered"]["version"] for result in results] == ["1", "2"]
    doubts = [{doubt["name"]: doubt["sentence"] for doubt in result["doubts"]} for result in results]
    assert "registered_of_another_model" not in doubts[0]
    assert "version 1 is of another model" in doubts[1]["registered_of_another_model"]


@pytest.mark.slow
def test_a_disk_that_fills_under_the_cache_is_told_as_that_and_the_study_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    backends = study.deploy(study.node(Null), study.node(Faulty, where="compile"))
    line = ["latency_ms=20", "n_trials=2", "search_space.batch_size=[4]", backends]
    usage = namedtuple("usage", "total used free")
    real = shutil.disk_usage
    space = iter([10**10, 10**10])  # before the study starts, in either folder

    def filling(path: Path) -> object:
        return usage(10**10, 0, next(space, 0)) if Path(path).name in ("cache", "out") else real(path)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", filling)
        assert study.tune(place, *line) == 2
    told = capfd.readouterr()
    assert "_dir: the disk is full; what is done is kept in" in told.err and "Traceback" not in told.err
    assert study.tune(place, *line) == 0
    assert study.result(place)["trials"]["failed"] == 1, "the same study, in which the failed one was tried again"
