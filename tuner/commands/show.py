"""`tune show`: the verdict of a finished study again."""

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from tuner.errors import ExitCode, RequestError
from tuner.request import compose
from tuner.result import StudyFolder, studies
from tuner.system.files import folder


def run(arguments: Sequence[str]) -> ExitCode:
    """Prints the verdict of a study, the latest by default; `--json` prints its result.json."""
    as_json = "--json" in arguments
    config = compose.composed([a for a in arguments if a != "--json"])
    study = _study_folder(folder(config.out_dir), config.study)
    if as_json:
        sys.stdout.write(study.result.read_text())
        return ExitCode.OK
    from tuner.report.console import Console

    Console().verdict(study.read_result(), study)
    return ExitCode.OK


def _study_folder(out_dir: Path, study: str | None) -> StudyFolder:
    finished = sorted((f for f in studies(out_dir) if f.result.exists()), key=lambda f: f.result.stat().st_mtime)
    if study is None:
        if not finished:
            raise RequestError(f"out_dir={out_dir}: no finished study there; run one, or name its out_dir=")
        return finished[-1]
    named = StudyFolder(out_dir / study)
    if named in finished:
        return named
    if (request := named.read_request()) is not None:
        raise RequestError(f"study={study}: it has not finished; the same command continues it: {request['command']}")
    names = [study_folder.name for study_folder in finished]
    nearest = difflib.get_close_matches(study, names, n=1, cutoff=0.5)
    listed = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(names[-5:]) or 'none'}"
    raise RequestError(f"study={study}: no finished study of that name in {out_dir}; {listed}")
