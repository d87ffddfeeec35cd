"""The command that is run when a watched champion has regressed."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from tuner.system.said import last_line
from tuner.system.secret import masked

_LIMIT_S = 60.0


def notify(command: str, facts: Mapping[str, Any]) -> str | None:
    """Runs the command line in a shell, with the facts as JSON on its standard input; why it failed, or None."""
    try:
        done = subprocess.run(
            command, shell=True, input=json.dumps(facts), capture_output=True, text=True, errors="replace",
            timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return masked(f"on_regression: still running after {_LIMIT_S:.0f} s: {command}")
    if done.returncode == 0:
        return None
    return masked(f"on_regression: exit code {done.returncode} ({last_line(done.stderr)}): {command}")
