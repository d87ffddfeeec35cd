"""Peaks are measured in turns until they are steady, kept, and measured again when something speaks against them."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import outside, study
from tests.conftest import with_store
from tuner.build.store import Store
from tuner.device import Device, Peaks
from tuner.evaluate import peaks as evaluate_peaks
from tuner.evaluate.peaks import KnownPeaks
from tuner.plugins.devices.turns import best_of_turns
from tuner.system.launcher import Launcher
from tuner.target import Target

# --- turns


def turns(*rates: float) -> Callable[[], dict[str, float]]:
    """Turns that give these rates, the last of them for ever."""
    given = itertools.chain(rates, itertools.repeat(rates[-1]))
    return lambda: {"f32": next(given), "memory": 7.0}


def ticking() -> Callable[[], float]:
    return itertools.count().__next__


def test_a_quiet_machine_takes_the_least_turns() -> None:
    turn = turns(100.0, 99.0, 101.0, 100.0, 500.0)
    best = best_of_turns(turn, least=4, limit_s=50, clock=ticking())
    assert best.rates == {"f32": 101.0, "memory": 7.0}
    assert best.steady


def test_turns_go_on_until_the_best_were_seen_again() -> None:
    """Somebody was at work during the first six."""
    turn = turns(40.0, 55.0, 41.0, 100.0, 60.0, 42.0, 99.0, 98.0, 1000.0)
    best = best_of_turns(turn, least=4, limit_s=50, clock=ticking())
    assert best.rates["f32"] == 100.0
    assert best.steady
    assert best.spread == {"f32": pytest.approx(0.02), "memory": 0.0}


def test_turns_that_never_agree_end_at_the_limit_and_are_not_called_steady() -> None:
    halves = iter([100.0 / 2**n for n in range(100)])
    best = best_of_turns(lambda: {"f32": next(halves)}, least=4, limit_s=9, clock=ticking())
    assert best.rates == {"f32": 100.0}
    assert best.spread == {"f32": 0.75}
    assert not best.steady


def test_two_measurements_tell_the_higher_of_each_figure() -> None:
    first = Peaks({"f32": 4.0, "bf16": 9.0}, 2.0, 8.0, 100, spread={"f32": 0.2, "memory": 0.1}, steady=False)
    later = Peaks({"f32": 5.0, "int8": 7.0}, 1.0, 8.0, 100, spread={"f32": 0.01, "memory": 0.3})
    rates = {"f32": 5.0, "bf16": 9.0, "int8": 7.0}
    assert first.joined(later) == Peaks(rates, 2.0, 8.0, 100, spread={"f32": 0.01, "memory": 0.1})


# --- what is kept


class Abacus(Device):
    """Tells what a file says, and notes beside it that it was asked."""

    name = "cpu"
    kind = "an abacus"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def found(self) -> tuple[str, ...]:
        return ("Abacus 30",)

    def measure_peaks(self, threads: int) -> Peaks:
        with (self.folder / "asked").open("a") as asked:
            asked.write("again\n")
        rate, steady = (self.folder / "rate").read_text().split()
        return Peaks({"f32": float(rate)}, 1e9, steady=steady == "steady")


@dataclass(frozen=True)
class Board(Target):
    folder: Path = Path()

    @property
    def hardware(self) -> Device:
        return Abacus(self.folder)


Asking = Callable[[], KnownPeaks]


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    """What one study after the other knows."""
    target = Board("board", "cpu", threads=1, folder=tmp_path)
    launcher = Launcher(500.0, target.environment)
    return lambda: KnownPeaks(target, Store(tmp_path / "cache"), launcher, tmp_path / "log")


def asked(folder: Path) -> int:
    return len((folder / "asked").read_text().splitlines())


def test_steady_peaks_are_measured_once_for_all_studies(
    asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rate").write_text("5.0 steady")
    first = asking().now()
    monkeypatch.setattr(evaluate_peaks.time, "time", lambda: 1e12)
    assert asking().now() == first == Peaks({"f32": 5.0}, 1e9)
    assert asked(tmp_path) == 1


@pytest.mark.slow
def test_disturbed_peaks_are_measured_again_an_hour_later(
    asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rate").write_text("2.0 disturbed")
    asking().now()
    (tmp_path / "rate").write_text("5.0 steady")
    assert asking().now() == Peaks({"f32": 2.0}, 1e9, steady=False)
    monkeypatch.setattr(evaluate_peaks.time, "time", lambda: 1e12)
    assert asking().now() == asking().now() == Peaks({"f32": 5.0}, 1e9)
    assert asked(tmp_path) == 2


@pytest.mark.slow
def test_peaks_that_were_beaten_are_measured_again_and_never_fall(asking: Asking, tmp_path: Path) -> None:
    (tmp_path / "rate").write_text("2.0 steady")
    peaks = asking().now()
    assert peaks is not None
    (tmp_path / "rate").write_text("5.0 steady")
    assert asking().contradicted(peaks) == asking().now() == Peaks({"f32": 5.0}, 1e9)
    (tmp_path / "rate").write_text("3.0 steady")
    assert asking().contradicted(Peaks({"f32": 5.0}, 1e9)) == Peaks({"f32": 5.0}, 1e9)
    assert asked(tmp_path) == 3


def test_declared_peaks_are_believed(tmp_path: Path) -> None:
    target = Board("board", "cpu", peak_tflops={"f32": 2.0}, memory_gb_s=100.0, folder=tmp_path)
    peaks = KnownPeaks(target, Store(tmp_path / "cache"), Launcher(500.0), tmp_path / "log")
    declared = Peaks({"f32": 2e12}, 1e11, declared=True)
    assert peaks.now() == peaks.contradicted(declared) == declared
    assert not (tmp_path / "asked").exists()


# --- a study


BUSY = """
import os
from pathlib import Path
from tuner.device import Device, Peaks

class Abacus(Device):
    name = "abacus"
    kind = "an abacus"

    def found(self):
        return ("Abacus 30",)

    def measure_peaks(self, threads):
        rates = Path(os.environ["ABACUS_RATES"])
        rate, *later = rates.read_text().split()
        rates.write_text(" ".join(later or [rate]))
        return Peaks({"f32": float(rate)}, memory_bytes_per_s=1e12)
"""


@pytest.fixture
def tuned(tmp_path: Path, shared: Path) -> Iterator[Callable[[str], dict[str, float | str]]]:
    """The champion's standing by a study on a device whose peak is measured so one time after the other."""
    with_store(tmp_path, shared)
    outside.install(tmp_path / "site", "abacus", BUSY)
    paths = os.pathsep.join([str(tmp_path / "site"), str(study.ROOT)])
    rates = tmp_path / "rates"
    variables = os.environ | {"PYTHONPATH": paths, "ABACUS_RATES": str(rates)}
    overrides = ["latency_ms=20", "target.name=board", "target.device=abacus", "search_space.batch_size=[4]"]
    overrides += study.MEASURED

    def standing(text: str) -> dict[str, float | str]:
        rates.write_text(text)
        with study.process(tmp_path, *overrides, "search_space.deploy.0.backend.ms=1.0", env=variables) as process:
            told, wrong = process.communicate()
        assert process.returncode == 0, wrong + told
        found: dict[str, float | str] = study.result(tmp_path, "linear-board-001")["champion"]["roofline"]
        assert str(found["sentence"]) in told
        return found

    yield standing


@pytest.mark.slow
def test_a_peak_that_a_busy_machine_gave_does_not_stay(tuned: Callable[[str], dict[str, float | str]]) -> None:
    found = tuned("1000 1e6")
    assert found["attainable"] == 1e6
    assert 0 < float(found["share"]) < 1
    assert str(found["sentence"]).startswith("reaches ")


@pytest.mark.slow
def test_a_peak_that_is_beaten_again_is_told_as_such(tuned: Callable[[str], dict[str, float | str]]) -> None:
    found = tuned("1000 2000")
    assert found["share"] == 1.0
    assert "beats the measured peak of this device at f32" in str(found["sentence"])
    assert "at least" in str(found["sentence"])
