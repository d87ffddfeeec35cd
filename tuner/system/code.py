"""Functions and modules that a person names: found, imported, and known by the digest of their source."""

import ast
import contextlib
import functools
import hashlib
import importlib.util
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, cast

from tuner.errors import CandidateError, RequestError
from tuner.system.digests import digest, file_digest
from tuner.system.said import first_line

_FILE = ".py"
_ENGINE = Path(__file__).parents[1]
_PLUGINS = f"{_ENGINE.name}.plugins."
_APART = ("plugins", "conf", "search_spaces")  # folders that may lie in the engine's, or elsewhere
_INSTALLED = {"site-packages", "dist-packages"}


class _Signalled(KeyboardInterrupt):
    """Somebody pressed Ctrl-C: it was not raised by what runs."""


@contextlib.contextmanager
def authored(what: str) -> Iterator[None]:
    """While code of a user's own runs. Whatever it raises, an exit or an interruption of its own too, becomes a
    RequestError: `what`, and what it said. Ctrl-C is still Ctrl-C."""

    def end(*_: Any) -> None:
        raise _Signalled

    main = threading.current_thread() is threading.main_thread()
    watched = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if watched:
        signal.signal(signal.SIGINT, end)
    try:
        yield
    except (RequestError, CandidateError, _Signalled):
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise RequestError(f"{what}: {first_line(said)}{_place(error)}") from error
    finally:
        if watched:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def resolve(reference: str, key: str) -> Callable[..., Any]:
    """The function that `module:function` names, or `folder/file.py:function`; RequestError names `key` where there is
    none."""
    where, _, attribute = reference.rpartition(":")
    if not where or not attribute:
        raise RequestError(f"{key}={reference!r} must read package.module:function, or folder/file.py:function")
    if where.endswith(_FILE) and not Path(where).is_file():
        raise RequestError(f"{key}={reference!r}: there is no file {where}")
    importable()
    module_name = module_of(reference)
    with authored(f"{key}={reference!r}: mend {module_name!r}, which does not import"):
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise RequestError(
                f"{key}={reference!r}: cannot import {module_name!r} ({first_line(error)}); install it, or run from "
                "its folder"
            ) from error
    if where.endswith(_FILE) and Path(str(module.__file__)).resolve() != Path(where).resolve():
        raise RequestError(f"{key}={reference!r}: {module.__file__} goes by the same name; give the file another")
    if not callable(found := getattr(module, attribute, None)):
        raise RequestError(f"{key}={reference!r}: {module_name!r} has no function {attribute!r}")
    return cast(Callable[..., Any], found)


def module_of(reference: str) -> str:
    """The name of the module in `module:function`. In `folder/file.py:function` it is the file's, whose folder becomes
    the first of the import path: processes that are started later find it too."""
    where = reference.rpartition(":")[0] or reference
    if not where.endswith(_FILE):
        return where
    file = Path(where).absolute()
    sys.path[:] = [str(file.parent), *(entry for entry in sys.path if entry != str(file.parent))]
    return file.stem


def _place(error: BaseException) -> str:
    """Where it was raised, in brackets; nothing where that is no line of the user's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__ and "<" not in f.filename]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def called(reference: str, key: str, *arguments: Any) -> Any:
    """What the function that `module:function` names returns. RequestError names `key` where it fails."""
    function = resolve(reference, key)
    with authored(f"{key}={reference} fails"):
        return function(*arguments)


def importable() -> None:
    """Puts the current folder on the import path: a console script does not have it, unlike `python -m`."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def source_digest(reference: str) -> str:
    """SHA-256 of the source, as `source` has it, of the module that `module` names, or a reference as `resolve` takes
    it."""
    importable()
    name = module_of(reference)
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():  # some are built into Python
        raise RequestError(f"{reference!r}: no such module")
    return hashlib.sha256(source(name, Path(spec.origin))).hexdigest()


def source(module: str, file: Path) -> bytes:
    """The text of a module's file, and of what it imports, and that in its turn: as far as it lies in the same folder,
    is a plugin, or is of no installed distribution. The tuner's own code is not among it (`engine_digest`). Nothing is
    imported."""
    texts: dict[str, bytes] = {}
    left = {module: file}
    while left:
        name, path = left.popitem()
        texts[name] = path.read_bytes()
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        for other in _imported(texts[name], package):
            if other not in texts and (found := _followed(other, file.parent, tuple(sys.path))) is not None:
                left[other] = found
    return b"".join(text for _, text in sorted(texts.items()))


@functools.cache  # keys are made several times a trial
def _imported(text: bytes, package: str) -> tuple[str, ...]:
    """The modules that a file of such a text may import, which is in that package."""
    names: list[str] = []
    with contextlib.suppress(SyntaxError, ValueError):  # whoever imports it is told
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(package.split(".")[: 1 - node.level or None]) if node.level else ""
                whole = ".".join(filter(None, (base, node.module)))
                names += [whole, *(f"{whole}.{alias.name}" for alias in node.names)]
    return tuple(names)


@functools.cache  # as _imported is, and for as long as the import path is the same
def _followed(name: str, beside: Path, path: tuple[str, ...]) -> Path | None:
    """The file of a module whose text decides what that does which imports it from the folder `beside`; None where it
    is somebody's distribution, with a version of its own, or the tuner's."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or (top == _ENGINE.name and not name.startswith(_PLUGINS)):
        return None
    file = _located(name)
    if file is None or file.suffix != _FILE:
        return None
    own = name.startswith(_PLUGINS) or file.parent == beside or _INSTALLED.isdisjoint(file.parts)
    return file if own else None


def _located(name: str) -> Path | None:
    """Where a module lies, found without importing its package; None where it is no file."""
    folders, spec, parts = None, None, name.split(".")
    for count in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:count]), folders)
        if spec is None or (count < len(parts) and spec.submodule_search_locations is None):
            return None
        folders = spec.submodule_search_locations
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin is not None else None


def _spec(name: str, folders: Sequence[str] | None) -> ModuleSpec | None:
    """Of a module that may lie in those `folders` of its package, or on the import path."""
    specs = (finder.find_spec(name, folders) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    try:
        return next((found for found in specs if found is not None), None)
    except KeyError:
        # a folder without `__init__.py` in another: Python asks the outer one for its path, which is not imported
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(Path(folder, name.rpartition(".")[2])) for folder in folders or ()]
        return spec


@functools.cache
def engine_digest() -> str:
    """Of the tuner's own code, its plugins apart: it decides with them what is built, and how that is scored."""
    files = [file for file in sorted(_ENGINE.rglob(f"*{_FILE}")) if file.relative_to(_ENGINE).parts[0] not in _APART]
    return digest([(str(file.relative_to(_ENGINE)), file_digest(file)) for file in files])
