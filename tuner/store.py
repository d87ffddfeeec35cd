"""Results kept on disk by the content of what went into them: one folder an entry.

An entry is made in a temporary folder and renamed into place, so it is whole or absent, with many writers too.
A digest of its files goes with it; an entry that no longer matches is made again.
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tuner.candidate import digest

_SEAL = ".entry.json"
_DRAFT = ".draft-"


class Store:
    """Entries under `root`, addressed by a JSON value: everything that decides their content."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._believed: set[Path] = set()

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that is gone afterwards. Drafts that killed processes left behind go too, after a day."""
        self.root.mkdir(parents=True, exist_ok=True)
        for draft in (*self.root.glob(f"{_DRAFT}*"), *self.root.glob(f"*/{_DRAFT}*")):
            if time.time() - draft.stat().st_mtime > 86_400:
                shutil.rmtree(draft, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=self.root) as path:
            yield Path(path)

    def folder(self, name: str) -> Path:
        """A plain folder that outlives studies, for records a plugin keeps itself."""
        path = self.root / "plugins" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def get(self, stage: str, key: dict[str, Any]) -> Path | None:
        """The entry's folder, or None where there is none that holds together."""
        path = self._path(stage, key)
        if path in self._believed:
            return path
        if not path.exists():
            return None
        if _whole(path):
            self._believed.add(path)
            return path
        shutil.rmtree(path, ignore_errors=True)
        return None

    def make(self, stage: str, key: dict[str, Any], fill: Callable[[Path], None]) -> Path:
        """The entry, filled by `fill(folder)` where it is not there yet. Whatever `fill` raises passes through."""
        if found := self.get(stage, key):
            return found
        path = self._path(stage, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=path.parent))
        try:
            fill(draft)
            seal = {"key": key, "files": digests(draft)}
            (draft / _SEAL).write_text(json.dumps(seal, indent=1))
            with contextlib.suppress(OSError):  # another writer was first: the content is the same
                draft.rename(path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self._believed.add(path)
        return path

    def _path(self, stage: str, key: dict[str, Any]) -> Path:
        return self.root / stage / digest(key)


def files_digest(folder: Path) -> str:
    """One digest of every file under a folder, names included."""
    return digest(digests(folder))


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder, by relative path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != _SEAL)
    return {str(p.relative_to(folder)): _sha256(p) for p in files}


def _whole(path: Path) -> bool:
    try:
        seal = json.loads((path / _SEAL).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(seal, dict) and seal.get("files") == digests(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
