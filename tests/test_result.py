"""`result.json` as a value: what was written is read, the version before's too."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import before
from tuner.report import page
from tuner.report.note import study_note
from tuner.report.words import sentence
from tuner.result import Ratio, Result, StudyFolder, studies


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return before.unpack(tmp_path_factory.mktemp("old")) / "outputs"


def told_again(old: Any, new: Any) -> bool:
    """Whether all that stood in the old file stands in the new one, which may say more."""
    if isinstance(old, dict):
        return all(name in new and told_again(value, new[name]) for name, value in old.items())
    if isinstance(old, list):
        return len(old) == len(new) and all(map(told_again, old, new))
    return bool(old == new)


@pytest.mark.parametrize("study", before.STUDIES)
def test_the_version_befores_files_are_read_whole(study: str, old: Path) -> None:
    folder = StudyFolder(old / study)
    result, trials = folder.read_result(), folder.read_trials()
    assert told_again(json.loads(folder.result.read_text()), json.loads(json.dumps(result.to_json())))
    written = json.loads(json.dumps([trial.to_json() for trial in trials]))
    assert told_again(json.loads(folder.trials.read_text()), written)
    assert (result.content, result.verdict) == ({}, json.loads(folder.result.read_text())["verdict"])
    assert sentence(result).removeprefix(f"Champion ({result.verdict}): ") in page.page(result, trials)
    assert result.command in study_note(result, trials)


def test_a_result_is_read_as_it_was_written(old: Path) -> None:
    first = StudyFolder(old / before.STUDIES[0]).read_result().to_json()
    first |= {"content": {"model": "m", "data": "d"}}
    first["speedup"] |= {"vs_best_untuned": 1.5, "vs_best_untuned_ci95": [1.25, 1.75]}
    again = Result.from_json(json.loads(json.dumps(first)))
    assert again.speedup["vs_best_untuned"] == Ratio(1.5, (1.25, 1.75))
    assert again.content == {"model": "m", "data": "d"}
    assert json.loads(json.dumps(again.to_json())) == json.loads(json.dumps(first))


def test_the_folders_of_studies_are_found_by_what_lies_in_them(old: Path) -> None:
    finished = [study.name for study in studies(old) if study.result.exists()]
    assert finished == sorted(before.STUDIES)
    assert all(study.champion.is_dir() and study.logs.is_dir() for study in studies(old) if study.result.exists())
