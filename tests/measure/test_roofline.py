"""The roofline by hand, the peaks that targets declare, and those of this machine."""

import dataclasses
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuner.candidate import Candidate
from tuner.device import Peaks
from tuner.errors import RequestError
from tuner.measure.roofline import Standing, standing
from tuner.model import Work
from tuner.plugins.backends.eager import Eager
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.devices import cpu_peaks
from tuner.plugins.devices.cpu_peaks import last_level_cache
from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8
from tuner.request import compose
from tuner.target import Target

PEAKS = Peaks({"f32": 400e9, "int8": 1600e9}, memory_bytes_per_s=20e9, cache_bytes_per_s=200e9, cache_bytes=1_000_000)
WIDE = Work(flops=2_000_000, weights=1_000_000, weight_bytes=4_000_000, activation_bytes=4000)
"""A fully connected layer: at batch 1 every weight is read for one multiply-add."""


def candidate(precision: str, batch_size: int) -> Candidate:
    if precision == "int8":
        return Candidate((OnnxStaticInt8(),), OnnxRuntime(), batch_size)
    return Candidate((), Eager(precision), batch_size)  # type: ignore[arg-type]


def at(throughput: float, work: Work, batch_size: int, precision: str) -> Standing:
    found = standing(throughput, work, candidate(precision, batch_size), PEAKS)
    assert found is not None
    return found


def test_memory_bound_at_batch_1() -> None:
    found = at(2500, WIDE, 1, "f32")
    assert found.intensity == pytest.approx(2_000_000 / 4_004_000)
    assert found.attainable == pytest.approx(20e9 * found.intensity)
    assert found.bound == "memory"
    assert found.share == pytest.approx(2500 * 2e6 / found.attainable)


def test_more_than_all_is_never_a_share() -> None:
    found = at(5000, WIDE, 1, "f32")
    assert found.beaten
    assert found.share == 1.0


def test_compute_bound_once_a_batch_shares_the_weights() -> None:
    found = at(100_000, WIDE, 256, "f32")
    assert found.intensity == pytest.approx(2_000_000 / (4000 + 4_000_000 / 256))
    assert (found.bound, found.attainable, found.share) == ("compute", 400e9, 0.5)


def test_float_weights_used_in_int8_are_read_as_int8() -> None:
    assert at(1, WIDE, 1, "int8").intensity == pytest.approx(2_000_000 / 1_004_000)
    small = dataclasses.replace(WIDE, weights=100, weight_bytes=100)  # stored narrow, used in float
    assert at(1, small, 1, "f32").intensity == pytest.approx(2_000_000 / 4100)


def test_weights_that_only_are_stored_narrow_are_read_narrow() -> None:
    class WeightsOnly(OnnxStaticInt8):
        weights = "int4"
        activations = None

    found = standing(1, WIDE, Candidate((WeightsOnly(),), OnnxRuntime(), 1), PEAKS)
    assert found is not None
    assert (found.precision, found.intensity) == ("f32", pytest.approx(2_000_000 / 504_000))


def test_what_stays_in_the_cache_is_fed_from_there() -> None:
    fits = Work(flops=400_000, weights=200_000, weight_bytes=800_000, activation_bytes=1000)
    found = at(1, fits, 1, "f32")
    assert found.attainable == pytest.approx(200e9 * 400_000 / 801_000)
    assert at(1, fits, 200, "f32").attainable == min(400e9, 20e9 * 400_000 / 5000)  # its samples no longer fit


def test_nothing_without_a_peak_or_arithmetic() -> None:
    assert standing(1, WIDE, candidate("f16", 1), PEAKS) is None
    assert standing(1, dataclasses.replace(WIDE, flops=0), candidate("f32", 1), PEAKS) is None


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            Standing("int8", 0.42e12, 1.02e12, 99.0, "compute"),
            "reaches 41 % of what this CPU can do at int8 (compute-bound: 0.42 of 1.02 TOP/s)",
        ),
        (
            Standing("f32", 3.1e9, 412.3e9, 9.0, "memory"),
            "reaches less than 1 % of what this CPU can do at f32 (memory-bound: 3.1 of 412 GFLOP/s)",
        ),
        (
            Standing("bf16", 1e8, 400e12, 9.0, "compute"),
            "reaches less than 1 % of what this CPU can do at bf16 (compute-bound: <0.001 of 400 TFLOP/s)",
        ),
        (
            Standing("f32", 400e9, 400e9, 9.0, "compute"),
            "reaches 100 % of what this CPU can do at f32 (compute-bound: 400 of 400 GFLOP/s)",
        ),
        (
            Standing("f32", 100e9, 400e9, 9.0, "compute", spread=0.12),
            "reaches 25 % of what this CPU can do at f32 (compute-bound: 100 of 400 GFLOP/s, known within 12 %)",
        ),
        (
            Standing("f32", 100e9, 400e9, 9.0, "memory", spread=0.12, steady=False),
            "reaches 25 % of what this CPU can do at f32 (memory-bound: 100 of 400 GFLOP/s, "
            "measured on a busy machine: it may be more)",
        ),
        (
            Standing("int8", 2.02e12, 1e12, 9.0, "compute"),
            "beats the measured peak of this CPU at int8, 1 TOP/s (compute-bound): that must be 2.02 TOP/s at least, "
            "102 % more",
        ),
        (
            Standing("f32", 100e9, 400e9, 9.0, "memory", declared=True),
            "reaches 25 % of what this CPU can do at f32 by its declared peak (memory-bound: 100 of 400 GFLOP/s)",
        ),
        (
            Standing("f32", 401e9, 400e9, 9.0, "memory", declared=True),
            "beats the declared peak of this CPU at f32, 400 GFLOP/s (memory-bound): that must be 401 GFLOP/s at least",
        ),
    ],
)
def test_sentence(found: Standing, sentence: str) -> None:
    assert found.sentence("this CPU") == sentence


@pytest.mark.parametrize("name", ["a100", "h100", "h200", "cpu"])
def test_declared_for_gpus_only(name: str) -> None:
    target = dataclasses.replace(compose.targets([])[name], peak_device_name=None)
    peaks = target.peaks
    if target.device == "cpu":
        assert peaks is None
        return
    assert peaks is not None
    # dense figures: those with sparsity are twice these
    assert peaks.flops_per_s["int8"] == pytest.approx(2 * peaks.flops_per_s["f16"], rel=0.01)
    assert 1e12 < peaks.memory_bytes_per_s < 6e12


def test_target_keeps_its_figures_through_json() -> None:
    target = Target("h200", "nvidia", peak_tflops={"f16": 989.0}, memory_gb_s=4800.0)
    again = Target.from_json(json.loads(json.dumps(dataclasses.asdict(target))))
    assert again == target
    assert hash(again) == hash(target)
    before = {"name": "cpu", "device": "cpu", "onnxruntime_providers": ["CPUExecutionProvider"]}
    assert Target.from_json(before).peak_tflops == {}  # manifests written before they were declared


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"peak_tflops": {"fp16": 1.0}}, "'fp16' must be one of f32, tf32, bf16, f16, f8, int8, int4"),
        ({"peak_tflops": {"f16": 0.0}}, "peak_tflops.f16=0.0 must be more than 0"),
        ({"memory_gb_s": -1.0}, "memory_gb_s=-1.0 must be more than 0"),
    ],
)
def test_figures_that_cannot_be(figures: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Target("mine", "nvidia", **figures)  # type: ignore[arg-type]


def test_last_level_cache(tmp_path: Path) -> None:
    """Four cores; each pair shares a cache of level 3."""
    for cpu in range(4):
        for index, (level, size, shared) in enumerate(
            [(1, "48K", str(cpu)), (3, "32768K", "0-1" if cpu < 2 else "2-3")]
        ):
            folder = tmp_path / f"cpu{cpu}/cache/index{index}"
            folder.mkdir(parents=True)
            for name, text in (("level", level), ("size", size), ("shared_cpu_list", shared)):
                (folder / name).write_text(f"{text}\n")
    assert last_level_cache(tmp_path) == (32 * 2**20, 64 * 2**20)
    assert last_level_cache(tmp_path / "nowhere") == (0, 0)


def test_a_peak_is_the_work_of_a_call_over_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves by a fiftieth of a second whenever it is read, whatever this machine does meanwhile."""
    import torch

    threads, ticks = torch.get_num_threads(), itertools.count()
    monkeypatch.setattr(cpu_peaks, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 50))
    monkeypatch.setattr(cpu_peaks, "_BYTES", {"f32": 4, "int8": 1})  # by this clock none is found to be emulated
    try:
        peaks = cpu_peaks.measure_peaks(1)
    finally:
        torch.set_num_threads(threads)
    product = 2 * 512 * 512 * 1024
    assert peaks.flops_per_s == {"f32": pytest.approx(50 * product)}, "what is no faster than f32 is emulated"
    one, all_caches = last_level_cache()
    assert peaks.memory_bytes_per_s == pytest.approx(50 * min(max(4 * all_caches, 2**28), 2**31))
    assert (peaks.cache_bytes, peaks.cache_bytes_per_s) == (one, pytest.approx(50 * (one // 2)))
    assert peaks.spread.keys() >= {"f32", "memory"}
    assert set(peaks.spread.values()) == {0.0}
