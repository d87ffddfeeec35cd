import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What takes seconds to make and decides nothing: an empty MLflow store, and the built stages of the fakes."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("shared")
    (folder / "cache").mkdir()
    MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder


def furnished(folder: Path, shared: Path) -> Path:
    """A folder for studies, as `tests.study` expects it."""
    (folder / "out").mkdir()
    (folder / "out/mlflow.db").write_bytes((shared / "mlflow.db").read_bytes())
    (folder / "cache").symlink_to(shared / "cache")
    return folder


@pytest.fixture
def place(shared: Path, tmp_path: Path) -> Path:
    return furnished(tmp_path, shared)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
