"""What backends found out by tuning (which schedules are fast), from one cache to another.

A backend keeps its records in folders of its own part of the cache, one for everything that decides what they say, and
names their files (`Backend.records`).
"""

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tuner import catalog
from tuner.build.store import Store
from tuner.errors import RequestError
from tuner.plugin import Backend
from tuner.system.files import critical_section
from tuner.system.said import first_line


def export(store: Store, file: Path) -> int:
    """Writes every record that is kept to a .tar.gz, and returns how many folders have some."""
    folders = [folder for home, files in _homes() for folder in _recorded(store.plugins / home, files)]
    names = dict(_homes())
    with tarfile.open(file, "w:gz") as archive:
        for folder in folders:
            for name in names[folder.parent.name]:
                archive.add(folder / name, f"{folder.parent.name}/{folder.name}/{name}")
    return len(folders)


def take(store: Store, file: Path) -> tuple[int, int]:
    """Takes what `export` wrote into the cache; returns how many folders were taken, and how many were left because
    what is there already is as much or more. Waits for whoever tunes. Raises RequestError where it is no such file,
    OSError where the cache cannot be written."""
    taken = left = 0
    with tempfile.TemporaryDirectory(dir=store.plugins) as scratch:
        try:
            with tarfile.open(file, "r:gz") as archive:
                members = [member for member in archive.getmembers() if len(PurePosixPath(member.name).parts) == 3]
                archive.extractall(scratch, members, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            raise RequestError(
                f"{file}: it cannot be read ({first_line(error)}); tune cache export-tuning-records writes such files"
            ) from error
        for home, names in _homes():
            for folder in _recorded(Path(scratch) / home, names):
                if _replaced(folder, store.folder(home) / folder.name, names):
                    taken += 1
                else:
                    left += 1
    if not taken + left:
        raise RequestError(f"{file}: no backend that is installed here knows a record in it")
    return taken, left


def _replaced(folder: Path, place: Path, names: tuple[str, ...]) -> bool:
    """Whether the records in `folder` are now those in `place`: not where that has as much or more. Whoever tunes there
    goes on afterwards, for the files belong together."""
    place.mkdir(exist_ok=True)
    with critical_section(place / "lock"):
        if _size(place, names) >= _size(folder, names):
            return False
        (place / "imported").touch()
        for name in names:
            shutil.copyfile(folder / name, place / f"{name}.draft")
            (place / f"{name}.draft").replace(place / name)
    return True


def _homes() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The names of the folders of backends that keep records, and of the records' files."""
    for kind in catalog.members(Backend):
        if kind.records:
            yield Store.home(kind), kind.records


def _recorded(home: Path, names: tuple[str, ...]) -> list[Path]:
    folders = sorted(home.iterdir()) if home.is_dir() else []
    return [folder for folder in folders if all((folder / name).is_file() for name in names)]


def _size(folder: Path, names: tuple[str, ...]) -> int:
    """How much is recorded there, bytes."""
    return sum((folder / name).stat().st_size for name in names if (folder / name).is_file())
