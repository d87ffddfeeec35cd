import ctypes
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.util import get_temp_dir
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.study import Refused
from tuner.cli import main
from tuner.evaluate.rig import preload_children

# how long an example takes says something of the machine, not of the code
settings.register_profile("tuner", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tuner")

# as a study does it, for whichever test starts the first child
preload_children()


if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of several at a time, each has a core


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several run at a time, those of a module that share a fixture stay together. The slow ones come first, then
    those that are together, so that nobody waits for the last of them."""
    shared = {
        path
        for path in {item.path for item in items}
        if re.search(r'scope="module"|testing\.contract import', path.read_text())
    }
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, item.path not in shared))
    for item in items:
        if item.path in shared and not item.get_closest_marker("xdist_group"):  # two groups would be a third
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(scope="session", autouse=True)
def _locks_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Studies of the fakes have no need to wait until the machine is theirs: their clocks are not the machine's."""
    tmp_path_factory.getbasetemp()  # this and multiprocessing's own stay where they are: they outlive the session
    get_temp_dir()
    with tempfile.TemporaryDirectory(prefix="tuner-tests-") as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder).chmod(0o755)  # PostgreSQL's user passes through
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What takes seconds to make and decides nothing: an empty MLflow store, and the built stages of the fakes."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("shared")
    (folder / "cache").mkdir()
    MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder


def with_store(folder: Path, shared: Path, out: str = "out") -> Path:
    """The folder, with an empty store where studies that leave what they find in `out` look for one."""
    (folder / out).mkdir()
    (folder / out / "mlflow.db").write_bytes((shared / "mlflow.db").read_bytes())
    return folder


def furnished(folder: Path, shared: Path) -> Path:
    """A folder for studies, as `tests.study` expects it."""
    with_store(folder, shared)
    (folder / "cache").symlink_to(shared / "cache")
    return folder


@pytest.fixture
def place(shared: Path, tmp_path: Path) -> Path:
    return furnished(tmp_path, shared)


class _NoAlternateStack(ctypes.Structure):
    """C's `stack_t`."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_SS_DISABLE = 2


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """Ctrl-C is heeded, which in the background it is not. OpenVINO gives the thread that loads it an alternate stack
    for signals, and frees that stack when it is unloaded: the next signal would end the process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ctypes.CDLL(None).sigaltstack(ctypes.byref(_NoAlternateStack(flags=_SS_DISABLE)), None)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command line that must be refused, and returns the message. Where something may be `written`, it is in the
    cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # a study adds the folder it is run in

    def run(*arguments: str, written: bool = False) -> str:
        def there() -> list[Path]:
            cache = tmp_path / "cache"
            return sorted(path for path in tmp_path.rglob("*") if not (written and path.is_relative_to(cache)))

        before = there()
        code = main([*arguments, f"cache_dir={tmp_path / 'cache'}"])
        told = capsys.readouterr()
        assert code == 2
        assert told.out == ""
        message = told.err.splitlines()[-1]
        assert message.startswith("tune: ")
        assert message.count("tune: ") == told.err.count("tune: ") == 1
        assert "Traceback" not in told.err
        assert len(message) < 600
        assert there() == before, "nothing written"
        if not written:
            assert told.err == message + "\n"
        return message

    return run
