"""What every plugin has from its base class."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from tuner.plugin import Quantized, encode, missing
from tuner.system.loader import build
from tuner.target import Target
from tuner.testing.fakes import Null, Rounding

CPU = Target("mine", "cpu")


@dataclass(frozen=True)
class Picky(Null):
    devices: ClassVar[tuple[str, ...] | None] = ("nvidia",)
    inner: Rounding | None = None


@dataclass(frozen=True)
class Nibbles(Rounding):
    weights: ClassVar[Quantized | None] = "int4"


def test_a_library_that_is_there_is_not_missing() -> None:
    assert missing("json") is None


@pytest.mark.parametrize("text", ["import no_such_library", "raise RuntimeError('line\\nits driver is too old')"])
def test_a_library_that_does_not_import_is_told_with_the_mend(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_library.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    told = missing("broken_library", "mine[fast]") or ""
    assert told.startswith("broken_library does not import (")
    assert told.endswith("); pip install 'mine[fast]'")
    assert "\n" not in told


def test_a_plugin_for_other_devices_says_so() -> None:
    assert Null().elsewhere(CPU) is None
    assert Picky().elsewhere(CPU) == "null-2 works for nvidia devices only, and target=mine is a CPU"


def test_a_plugin_within_a_plugin_survives_json() -> None:
    plugin = Picky(inner=Rounding(2))
    assert encode(plugin)["inner"] == {"_target_": "tuner.testing.fakes.Rounding", "decimals": 2}
    assert build(encode(plugin), Picky, "plugin") == plugin


def test_a_quantizer_is_usual_as_it_comes() -> None:
    assert Nibbles().usual
    assert not replace(Nibbles(), decimals=2).usual
    assert not Rounding().usual
