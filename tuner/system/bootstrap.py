"""What another interpreter runs first: it makes the tuner importable, then serves.

Run as a script, which may import nothing but the standard library until the path is set.
"""

import json
import os
import site
import sys
from multiprocessing.connection import Connection


def begin(parent: int, pipe: int, log: str, first: list[str], sites: list[str], last: list[str]) -> None:
    """Serves the worker of the process `parent`. `first`, `sites` and `last` are its import path
    (`tuner.system.spawned.import_path`); what this interpreter has of its own comes between."""
    sys.path[:0] = first
    for folder in sites:
        site.addsitedir(folder)
    sys.path += [folder for folder in last if folder not in sys.path]

    from tuner.system.child import end_with_parent, serve

    end_with_parent()
    if os.getppid() == parent:  # else it was gone before the kernel was told
        serve(Connection(pipe), log)


if __name__ == "__main__":
    begin(**json.loads(sys.argv[1]))
