"""What a child process finds around it: variables and library versions."""

import contextlib
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
    """Of each distribution that is installed here; "absent" for what is not."""
    versions = {}
    for library in sorted(libraries):
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "absent"
    return versions
