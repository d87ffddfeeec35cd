"""The catalog finds what lies in a family's folder, and what other distributions name by an entry point."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tuner import catalog
from tuner.dataset import Dataset
from tuner.errors import RequestError
from tuner.model import ModelSource
from tuner.plugin import Backend, Stage, Transform

Install = Callable[..., None]

OWN = """
from dataclasses import dataclass
from typing import ClassVar
from tuner.plugin import Backend, Transform
from tuner.plugins.backends.eager import Eager

@dataclass(frozen=True)
class Mine(Eager):
    pass

class Unfinished(Backend):
    pass

class _Private(Eager):
    pass
"""


@pytest.fixture(autouse=True)
def _looks_again() -> Iterator[None]:
    """What other distributions have is asked once a process."""
    every = (catalog.members, catalog.values, catalog._outside)
    for remembered in every:
        remembered.cache_clear()
    yield
    for remembered in every:
        remembered.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution with one module of plugins."""

    def run(distribution: str, text: str) -> None:
        module = f"{distribution}_plugins"
        (tmp_path / f"{module}.py").write_text(text)
        about = tmp_path / f"{distribution}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[tuner.plugins]\n{distribution} = {module}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return run


def names(kind: type) -> list[str]:
    return [member.__name__ for member in catalog.members(kind)]


def test_every_family_is_found() -> None:
    assert {"Eager", "Inductor", "OnnxRuntime", "OpenVINO", "TVM"} <= set(names(Backend))
    assert {"OnnxStaticInt8", "StructuredPruning"} <= set(names(Transform))
    assert {"Digits", "Npz"} <= set(names(Dataset))
    assert {"OnnxModel", "TorchModel"} <= set(names(ModelSource))


def test_a_narrower_kind_is_apart() -> None:
    assert "Recovery" in names(Stage)
    assert not set(names(Stage)) & set(names(Transform))


def test_another_distribution_adds_its_own(install: Install) -> None:
    before = names(Backend)
    catalog.members.cache_clear()
    catalog._outside.cache_clear()
    install("mylab", OWN)
    assert names(Backend) == [*before, "Mine"]


def test_a_distribution_that_does_not_import_is_named_with_the_mend(install: Install) -> None:
    install("mylab", "import no_such_library\n")
    with pytest.raises(RequestError, match="pip uninstall mylab") as caught:
        catalog.members(Backend)
    assert "no_such_library" in str(caught.value)


def test_values_at_the_top_of_modules_are_found(install: Install) -> None:
    install("mylab", OWN + "MINE = Mine()\n_HIDDEN = Mine('bf16')\n")
    assert [type(value).__name__ for value in catalog.values(Backend)] == ["Mine"]
