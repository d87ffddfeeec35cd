"""What a child process finds around it: variables and library versions."""

import importlib.metadata


def environment(threads: int) -> dict[str, str]:
    """What makes every library of a child use that many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


def library_versions(libraries: set[str]) -> dict[str, str]:
    """Of each distribution that is installed here; "absent" for what is not."""
    versions = {}
    for library in sorted(libraries):
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "absent"
    return versions
