"""Entries are whole or absent, whoever writes them and however they end."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.build.store import Store
from tuner.errors import CandidateError
from tuner.system.deadline import Deadline
from tuner.system.digests import SEAL, files_digest

KEY: dict[str, Any] = {"model": "m", "libraries": {"b": 2, "a": [1, None]}}


class Filling:
    """Writes two files, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "deep").mkdir()
        (folder / "deep/weights").write_bytes(bytes(1000))
        (folder / "note").write_text("made")


def test_an_entry_is_made_once_for_its_content(tmp_path: Path) -> None:
    fill = Filling()
    made = Store(tmp_path).make("stage", KEY, fill)
    assert (made / "note").read_text() == "made"
    reordered = {"libraries": {"a": [1, None], "b": 2}, "model": "m"}
    assert Store(tmp_path).make("stage", reordered, fill) == made == Store(tmp_path).get("stage", KEY)
    assert fill.times == 1


def test_stages_and_keys_do_not_meet(tmp_path: Path) -> None:
    store, fill = Store(tmp_path), Filling()
    places = {store.make("stage", KEY, fill), store.make("other", KEY, fill), store.make("stage", {"model": "n"}, fill)}
    assert len(places) == fill.times == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "note").write_text("mad3"),
        lambda entry: (entry / "deep/weights").unlink(),
        lambda entry: (entry / "deep/weights").write_bytes(bytes(10)),
        lambda entry: (entry / "stranger").write_text(""),
        lambda entry: [seal.write_text("{") for seal in entry.glob(".*.json")],
        lambda entry: [seal.unlink() for seal in entry.glob(".*.json")],
        lambda entry: [seal.write_text("[]") for seal in entry.glob(".*.json")],
    ],
    ids=["changed", "missing", "torn", "added", "seal torn", "seal missing", "seal of another kind"],
)
def test_a_damaged_entry_is_made_again(damage: Any, tmp_path: Path) -> None:
    fill = Filling()
    damage(Store(tmp_path).make("stage", KEY, fill))
    assert Store(tmp_path).get("stage", KEY) is None
    again = Store(tmp_path).make("stage", KEY, fill)
    assert (again / "note").read_text() == "made"
    assert fill.times == 2


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_filling_that_fails_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise error

    store = Store(tmp_path)
    with pytest.raises(type(error)):
        store.make("stage", KEY, fill)
    left = [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith(".")]
    assert all(path.name.startswith(".lock-") and not path.stat().st_size for path in left)
    assert store.get("stage", KEY) is None
    assert (store.make("stage", KEY, Filling()) / "note").exists()


def _write(root: Path, number: int) -> None:
    def fill(folder: Path) -> None:
        for part in range(20):
            (folder / str(part)).write_text(str(part) * 1000)

    for entry in range(10):
        found = Store(root).make("stage", {"entry": entry}, fill)
        assert len([f for f in found.iterdir() if not f.name.startswith(".")]) == 20


def test_many_writers_at_once_leave_whole_entries(tmp_path: Path) -> None:
    context = get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert not list(tmp_path.rglob(".draft*"))
    assert all(Store(tmp_path).get("stage", {"entry": entry}) for entry in range(10))


def test_a_reader_never_sees_half_an_entry(tmp_path: Path) -> None:
    half, on = threading.Event(), threading.Event()

    def fill(folder: Path) -> None:
        (folder / "first").write_text("1")
        half.set()
        on.wait(10)
        (folder / "second").write_text("2")

    writer = threading.Thread(target=Store(tmp_path).make, args=("stage", KEY, fill))
    writer.start()
    half.wait(10)
    seen = Store(tmp_path).get("stage", KEY)
    on.set()
    writer.join(10)
    assert seen is None
    assert Store(tmp_path).get("stage", KEY) is not None


def test_the_clock_of_who_waits_for_an_entry_stands_still(tmp_path: Path) -> None:
    begun, waiting = threading.Event(), threading.Event()
    time_s = 0.0
    deadline = Deadline(5, lambda: time_s)

    def slowly(folder: Path) -> None:
        begun.set()
        waiting.wait(10)

    @contextlib.contextmanager
    def stopped() -> Iterator[None]:
        nonlocal time_s
        with deadline.stopped():
            time_s += 3600
            waiting.set()
            yield

    writer = threading.Thread(target=Store(tmp_path).make, args=("stage", KEY, slowly))
    writer.start()
    begun.wait(10)
    time_s = 2
    Store(tmp_path).make("stage", KEY, Filling(), stopped)
    writer.join(10)
    assert deadline.left_s() == 3
    time_s += 3
    with pytest.raises(CandidateError, match="time was used up"):
        deadline.left_s()


def test_trimming_takes_the_longest_unused_and_spares_what_is_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = [store.make("stage", {"entry": number}, Filling()) for number in range(4)]
    for path, hours in zip(made, (30, 20, 10, 0.5), strict=True):
        then = time.time() - hours * 3600
        os.utime(path / ".entry.json", (then, then))
    one_mb = store.entries()[0].size_mb
    assert [entry.path for entry in store.trim(None, 25 * 3600)] == made[:1]
    assert [entry.path for entry in store.trim(2 * one_mb, None)] == made[1:2]
    assert [entry.path for entry in store.trim(0.0, 0.0)] == made[2:3]
    assert [entry.path for entry in store.entries()] == made[3:]


def test_asking_for_an_entry_keeps_it_young(tmp_path: Path) -> None:
    path = Store(tmp_path).make("stage", KEY, Filling())
    os.utime(path / ".entry.json", (0, 0))
    Store(tmp_path).get("stage", KEY)
    assert Store(tmp_path).entries()[0].used_s > 0
    assert Store(tmp_path).trim(0.0, 0.0) == []


names = st.text("abc/", min_size=1, max_size=6).map(lambda n: "/".join(filter(None, n.split("/"))) or "a")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(names, st.binary(max_size=8), max_size=4))
def test_a_digest_tells_names_and_contents_apart(files: dict[str, bytes], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("digest")
    for name, content in files.items():
        path = folder / f"{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    before = files_digest(folder)
    assert files_digest(folder) == before
    (folder / "another").write_bytes(b"")
    assert files_digest(folder) != before


@pytest.mark.parametrize("linked", [True, False])
def test_a_large_file_that_several_entries_have_lies_there_once(linked: bool, tmp_path: Path) -> None:
    store, size = Store(tmp_path), 2**26

    def fill(folder: Path) -> None:
        (folder / "deep").mkdir()
        for name in ("deep/weights", "note"):
            with (folder / name).open("wb") as file:
                file.truncate(size if name == "deep/weights" else 1000)

    one, other = (store.make("stage", {"batch": batch}, fill, linked=linked) for batch in (1, 2))
    assert (one / "deep/weights").samefile(other / "deep/weights") == linked
    assert not (one / "note").samefile(other / "note")
    assert {path.name for path in other.rglob("*")} == {"deep", "weights", "note", SEAL}
    kept_mb = sum(entry.size_mb for entry in store.entries())
    assert kept_mb == pytest.approx((size if linked else 2 * size) / 1e6, rel=0.01)
    store.forget("stage", {"batch": 1})
    assert Store(tmp_path).get("stage", {"batch": 2}) == other and (other / "deep/weights").stat().st_size == size
