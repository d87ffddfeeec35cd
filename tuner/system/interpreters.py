"""Python environments for plugins whose libraries fit nobody else's.

Each is a folder named by the digest of its requirements, the version of Python and the platform. It is made in place,
because programs in it know where they lie, and sealed when it is whole: one without a seal is made again, never used.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuner.errors import RequestError
from tuner.system.digests import SEAL, digest
from tuner.system.files import critical_section
from tuner.system.said import last_line

_LIMIT_S = 3600.0


def find(root: Path, requirements: Sequence[str]) -> Path | None:
    """The interpreter of the environment kept under `root` for those requirements; None where there is none."""
    folder = _folder(root, requirements)
    interpreter = folder / "bin" / "python"
    try:
        os.utime(folder / SEAL)  # when it was last asked for
    except OSError:
        return None
    return interpreter if interpreter.exists() else None


def install(root: Path, requirements: Sequence[str], log: Path) -> Path:
    """The same, made with `python -m venv` and pip where it is not there yet; it may take minutes.

    Several processes that want one wait for the first to make it. What pip says goes to `log`. Raises RequestError
    where it cannot be made, with the last thing said.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = _folder(root, requirements)
    with critical_section(root / f".lock-{folder.name}"):
        if (interpreter := find(root, requirements)) is not None:
            return interpreter
        shutil.rmtree(folder, ignore_errors=True)
        interpreter = folder / "bin" / "python"
        _run([sys.executable, "-m", "venv", str(folder)], log)
        _run([str(interpreter), "-m", "pip", "install", "--disable-pip-version-check", *requirements], log)
        (folder / SEAL).write_text(json.dumps(_made_from(requirements), indent=1))
    return interpreter


def absence(requirements: Sequence[str]) -> str:
    """Why a plugin with those requirements cannot run where there is no environment for them, and the mend."""
    return (
        f"it needs a Python environment of its own with {', '.join(requirements)}, and there is none yet; "
        "tuner.system.interpreters.install makes it"
    )


def _folder(root: Path, requirements: Sequence[str]) -> Path:
    return root / digest(_made_from(requirements))


def _made_from(requirements: Sequence[str]) -> dict[str, Any]:
    return {
        "requirements": sorted(requirements),
        "python": platform.python_version(),
        "platform": sysconfig.get_platform(),
    }


def _run(command: list[str], log: Path) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RequestError(f"{' '.join(command)}: no end after {_LIMIT_S:.0f} s; the log is {log}") from error
    with log.open("a") as file:
        file.write(done.stdout)
    if done.returncode:
        raise RequestError(f"{' '.join(command)}: {last_line(done.stdout)}; the log is {log}")
