"""What backends found out by tuning goes from one cache to another by `tune cache`."""

import contextlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.study import Refused
from tuner.build import tuning_records
from tuner.build.store import Store
from tuner.cli import main
from tuner.plugins.backends.tvm import TVM
from tuner.plugins.backends.tvm_records import IMPORTED, locked
from tuner.plugins.backends.tvm_tasks import table
from tuner.system.machine import cpu_name


def recorded(cache: Path, model: str, lines: int) -> Path:
    """The records of a model in a cache, as TVM leaves them."""
    folder = Store(cache).folder(Store.home(TVM)) / model
    folder.mkdir()
    for name in TVM.records:
        (folder / name).write_text("[0, 1]\n" * lines)
    (folder / "lock").write_text("")
    return folder


def test_records_go_to_a_file_and_into_another_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "records.tar.gz"
    for model in ("one", "two", "three"):
        recorded(here, model, lines=5)
    (recorded(here, "torn", lines=5) / TVM.records[0]).unlink()
    more, fewer = recorded(there, "two", lines=9), recorded(there, "three", lines=2)
    assert main(["cache", "export-tuning-records", str(file), f"cache_dir={here}"]) == 0
    assert main(["cache", "import-tuning-records", str(file), f"cache_dir={there}"]) == 0
    told = capsys.readouterr().out
    assert "the tuning records of 3 models" in told
    assert told.endswith("the tuning records of 2 models taken; of 1 there were as many here already\n")
    lines = {folder.name: len((folder / TVM.records[0]).read_text().splitlines()) for folder in more.parent.iterdir()}
    assert lines == {"one": 5, "two": 9, "three": 5}
    with tarfile.open(file) as archive:
        assert {Path(name).name for name in archive.getnames()} == {*TVM.records, "about.json"}, "no lock of ours"
    assert fewer.exists()


def test_records_of_another_machine_are_taken_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "records.tar.gz"
    recorded(tmp_path / "here", "one", lines=5)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(tuning_records, "cpu_name", lambda: "Neoverse-V1")
        assert main(["cache", "export-tuning-records", str(file), f"cache_dir={tmp_path / 'here'}"]) == 0
    assert main(["cache", "import-tuning-records", str(file), f"cache_dir={tmp_path / 'there'}"]) == 0
    told = capsys.readouterr().out
    assert (
        "1 models taken" in told
        and f"they come from a machine with processor Neoverse-V1, here {cpu_name()}: a study" in told
    )


def test_what_is_no_record_is_refused(tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "records.tar.gz")
    torn = recorded(tmp_path / "here", "one", lines=5) / TVM.records[1]
    torn.write_text("[0, 1]\n[0, \n")
    assert main(["cache", "export-tuning-records", file, f"cache_dir={tmp_path / 'here'}"]) == 0
    capsys.readouterr()
    assert f"records.tar.gz: it cannot be read ({torn.name}, line 2: " in refused(
        "cache", "import-tuning-records", file, written=True
    )
    assert "it has no tuning records; a study that tunes with TVM leaves some" in refused(
        "cache", "export-tuning-records", str(tmp_path / "none.tar.gz"), written=True
    )
    assert not (tmp_path / "none.tar.gz").exists()


def test_who_tunes_is_waited_for_and_what_is_taken_is_told_as_another_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "records.tar.gz"
    recorded(tmp_path / "here", "one", lines=5)
    assert main(["cache", "export-tuning-records", str(file), f"cache_dir={tmp_path / 'here'}"]) == 0
    place = recorded(tmp_path / "there", "one", lines=2)
    held: list[Path] = []

    @contextlib.contextmanager
    def watched(path: Path) -> Iterator[None]:
        before = [(place / name).read_text() for name in TVM.records]
        held.append(path)
        yield
        assert all((place / name).read_text() != text for name, text in zip(TVM.records, before, strict=True))

    monkeypatch.setattr(tuning_records, "critical_section", watched)
    assert main(["cache", "import-tuning-records", str(file), f"cache_dir={tmp_path / 'there'}"]) == 0
    with locked(place) as work:
        assert held == [work / "lock"] and (work / IMPORTED).exists()
    assert "another machine measured" in table((), imported=True).title
    assert "another machine measured" not in table((), imported=False).title


def test_a_cache_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path / "here", "one", lines=5)
    file = str(tmp_path / "records.tar.gz")
    assert main(["cache", "export-tuning-records", file, f"cache_dir={tmp_path / 'here'}"]) == 0
    (tmp_path / "cache").write_text("")
    capsys.readouterr()
    told = refused("cache", "import-tuning-records", file)
    assert f"{tmp_path / 'cache'}/plugins: cannot be written" in told


def test_what_is_no_such_file_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "records.tar.gz").write_text("no archive")
    told = refused("cache", "import-tuning-records", str(tmp_path / "records.tar.gz"), written=True)
    assert "records.tar.gz: it cannot be read" in told
    assert "FILE: the file must be named" in refused("cache", "export-tuning-records")
