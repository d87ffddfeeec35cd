"""Values and files on their way to another machine, where the same folders lie elsewhere.

A path below an anchored folder travels as what it is below that, and is set below the other machine's.
"""

import io
import pickle
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def packed(value: Any, root: Path) -> tuple[bytes, list[str]]:
    """The value as bytes, and the paths below `root` that it names, as they are below it."""
    places: dict[str, None] = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, item: Any) -> str | None:
            if not (isinstance(item, Path) and item.is_relative_to(root)):
                return None
            places[str(item.relative_to(root))] = None
            return str(item.relative_to(root))

    buffer = io.BytesIO()
    Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue(), list(places)


def unpacked(data: bytes, place: Callable[[str], Path]) -> Any:
    """The value again; `place` says where a path lies here."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, relative: str) -> Path:
            return place(relative)

    return Unpickler(io.BytesIO(data)).load()


def archive(path: Path) -> bytes:
    """A file or a folder, with all that is in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(path, arcname="it")
    return buffer.getvalue()


def restore(data: bytes, path: Path) -> None:
    """Puts there what was archived, whole or not at all. Harmless where somebody else was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=path.parent))
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extractall(draft, filter="data")
        if not path.exists():
            try:
                (draft / "it").rename(path)
            except OSError:
                if not path.exists():  # else somebody else was first
                    raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
