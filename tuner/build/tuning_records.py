"""What backends found out by tuning (which schedules are fast), from one cache to another.

A backend keeps its records in folders of its own part of the cache, one for everything that decides what they say, and
names their files (`Backend.records`).
"""

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tuner import catalog
from tuner.build.store import Store
from tuner.errors import RequestError
from tuner.plugin import Backend
from tuner.system.environment import library_versions
from tuner.system.files import critical_section
from tuner.system.machine import cpu_name
from tuner.system.said import first_line

_ABOUT = "about.json"


def export(store: Store, file: Path) -> int:
    """Writes every record that is kept to a .tar.gz, with what they were made with; returns how many folders have some.
    Raises RequestError where there is none."""
    folders = [folder for home, files in _homes() for folder in _recorded(store.plugins / home, files)]
    names = dict(_homes())
    if not folders:
        raise RequestError(f"cache_dir={store.root}: it has no tuning records; a study that tunes with TVM leaves some")
    with tarfile.open(file, "w:gz") as archive:
        about = json.dumps(_about()).encode()
        member = tarfile.TarInfo(_ABOUT)
        member.size = len(about)
        archive.addfile(member, io.BytesIO(about))
        for folder in folders:
            for name in names[folder.parent.name]:
                archive.add(folder / name, f"{folder.parent.name}/{folder.name}/{name}")
    return len(folders)


def take(store: Store, file: Path) -> tuple[int, int, list[str]]:
    """Takes what `export` wrote into the cache; returns how many folders were taken, how many were left because what is
    there already is as much or more, and what is another here than where they were made. Waits for whoever tunes.
    Raises RequestError where it is no such file, OSError where the cache cannot be written."""
    taken = left = 0
    with tempfile.TemporaryDirectory(dir=store.plugins) as scratch:
        try:
            with tarfile.open(file, "r:gz") as archive:
                wanted = [m for m in archive.getmembers() if len(PurePosixPath(m.name).parts) == 3 or m.name == _ABOUT]
                archive.extractall(scratch, wanted, filter="data")
            for place in Path(scratch).rglob("*.json"):
                _require_json(place)
            about = Path(scratch) / _ABOUT
            theirs = dict(json.loads(about.read_text())) if about.exists() else {}  # not there in older files
        except (OSError, tarfile.TarError, EOFError, ValueError, TypeError) as error:
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
    here = _about()
    others = [f"{name} {value}, here {here.get(name)}" for name, value in theirs.items() if value != here.get(name)]
    return taken, left, others


def _about() -> dict[str, str]:
    """What decides, beside the model, whether a study finds records: by name."""
    libraries = {library for kind in catalog.members(Backend) if kind.records for library in kind.libraries}
    return {**library_versions(libraries), "processor": cpu_name(), "cores": str(len(os.sched_getaffinity(0)))}


def _require_json(file: Path) -> None:
    """Raises ValueError where a line of it is no JSON."""
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file.name}, line {number}: {error}") from error


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
