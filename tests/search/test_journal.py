"""A journal that lost power, or room on the disk: half a record is dropped, and no study in it is hurt."""

import contextlib
import json
import resource
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import RequestError
from tuner.search.journal import journal

optuna.logging.set_verbosity(optuna.logging.ERROR)
TRIALS = 3


def record(path: Path, name: str) -> None:
    """A study of a few trials."""
    study = optuna.create_study(storage=journal(path), study_name=name, load_if_exists=True)
    for _ in range(TRIALS):
        study.tell(trial := study.ask(), trial.suggest_float("x", 0, 1))


def trials(path: Path, name: str) -> int:
    """How many of its trials are told."""
    states = (optuna.trial.TrialState.COMPLETE,)
    return len(optuna.load_study(storage=journal(path), study_name=name).get_trials(states=states))


@pytest.fixture(scope="module")
def two_studies(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("journal") / "optuna.journal"
    record(path, "first")
    record(path, "second")
    return path.read_bytes()


@contextlib.contextmanager
def holding(content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optuna.journal"
        path.write_bytes(content)
        yield path


@given(st.data())
def test_wherever_it_is_torn_every_whole_record_stays(two_studies: bytes, data: st.DataObject) -> None:
    whole = two_studies[: data.draw(st.integers(0, len(two_studies)))]
    debris = data.draw(st.sampled_from([b"", b"\0" * 50, b"\xff\xfe\n\n{]", b"null\n", b'{"op_code": 3']))
    lines = whole[: whole.rfind(b"\n") + 1]
    with holding(whole + debris) as path:
        record(path, "third")
        assert path.read_bytes().startswith(lines)
        assert all(json.loads(line) for line in path.read_bytes().splitlines())
        assert trials(path, "third") == TRIALS
        if len(lines) == len(two_studies):
            assert trials(path, "first") == trials(path, "second") == TRIALS


@given(st.data())
def test_what_is_damaged_before_sound_records_is_refused_and_left_as_it_is(
    two_studies: bytes, data: st.DataObject
) -> None:
    lines = two_studies.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 2))
    debris = data.draw(st.sampled_from([b"\0\0\0\n", b"garbage\n", b"[1]\n", b"{}\n", lines[at][:9] + lines[at + 1]]))
    content = b"".join([*lines[:at], debris, *lines[at + 1 :]])
    with holding(content) as path:
        with pytest.raises(RequestError, match=rf"optuna\.journal is damaged in line {at + 1}.*move that file away"):
            journal(path)
        assert path.read_bytes() == content


@pytest.mark.parametrize("strange", [{"op_code": 5, "worker_id": "x"}, {"op_code": 99, "worker_id": "x"}])
def test_records_of_another_program_are_refused(strange: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    path.write_text(json.dumps(strange) + "\n")
    with pytest.raises(RequestError, match="does not hold together"):
        journal(path)


def test_a_record_for_which_there_is_no_room_is_not_written_in_part(two_studies: bytes, tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    path.write_bytes(two_studies)
    study = optuna.load_study(storage=journal(path), study_name="first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(two_studies) + 20, hard))  # as a full disk
    try:
        with pytest.raises(OSError):
            study.ask()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == two_studies


def test_no_file_of_a_dead_process_keeps_others_waiting(two_studies: bytes, tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    path.write_bytes(two_studies)
    (tmp_path / "optuna.journal.lock").symlink_to("gone")  # Optuna's own, of an earlier version
    record(path, "third")
    assert trials(path, "third") == TRIALS
