"""Which packaged artifact a command line means: a folder, a registered model, or a study."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuner import artifact
from tuner.errors import RequestError
from tuner.request import compose
from tuner.result import StudyFolder
from tuner.system.files import folder

_MODELS = "models:/"
_CHAMPION = "champion"  # as it lies in a registered model
_HINT = "name a champion's folder, models:/NAME@champion, models:/NAME/VERSION or study=NAME"


@contextlib.contextmanager
def located(arguments: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """The folder of the artifact, there as long as this block lasts, and a name for it.

    `arguments` are `ARTIFACT`, `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `study=NAME`, with overrides such as
    `out_dir=` or `tracking.uri=` that say where the last two are looked for. Raises RequestError.
    """
    named = [a for a in arguments if "=" not in a or a.startswith(_MODELS) or Path(a).exists()]
    overrides = [a for a in arguments if a not in named]
    studies = [a.partition("=")[2] for a in overrides if a.startswith("study=")]
    if len(named) + len(studies) != 1:
        raise RequestError(f"which artifact? {_HINT}")
    if studies:
        config = compose.composed([a for a in overrides if not a.startswith("study=")])
        yield _of_study(folder(config.out_dir), studies[0]), studies[0]
    elif named[0].startswith(_MODELS):
        with tempfile.TemporaryDirectory(prefix="tune-artifact-") as scratch:
            yield _registered(named[0], overrides, Path(scratch))
    else:
        place = Path(named[0])
        if overrides:
            compose.composed(overrides)  # what no command takes is refused here too
        if not (place / artifact.MANIFEST).is_file():
            raise RequestError(f"{place}: no artifact is there, for it has no {artifact.MANIFEST}; {_HINT}")
        absolute = place.resolve()
        yield absolute, absolute.parent.name if absolute.name == "champion" else absolute.name


def _of_study(out_dir: Path, name: str) -> Path:
    study = StudyFolder(out_dir / name)
    if (study.champion / artifact.MANIFEST).is_file():
        return study.champion
    if study.result.exists():
        raise RequestError(f"study={name}: it found no champion; tune show study={name} says why")
    raise RequestError(f"study={name}: no finished study of that name in {out_dir}; tune show lists them")


def _registered(uri: str, overrides: Sequence[str], scratch: Path) -> tuple[Path, str]:
    name, alias, wanted = uri.removeprefix(_MODELS).partition("@")
    if not alias:
        name, _, version = name.rpartition("/")
    _, where = compose.recorded(overrides)
    from tuner.tracking.registry import Registry
    from tuner.tracking.stores import reachable

    reachable(where.uri)
    registry = Registry(where.uri)
    aliases = registry.aliases(name) if name else None
    if aliases is None:
        raise RequestError(f"{uri}: no such registered model; there are {', '.join(registry.names()) or 'none'}")
    if alias:
        if wanted not in aliases:
            there = ", ".join(aliases) or "none"
            raise RequestError(
                f"{uri}: no version has that alias, there is {there}; tune promote {name} makes a champion"
            )
        version = aliases[wanted]
    elif version not in (versions := registry.versions(name)):
        raise RequestError(f"{uri}: there are versions {', '.join(versions)}")
    return registry.fetch(name, version, scratch, _CHAMPION), name
