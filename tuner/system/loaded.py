"""What a fork server of one library imports: that library and what goes with it, with the variables that the children
are to have.

Where one does not import, the child that needs it says why, in its own log.
"""

import contextlib
import importlib
import os
from pathlib import Path

VARIABLE = "TUNER_LOADED"
"""Names the modules."""

for module in os.environ.pop(VARIABLE, "").split():  # for the server alone, not for what its children start
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.suppress(Exception):
        importlib.import_module(module)
