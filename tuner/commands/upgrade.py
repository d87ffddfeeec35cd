"""`tune upgrade`: a champion races itself, rebuilt with another version of a library."""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from tuner import artifact
from tuner.commands.promote import read
from tuner.errors import ExitCode, RequestError
from tuner.request import compose
from tuner.result import StudyFolder
from tuner.system import process

_USAGE = "name a champion's folder or a registered model, and a version: tune upgrade NAME onnxruntime==1.32.0"


def run(arguments: Sequence[str]) -> ExitCode:
    """`NAME|ARTIFACT REQUIREMENT`: REGRESSION where the other version is worse or does not load, else OK."""
    wanted, others = _requirement(arguments)
    folders = [a for a in others if (Path(a) / artifact.MANIFEST).is_file()]
    with tempfile.TemporaryDirectory(prefix="tune-upgrade-") as scratch:
        if folders:
            champion = Path(folders[0]).resolve()
            name, study = str(folders[0]), StudyFolder(champion.parent)
        else:
            name, champion, study = _registered(others, Path(scratch))
        overrides = [a for a in others if "=" in a]
        return _told(name, champion, study, wanted, overrides)


def _told(name: str, champion: Path, study: StudyFolder, wanted: Requirement, overrides: Sequence[str]) -> ExitCode:
    asked = study.read_request()
    if asked is None:
        raise RequestError(
            f"{name}: the study {study.name} that made it is not in {study.path.parent}: nothing tells its model and "
            "samples; name its out_dir="
        )
    keys = {override.partition("=")[0] for override in overrides}
    before = [a for a in shlex.split(asked["command"])[1:] if a.partition("=")[0] not in keys]
    request = compose.request([*before, *overrides])
    from tuner.study.upgrade import Champion, upgrade

    found = study.read_result() if study.result.exists() else None
    packaged = Champion(champion, artifact.read_manifest(champion).candidate, found)
    verdict = upgrade(request, packaged, wanted, process.say)
    sys.stdout.write(f"{name} with {wanted}: {verdict.state}\n")
    sys.stdout.writelines(f"  {line}\n" for line in verdict.evidence)
    return ExitCode.REGRESSION if verdict.state in ("worse", "does not load") else ExitCode.OK


def _requirement(arguments: Sequence[str]) -> tuple[Requirement, list[str]]:
    """The requirement among the arguments, and the others."""
    named = [a for a in arguments if any(mark in a for mark in ("==", "<", ">", "~="))]
    if len(named) != 1:
        raise RequestError(_USAGE)
    try:
        return Requirement(named[0]), [a for a in arguments if a != named[0]]
    except InvalidRequirement as error:
        raise RequestError(f"{named[0]}: pip would not read it: {str(error).splitlines()[0]}") from error


def _registered(arguments: Sequence[str], scratch: Path) -> tuple[str, Path, StudyFolder]:
    """The registered champion's name, its artifact in the folder `scratch`, and its study."""
    move = read(arguments, "upgrade")
    version = move.version or move.registry.champion(move.name)
    if version is None:
        raise RequestError(f"{move.name}: no version is its champion; tune promote {move.name} makes one")
    out_dir, _ = compose.recorded([a for a in arguments if "=" in a and not a.startswith(("version=", "reason="))])
    study = move.registry.study(move.name, version)
    if study is None:
        raise RequestError(f"{move.name} version {version}: no study registered it")
    folder = move.registry.fetch(move.name, version, scratch, "champion")
    return f"{move.name} version {version}", folder, StudyFolder(out_dir / study)
