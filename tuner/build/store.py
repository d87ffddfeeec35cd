"""Results kept on disk by the content of what went into them: one folder an entry.

An entry is made in a temporary folder and renamed into place, so it is whole or absent. Several processes that want the
same one wait for the first to make it. A digest of its files goes with it; an entry that no longer matches is made
again. The time of that digest's file is when the entry was last asked for.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.system.deadline import Waiting
from tuner.system.digests import SEAL, digest, digests
from tuner.system.files import critical_section

_DRAFT = ".draft-"
_LARGE_BYTES = 64 * 2**20  # of a file that is worth sharing
_IN_USE_S = 3600.0  # an entry asked for within this time may belong to a running study


@dataclass(frozen=True)
class Entry:
    """What the store keeps of one stage's result. Seconds are those of the system's clock."""

    stage: str
    path: Path
    size_mb: float
    used_s: float


class Store:
    """Entries under `root`, addressed by a JSON value: everything that decides their content."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._believed: set[Path] = set()

    @property
    def environments(self) -> Path:
        """Where the Python environments of plugins with requirements of their own lie (`tuner.system.interpreters`)."""
        return self.root / "environments"

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that is gone afterwards. Drafts that killed processes left behind go too, after a day."""
        self.root.mkdir(parents=True, exist_ok=True)
        for draft in (*self.root.glob(f"{_DRAFT}*"), *self.root.glob(f"*/{_DRAFT}*")):
            if time.time() - draft.stat().st_mtime > 86_400:
                shutil.rmtree(draft, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=self.root) as path:
            yield Path(path)

    @property
    def plugins(self) -> Path:
        """Where plugins keep records themselves: a folder for each class."""
        path = self.root / "plugins"
        path.mkdir(parents=True, exist_ok=True)
        return path

    @staticmethod
    def home(kind: type) -> str:
        """The name of such a folder."""
        return f"{kind.__module__}.{kind.__qualname__}"

    def folder(self, name: str) -> Path:
        """A plain folder that outlives studies, for records a plugin keeps itself."""
        path = self.plugins / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def get(self, stage: str, key: dict[str, Any]) -> Path | None:
        """The entry's folder, or None where there is none that holds together."""
        path = self._path(stage, key)
        if path in self._believed:
            with contextlib.suppress(OSError):  # unless somebody removed it
                os.utime(path / SEAL)
                return path
        if not path.exists():
            return None
        if _whole(path):
            self._believed.add(path)
            with contextlib.suppress(OSError):
                os.utime(path / SEAL)
            return path
        _remove(path)
        return None

    def forget(self, stage: str, key: dict[str, Any]) -> None:
        """The entry is gone, where there was one."""
        path = self._path(stage, key)
        self._believed.discard(path)
        if path.exists():
            _remove(path)

    def make(
        self,
        stage: str,
        key: dict[str, Any],
        fill: Callable[[Path], None],
        waiting: Waiting = contextlib.nullcontext,
        *,
        linked: bool = False,
    ) -> Path:
        """The entry, filled by `fill(folder)` where it is not there yet. Whatever `fill` raises passes through.
        `waiting` is entered while another process makes it. `linked`: a large file that another entry of the stage has
        too is a hard link to that one."""
        if found := self.get(stage, key):
            return found
        path = self._path(stage, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        neighbours = path.parent / f".lock-{path.name[:2]}"  # few files, and few wait for a neighbour
        with critical_section(neighbours, waiting):
            if found := self.get(stage, key):
                return found
            draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=path.parent))
            try:
                fill(draft)
                seal = {"key": key, "files": digests(draft)}
                if linked:
                    _link(draft, seal["files"], path.parent)
                (draft / SEAL).write_text(json.dumps(seal, indent=1))
                draft.rename(path)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        self._believed.add(path)
        return path

    def entries(self) -> list[Entry]:
        """Every whole entry, and each plugin's own folder (stage `plugins`), the longest unused first."""
        entries = []
        for path in self.root.glob("*/*"):
            with contextlib.suppress(OSError):  # another process may remove it meanwhile
                seal = path / SEAL
                own = path.parent.name == "plugins"
                if path.is_dir() and not path.name.startswith(".") and (own or seal.exists()):
                    files = [file.stat() for file in path.rglob("*") if file.is_file()]
                    used_s = (
                        max((f.st_mtime for f in files), default=path.stat().st_mtime) if own else seal.stat().st_mtime
                    )
                    entries.append(
                        Entry(path.parent.name, path, sum(f.st_size / f.st_nlink for f in files) / 1e6, used_s)
                    )
        return sorted(entries, key=lambda entry: entry.used_s)

    def trim(self, max_mb: float | None, max_age_s: float | None) -> list[Entry]:
        """Removes what was not asked for within `max_age_s`, then the longest unused until `max_mb` are left.

        What was asked for in the last hour stays: a study may be using it. Returns what is gone.
        """
        now, entries = time.time(), self.entries()
        left_mb = sum(entry.size_mb for entry in entries)
        removed = []
        for entry in entries:
            old = max_age_s is not None and now - entry.used_s > max_age_s
            too_much = max_mb is not None and left_mb > max_mb
            if (old or too_much) and now - entry.used_s > _IN_USE_S:
                _remove(entry.path)
                left_mb -= entry.size_mb
                removed.append(entry)
        return removed

    def _path(self, stage: str, key: dict[str, Any]) -> Path:
        return self.root / stage / digest(key)


def content_digest(entry: Path) -> str:
    """One digest of all the files of an entry, whatever it was made from."""
    return digest(json.loads((entry / SEAL).read_text())["files"])


def _link(draft: Path, files: Mapping[str, str], stage: Path) -> None:
    """Large files of a draft that an entry of its stage has too become hard links to those."""
    large = {name for name in files if (draft / name).stat().st_size >= _LARGE_BYTES}
    for seal in stage.glob(f"*/{SEAL}") if large else ():
        with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):  # torn, or removed meanwhile
            there = {digest: name for name, digest in json.loads(seal.read_text())["files"].items()}
            for name in [name for name in large if files[name] in there]:
                link = draft / f"{name}{_DRAFT}"
                link.hardlink_to(seal.parent / there[files[name]])
                link.replace(draft / name)
                large.remove(name)


def _remove(path: Path) -> None:
    """Gone at once for whoever looks, then from the disk."""
    with contextlib.suppress(OSError):  # somebody else was first
        gone = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=path.parent))
        path.rename(gone / path.name)
        shutil.rmtree(gone, ignore_errors=True)


def _whole(path: Path) -> bool:
    try:
        seal = json.loads((path / SEAL).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(seal, dict) and seal.get("files") == digests(path)
