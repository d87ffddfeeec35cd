"""What decides a plugin's work is part of the key under which it is kept."""

import importlib
import sys
from pathlib import Path

import pytest

from tuner.build.versions import plugin_version
from tuner.system.launcher import Launcher


@pytest.mark.parametrize("line", ["from mine.helper import x", "from .helper import x", "from . import helper"])
def test_a_file_beside_a_plugin_that_it_imports_is_part_of_its_code(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        monkeypatch.delitem(sys.modules, name)
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "plugin.py").write_text(
        f"{line}\nfrom tuner.plugins.backends.eager import Eager\nclass Mine(Eager):\n    pass\n"
    )
    (package / "helper.py").write_text("from mine.deeper import x\n")
    (package / "deeper.py").write_text("x = 1\n")
    (package / "other.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugin, launcher = importlib.import_module("mine.plugin").Mine(), Launcher(4096)
    before = plugin_version(plugin, launcher)["file"]
    (package / "other.py").write_text("x = 2\n")
    assert plugin_version(plugin, launcher)["file"] == before
    (package / "deeper.py").write_text("x = 2\n")
    assert plugin_version(plugin, launcher)["file"] != before
