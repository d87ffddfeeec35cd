"""`tune show`: the verdict of a finished study again."""

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tuner.errors import RequestError
from tuner.request import compose


def show(arguments: Sequence[str]) -> int:
    """Prints the verdict of a study, the latest by default; `--json` prints its result.json."""
    as_json = "--json" in arguments
    config = compose.composed([a for a in arguments if a != "--json"])
    folder = _study_folder(Path(config.out_dir).expanduser().absolute(), config.study)
    text = (folder / "result.json").read_text()
    if as_json:
        sys.stdout.write(text)
        return 0
    from tuner.report.console import Console

    Console().verdict(json.loads(text), folder)
    return 0


def _study_folder(out_dir: Path, study: str | None) -> Path:
    finished = sorted(out_dir.glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    if study is None:
        if not finished:
            raise RequestError(f"out_dir={out_dir}: no finished study there; run one, or name its out_dir=")
        return finished[-1].parent
    if out_dir / study / "result.json" in finished:
        return out_dir / study
    if (out_dir / study / "request.json").exists():
        command = json.loads((out_dir / study / "request.json").read_text())["command"]
        raise RequestError(f"study={study}: it has not finished; the same command continues it: {command}")
    names = [path.parent.name for path in finished]
    nearest = difflib.get_close_matches(study, names, n=1, cutoff=0.5)
    listed = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(names[-5:]) or 'none'}"
    raise RequestError(f"study={study}: no finished study of that name in {out_dir}; {listed}")
