"""`tune show` and `tune ui`: what finished studies left behind."""

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuner import configure
from tuner.errors import RequestError


def show(arguments: Sequence[str]) -> int:
    """Prints the verdict of a study, the latest by default; `--json` prints its result.json."""
    as_json = "--json" in arguments
    config = configure.composed([a for a in arguments if a != "--json"])
    folder = _study_folder(Path(config.out_dir).expanduser().absolute(), config.study)
    text = (folder / "result.json").read_text()
    if as_json:
        sys.stdout.write(text)
        return 0
    from tuner.console import Console

    result: dict[str, Any] = json.loads(text)
    Console().verdict(result, folder)
    return 0


def ui(arguments: Sequence[str]) -> int:
    """Runs MLflow's UI on the store in use, on the first free port of the loopback interface from 5000."""
    config = configure.composed(arguments)
    out_dir = Path(config.out_dir).expanduser().absolute()
    uri = config.tracking.uri or f"sqlite:///{out_dir / 'mlflow.db'}"
    if not uri.startswith("sqlite:///"):
        sys.stdout.write(f"the studies are on the tracking server: {uri}\n")
        return 0
    if not (out_dir / "mlflow.db").exists():
        raise RequestError(f"out_dir={out_dir}: no study has been recorded there; run one, or name its out_dir=")
    port = _free_port(5000)
    sys.stdout.write(f"http://127.0.0.1:{port}/  (Ctrl-C ends it)\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    return subprocess.call(command)


def _study_folder(out_dir: Path, study: str | None) -> Path:
    finished = sorted(out_dir.glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    if study is None:
        if not finished:
            raise RequestError(f"out_dir={out_dir}: no finished study there; run one, or name its out_dir=")
        return finished[-1].parent
    if out_dir / study / "result.json" not in finished:
        listed = ", ".join(path.parent.name for path in finished[-5:]) or "none"
        raise RequestError(f"study={study}: no finished study of that name in {out_dir}; there are {listed}")
    return out_dir / study


def _free_port(first: int) -> int:
    for port in range(first, first + 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RequestError(f"no free port from {first} to {first + 99}")
