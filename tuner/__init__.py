"""The inference tuner: the fastest artifact of your model within your limits, with the evidence.

The command is `tune` (`tuner.cli`). From Python, `tuner.artifact.load(folder)` runs what it made.
"""

__version__ = "0.1.0"

from tuner.system import former

former.install()
