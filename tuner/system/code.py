"""Functions and modules that a person names: found, imported, and known by the digest of their source."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from tuner.errors import RequestError
from tuner.system.said import first_line

_FILE = ".py"


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
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RequestError(
            f"{key}={reference!r}: cannot import {module_name!r} ({first_line(error)}); install it, or run from its "
            "folder"
        ) from error
    except (Exception, SystemExit) as error:  # whatever an author's module does
        said = first_line(f"{type(error).__name__}: {error}")
        raise RequestError(f"{key}={reference!r}: {module_name!r} does not import ({said}); mend it") from error
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


def importable() -> None:
    """Puts the current folder on the import path: a console script does not have it, unlike `python -m`."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def source_digest(reference: str) -> str:
    """SHA-256 of the file of the module that `module` names, or a reference as `resolve` takes it."""
    importable()
    spec = importlib.util.find_spec(module_of(reference))
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():  # some are built into Python
        raise RequestError(f"{reference!r}: no such module")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
