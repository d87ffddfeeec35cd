"""Python environments for plugins whose libraries fit nobody else's.

Each is a folder named by the digest of its requirements, the version of Python and the platform. It is made in place,
because programs in it know where they lie, and sealed when it is whole: one without a seal is made again, never used.
The seal holds the version of everything that pip chose: its lock.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from tuner.errors import CandidateError, RequestError
from tuner.system.digests import SEAL, digest
from tuner.system.files import critical_section
from tuner.system.said import last_line

_LIMIT_S = 3600.0


@dataclass(frozen=True)
class Environment:
    """One that is whole: its interpreter, what it was made from, and the exact version of all that is in it."""

    interpreter: Path
    requirements: tuple[str, ...] = ()
    python: str = ""
    platform: str = ""
    locked: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Hexadecimal digits that stand for what is in it, which two of the same requirements may differ in."""
        return digest(self.locked)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "interpreter": str(self.interpreter)}


def usual_root() -> Path:
    """Where a command keeps environments, unless it names a cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "inference-tuner" / "environments"


def find(root: Path, requirements: Sequence[str]) -> Environment | None:
    """The environment kept under `root` for those requirements; None where there is none that is whole."""
    folder = _folder(root, requirements)
    interpreter = folder / "bin" / "python"
    try:
        os.utime(folder / SEAL)  # when it was last asked for
        seal = json.loads((folder / SEAL).read_text())
        made_from = {**seal, "requirements": tuple(seal["requirements"]), "locked": tuple(seal.get("locked", ()))}
        environment = Environment(interpreter, **made_from)
    except (OSError, ValueError, KeyError, TypeError):  # torn
        return None
    return environment if interpreter.exists() else None


def install(root: Path, requirements: Sequence[str], log: Path) -> Environment:
    """The same, made with `python -m venv` and pip where it is not there yet; it may take minutes.

    Several processes that want one wait for the first to make it. What pip says goes to `log`. Raises RequestError
    where it cannot be made, with the last thing said.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = _folder(root, requirements)
    with critical_section(root / f".lock-{folder.name}"):
        if (environment := find(root, requirements)) is not None:
            return environment
        shutil.rmtree(folder, ignore_errors=True)
        pip = [str(folder / "bin" / "python"), "-I", "-m", "pip"]  # what PYTHONPATH adds is not in it
        _run([sys.executable, "-m", "venv", str(folder)], log)
        _run([*pip, "install", "--disable-pip-version-check", *requirements], log)
        locked = _run([*pip, "freeze", "--disable-pip-version-check"], log).splitlines()
        (folder / SEAL).write_text(json.dumps({**_made_from(requirements), "locked": locked}, indent=1))
        made = find(root, requirements)
    assert made is not None, "it has just been made"
    return made


def require(root: Path | None, name: str, requirements: Sequence[str]) -> Environment:
    """The environment that is kept for the plugin of that name. Raises CandidateError with the mend where there is
    none."""
    if root is not None and (environment := find(root, requirements)) is not None:
        return environment
    elsewhere = "" if root is None or root == usual_root() else f" cache_dir={root.parent}"
    raise CandidateError(
        "error",
        f"it needs a Python environment of its own with {', '.join(requirements)}, and there is none: "
        f"tune doctor --install {name}{elsewhere}",
    )


def satisfied(requirements: Sequence[str]) -> bool:
    """Whether this interpreter has what is required, at such a version."""
    for requirement in map(Requirement, requirements):
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return False
        if not requirement.specifier.contains(installed, prereleases=True):
            return False
    return True


def _folder(root: Path, requirements: Sequence[str]) -> Path:
    return root / digest(_made_from(requirements))


def _made_from(requirements: Sequence[str]) -> dict[str, Any]:
    return {
        "requirements": sorted(requirements),
        "python": platform.python_version(),
        "platform": sysconfig.get_platform(),
    }


def _run(command: list[str], log: Path) -> str:
    """What the command says, which goes to `log` too."""
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
    return done.stdout
