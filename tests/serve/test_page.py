"""docs/serve.md: its commands, run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.serving import packaged
from tests.servers import free_port
from tests.study import ROOT
from tuner.testing.fakes import Null


@pytest.mark.xdist_group("serve")
def test_five_commands_lead_to_an_address_that_answers(tmp_path: Path) -> None:
    """All but pip's; at a port that is free here. Of the study its configuration is made: what it leaves is there."""
    (block,) = re.findall(r"```bash\n(.*?)```", (ROOT / "docs/serve.md").read_text(), flags=re.DOTALL)
    install, tune, *commands = block.splitlines()
    assert install.startswith("pip install")
    assert len(commands) == 3
    folder, port = packaged(tmp_path / "digits" / "champion", Null(2.0)), str(free_port())
    serve, *asked = [command.replace("8000", port) for command in commands]
    assert "study=digits" in tune and "study=digits" in serve
    serve = serve.replace("study=digits", f"{folder} --port {port}")
    script = "\n".join(["set -e", "trap 'kill $(jobs -p)' EXIT", f"{tune} --cfg", serve, *asked])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    assert "study: digits" in run.stdout
    assert '"name":"digits"' in run.stdout
