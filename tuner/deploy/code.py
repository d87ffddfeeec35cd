"""What travels with an artifact: the source of the tuner and of plugins, and the list of what pip installs."""

import importlib.metadata
import importlib.util
import shutil
import sysconfig
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from packaging.requirements import Requirement

from tuner.system.environment import installed, library_versions


def copy_code(modules: AbstractSet[str], to: Path) -> set[str]:
    """Copies the tuner, and the packages of those modules, as source; returns the distributions of what pip installed.

    The plugins lie beside the package in a repository and inside it where it is installed: here always inside.
    """
    _copy_package("tuner", to / "tuner")
    _copy_package("tuner.plugins", to / "tuner/plugins")
    distributions: set[str] = set()
    for package in sorted({module.partition(".")[0] for module in modules} - {"tuner"}):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None and _installed(Path(spec.origin)):
            distributions |= set(importlib.metadata.packages_distributions().get(package, []))
        else:
            _copy_package(package, to / package)
    return distributions


def requirements(libraries: AbstractSet[str], measured: Mapping[str, str]) -> list[str]:
    """What pip must install, at the versions with which the artifact was `measured`, else at those that are here."""
    versions = library_versions(set(libraries)) | {k: v for k, v in measured.items() if k in libraries}
    # a local version such as 2.13.0+cpu is known to one index only
    return [f"{name}=={found.partition('+')[0]}" for name, found in sorted(versions.items()) if found != "absent"]


def needed(libraries: Iterable[str]) -> set[str]:
    """Those distributions and all that they require, as far as they are installed here."""
    waiting, known = [installed(library) or library for library in libraries], set[str]()
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in known:
            continue
        try:
            described = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        known.add(name)
        for line in described.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return known


def _copy_package(name: str, to: Path) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} has been imported"
    if not spec.submodule_search_locations:
        assert spec.origin is not None
        shutil.copyfile(spec.origin, to.with_suffix(".py"))
        return
    shutil.copytree(next(iter(spec.submodule_search_locations)), to, ignore=_all_but_source, dirs_exist_ok=True)


def _all_but_source(folder: str, names: list[str]) -> set[str]:
    kept = {name for name in names if name.endswith((".py", ".proto")) or (Path(folder) / name).is_dir()}
    return set(names) - {name for name in kept if name != "__pycache__" and not name.startswith(".")}


def _installed(file: Path) -> bool:
    return any(file.is_relative_to(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib"))
