"""What a processor says of itself."""

import platform
from pathlib import Path

import pytest

from tuner.system.machine import instructions, saturates_int8


@pytest.mark.parametrize(
    ("flags", "saturates"), [("avx2 fma", True), ("avx512f avx512_vnni", False), ("avx2 avx_vnni", False)]
)
def test_without_vnni_sums_of_bytes_saturate(
    flags: str, saturates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"model name\t: one\nflags\t\t: {flags}\n")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert saturates_int8(file) is saturates
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert saturates_int8(file) is False


def test_one_name_stands_for_several_processors_and_an_update_of_the_kernel_for_none(tmp_path: Path) -> None:
    def made(name: str, flags: str) -> str:
        (tmp_path / name).write_text(f"vendor_id\t: AMD\ncpu family\t: 25\nmodel name\t: EPYC\nflags\t: {flags}\n")
        return instructions(tmp_path / name)

    assert made("milan", "fpu sse4_2 avx2 ibrs") == made("updated", "fpu sse4_2 avx2 ibrs ssbd")
    assert made("milan", "fpu sse4_2 avx2 ibrs") != made("genoa", "fpu sse4_2 avx2 avx512f ibrs")
