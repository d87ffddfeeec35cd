"""Digests of values and files."""

import hashlib
import json
from pathlib import Path
from typing import Any

SEAL = ".entry.json"


def digest(value: Any) -> str:
    """16 hexadecimal digits of SHA-256 over canonical JSON (sorted keys, no blanks)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def files_digest(folder: Path) -> str:
    """One digest of every file under a folder, names included."""
    return digest(digests(folder))


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder, by relative path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SEAL)
    return {str(p.relative_to(folder)): file_digest(p) for p in files}


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
