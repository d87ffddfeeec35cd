"""What a processor says of itself."""

import platform
from pathlib import Path

import pytest

from tuner.system.machine import saturates_int8


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
