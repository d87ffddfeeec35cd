"""Functions and modules that a person names: found, imported, and known by the digest of their source."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from tuner.errors import RequestError
from tuner.system.said import first_line


def resolve(reference: str, key: str) -> Callable[..., Any]:
    """The function that `module:function` names; RequestError names `key` where there is none."""
    module_name, _, attribute = reference.partition(":")
    if not attribute:
        raise RequestError(f"{key}={reference!r} must read package.module:function")
    importable()
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
    if not callable(found := getattr(module, attribute, None)):
        raise RequestError(f"{key}={reference!r}: {module_name!r} has no function {attribute!r}")
    return cast(Callable[..., Any], found)


def importable() -> None:
    """Puts the current folder on the import path: a console script does not have it, unlike `python -m`."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def source_digest(reference: str) -> str:
    """SHA-256 of the file of the module that `module` or `module:function` names."""
    importable()
    spec = importlib.util.find_spec(reference.partition(":")[0])
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():  # some are built into Python
        raise RequestError(f"{reference!r}: no such module")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
