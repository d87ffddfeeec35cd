"""The inference tuner: the fastest artifact of your model within your limits, with the evidence.

The command is `tune` (`tuner.cli`). From Python, `tuner.artifact.load(folder)` runs what it made.
"""

__version__ = "0.1.0"

import os

from tuner.system import former

former.install()
# since 1.29 it tells Microsoft of every session and error; it reads this when it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
