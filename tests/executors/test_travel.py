"""What goes to another machine, and what is refused before anything does."""

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import free_port
from tests.study import Refused, overrides
from tuner.errors import RequestError
from tuner.executors import staging
from tuner.executors.parcel import archive, packed, restore, unpacked


@dataclass(frozen=True)
class Thing:
    folder: Path
    elsewhere: Path


def test_a_path_below_the_root_is_set_below_the_other_one(tmp_path: Path) -> None:
    thing = Thing(tmp_path / "here/float/abc", Path("/usr/lib"))
    data, places = packed({"a": thing, "again": thing.folder}, tmp_path / "here")
    assert places == ["float/abc"]
    there = unpacked(data, lambda relative: tmp_path / "there" / relative)
    assert there["a"] == Thing(tmp_path / "there/float/abc", Path("/usr/lib"))


def test_a_folder_or_a_file_arrives_whole_and_the_first_to_arrive_stays(tmp_path: Path) -> None:
    (tmp_path / "one/deep").mkdir(parents=True)
    (tmp_path / "one/deep/file").write_text("first")
    restore(archive(tmp_path / "one"), tmp_path / "x/copy")
    restore(archive(tmp_path / "one/deep"), tmp_path / "x/copy")
    restore(archive(tmp_path / "one/deep/file"), tmp_path / "x/file")
    assert (tmp_path / "x/copy/deep/file").read_text() == (tmp_path / "x/file").read_text() == "first"
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["copy", "file"]


def test_the_code_that_is_shipped_works_without_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, code = tmp_path / "mine", tmp_path / "code"
    for folder in (mine / "package", mine / "venv/lib", code):
        folder.mkdir(parents=True)
    (mine / "package/part.py").write_text("answer = 42\n")
    (mine / "venv/pyvenv.cfg").write_text("")
    (mine / "venv/lib/other.py").write_text("")
    monkeypatch.chdir(mine)
    staging.stage(code)
    assert not (code / "venv").exists()
    program = "import package.part, tuner.plugins.backends.eager as e, tuner.executors.ray_node; print(e.__file__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=code, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(code / "tuner/plugins/backends/eager.py"), done.stderr


def test_more_than_code_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "huge.py").open("wb") as file:
        file.truncate(30_000_000)
    (tmp_path / "code").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=r"executor\.runtime_env: .* more than 20 MB"):
        staging.stage(tmp_path / "code")


def test_an_address_that_nobody_answers_is_refused(tmp_path: Path, refused: Refused) -> None:
    if importlib.util.find_spec("ray") is None:
        expected = "executor=ray needs Ray; pip install 'inference-tuner[ray]'"
    else:
        expected = "nothing answers there"
    kept = [o for o in overrides(tmp_path) if not o.startswith("cache_dir=")]
    assert expected in refused(*kept, "executor=ray", f"executor.address=127.0.0.1:{free_port()}")
