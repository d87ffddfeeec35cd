"""What a child process finds around it: variables and library versions."""

import contextlib
import functools
import importlib.metadata
import os
from collections.abc import Iterator, Mapping


def environment(threads: int) -> dict[str, str]:
    """What makes every library of a child use that many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


@contextlib.contextmanager
def changed(variables: Mapping[str, str]) -> Iterator[None]:
    """This process has those variables meanwhile, and what it starts then has them too."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def library_versions(libraries: set[str]) -> dict[str, str]:
    """Of each distribution that is installed here; "absent" for what is not.

    Where another distribution brings the module of that name, as onnxruntime-gpu brings onnxruntime, it is that one's,
    by its own name.
    """
    versions = {}
    for library in sorted(libraries):
        name = installed(library)
        versions[name or library] = "absent" if name is None else importlib.metadata.version(name)
    return versions


@functools.cache
def installed(library: str) -> str | None:
    """The distribution of that name, or else one that brings a module of that name; None where neither is here."""
    try:
        importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return next(iter(importlib.metadata.packages_distributions().get(library.replace("-", "_"), ())), None)
    return library
