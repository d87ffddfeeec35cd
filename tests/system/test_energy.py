"""Counters read from a stand-in for /sys/class/powercap."""

from pathlib import Path

import pytest

from tuner.system.energy import Counter, packages, used


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


def test_every_package_once(root: Path) -> None:
    assert packages(root) == (Counter("package-0", 5.0, 1000.0), Counter("package-1", 7.5, 1000.0))


def test_used(root: Path) -> None:
    before = packages(root)
    (root / "intel-rapl:0/energy_uj").write_text("6000000\n")
    (root / "intel-rapl:1/energy_uj").write_text("8000000\n")
    assert used(before, packages(root)) == pytest.approx(1.5)


def test_a_counter_that_began_again(root: Path) -> None:
    (root / "intel-rapl:0/energy_uj").write_text("999000000\n")
    before = packages(root)
    (root / "intel-rapl:0/energy_uj").write_text("2000000\n")
    assert used(before, packages(root)) == pytest.approx(3.0)


def test_no_guess_without_a_range() -> None:
    assert used((Counter("gpu", 5.0),), (Counter("gpu", 4.0),)) is None


def test_nothing_between_different_counters() -> None:
    one, two = Counter("package-0", 1.0), Counter("gpu", 2.0)
    assert used((one,), (one, two)) is None
    assert used((), (one,)) is None
    assert used((one,), ()) is None


def test_absent(tmp_path: Path) -> None:
    assert packages(tmp_path / "nowhere") == ()
    assert packages(tmp_path) == ()


@pytest.mark.parametrize("damage", ["unreadable", "nonsense"])
def test_a_part_is_not_the_total(root: Path, damage: str) -> None:
    path = root / "intel-rapl:1/energy_uj"
    path.unlink()
    if damage == "nonsense":
        path.write_text("n/a")
    else:
        path.mkdir()  # an OSError for root as well
    assert packages(root) == ()
