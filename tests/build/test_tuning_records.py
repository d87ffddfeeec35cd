"""What backends found out by tuning goes from one cache to another by `tune cache`."""

from pathlib import Path

import pytest

from tests.study import Refused
from tuner.build.store import Store
from tuner.cli import main
from tuner.plugins.backends.tvm import TVM


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
    assert "the tuning records of 2 models taken; of 1 there were as many here already" in told
    lines = {folder.name: len((folder / TVM.records[0]).read_text().splitlines()) for folder in more.parent.iterdir()}
    assert lines == {"one": 5, "two": 9, "three": 5}
    assert not (more.with_name("one") / "lock").exists()
    assert fewer.exists()


def test_what_is_no_such_file_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "records.tar.gz").write_text("no archive")
    told = refused("cache", "import-tuning-records", str(tmp_path / "records.tar.gz"), written=True)
    assert "records.tar.gz: it cannot be read" in told
    assert "FILE: the file must be named" in refused("cache", "export-tuning-records")
