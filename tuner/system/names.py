"""Names that become parts of paths: what a person or a file is called, and the folders that are numbered."""

import re
from pathlib import Path

LONGEST = 100  # bytes of a part of a name; a file system takes 255, and a number and endings come behind


def slug(name: str) -> str:
    """The name as a part of a path: what is neither letter, digit, '.', '_' nor '-' becomes '_', and it neither begins
    with a dot nor is longer than LONGEST."""
    plain = re.sub(r"[^\w.\-]+", "_", name).lstrip(".")
    return plain.encode()[:LONGEST].decode(errors="ignore") or "_"


def numbered(folder: Path, stem: str) -> list[Path]:
    """The folders in `folder` that are called STEM-NUMBER, in the order of their numbers."""
    name = re.compile(re.escape(stem) + r"-(\d+)", re.ASCII)
    if not folder.is_dir():
        return []
    matches = ((name.fullmatch(path.name), path) for path in folder.iterdir())
    numbers = [(int(match.group(1)), path) for match, path in matches if match and path.is_dir()]
    return [path for _, path in sorted(numbers)]


def next_names(folders: list[Path], stem: str, many: int) -> list[str]:
    """So many names that come after those folders, the next one first."""
    last = int(folders[-1].name.rpartition("-")[2]) if folders else 0
    return [f"{stem}-{number:03d}" for number in range(last + 1, last + 1 + many)]
