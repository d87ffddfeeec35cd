"""What decides a plugin's work is part of the key under which it is kept."""

import importlib
from pathlib import Path

import pytest

from tuner.build.versions import plugin_version
from tuner.system.launcher import Launcher


def test_a_file_beside_a_plugin_that_it_imports_is_part_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "plugin.py").write_text(
        "from mine.helper import x\nfrom tuner.plugins.backends.eager import Eager\nclass Mine(Eager):\n    pass\n"
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
