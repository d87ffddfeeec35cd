"""Counters read from a stand-in for /sys/class/powercap, and from one for pynvml."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuner.measure import energy
from tuner.measure.energy import Counter, joules, used


def zone(root: Path, folder: str, name: str, uj: int, range_uj: int = 1_000_000_000) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{uj}\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two packages, one with parts, and what must not be counted twice."""
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 3_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 7_500_000)
    zone(tmp_path, "intel-rapl:2", "psys", 90_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)
    return tmp_path


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    energy._nvml.cache_clear()
    yield
    energy._nvml.cache_clear()


def test_every_package_once(root: Path) -> None:
    assert joules(root=root) == (Counter("package-0", 5.0, 1000.0), Counter("package-1", 7.5, 1000.0))


def test_used(root: Path) -> None:
    before = joules(root=root)
    (root / "intel-rapl:0/energy_uj").write_text("6000000\n")
    (root / "intel-rapl:1/energy_uj").write_text("8000000\n")
    assert used(before, joules(root=root)) == pytest.approx(1.5)


def test_a_counter_that_began_again(root: Path) -> None:
    (root / "intel-rapl:0/energy_uj").write_text("999000000\n")
    before = joules(root=root)
    (root / "intel-rapl:0/energy_uj").write_text("2000000\n")
    assert used(before, joules(root=root)) == pytest.approx(3.0)


def test_no_guess_without_a_range() -> None:
    assert used((Counter("gpu", 5.0),), (Counter("gpu", 4.0),)) is None


def test_nothing_between_different_counters() -> None:
    one, two = Counter("package-0", 1.0), Counter("gpu", 2.0)
    assert used((one,), (one, two)) is None
    assert used(None, (one,)) is None
    assert used((one,), None) is None


def test_absent(tmp_path: Path) -> None:
    assert joules(root=tmp_path / "nowhere") is None
    assert joules(root=tmp_path) is None


@pytest.mark.parametrize("damage", ["unreadable", "nonsense"])
def test_a_part_is_not_the_total(root: Path, damage: str) -> None:
    path = root / "intel-rapl:1/energy_uj"
    path.unlink()
    if damage == "nonsense":
        path.write_text("n/a")
    else:
        path.mkdir()  # an OSError for root as well
    assert joules(root=root) is None


class NvmlError(Exception):
    pass


def nvml(millijoules: int | None) -> SimpleNamespace:
    def energy_of(handle: object) -> int:
        if millijoules is None:
            raise NvmlError("Not Supported")
        return millijoules

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: ("index", index),
        nvmlDeviceGetHandleByUUID=lambda uuid: ("uuid", uuid),
        nvmlDeviceGetTotalEnergyConsumption=energy_of,
    )


def test_gpu_beside_the_packages(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(2500))
    found = joules(gpu=True, root=root)
    assert found is not None
    assert found[-1] == Counter("gpu", 2.5)
    assert joules(root=root) == found[:-1]


@pytest.mark.parametrize("module", [None, nvml(None)], ids=["not installed", "old GPU"])
def test_gpu_without_a_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert joules(gpu=True, root=tmp_path) is None


@pytest.mark.parametrize(
    ("visible", "handle"), [(None, ("index", 0)), ("3,1", ("index", 3)), ("GPU-5a", ("uuid", "GPU-5a"))]
)
def test_the_board_cuda_sees_first(monkeypatch: pytest.MonkeyPatch, visible: str | None, handle: object) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(0))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    opened = energy._nvml()
    assert opened is not None
    assert opened[1] == handle
