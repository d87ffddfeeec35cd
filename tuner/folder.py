"""Where a study lies on disk: its name, its lock, and which one the same command continues."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuner.candidate import digest
from tuner.configure import Request
from tuner.errors import RequestError
from tuner.process import locked

_NEEDED_MB = 1000  # free space before a study starts: builds are written to disk


def require_room(folder: Path, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise RequestError(
            f"{name}={folder}: cannot be written ({error.strerror}); choose another with {name}="
        ) from error
    free_mb = shutil.disk_usage(folder).free / 1e6
    if free_mb < _NEEDED_MB:
        raise RequestError(
            f"{name}={folder}: only {free_mb:.0f} MB are free there, a study needs {_NEEDED_MB}; "
            f"free some space or choose another folder with {name}="
        )


@contextlib.contextmanager
def study_folder(request: Request, content: Mapping[str, Any]) -> Iterator[Path]:
    """The study's folder, locked: the one named, the last one of this request if it was cut short, or the next.

    `content` stands for the model, the samples and the metric: a study goes on only while they are the same.
    """
    asked = _asked(request, content)
    stem = f"{request.workload.name}-{request.target.name}"
    if request.study is not None:
        folder = request.out_dir / request.study
        if (folder / "request.json").exists() and json.loads((folder / "request.json").read_text())["key"] != asked[
            "key"
        ]:
            raise RequestError(
                f"study={request.study}: it exists with other settings, model or samples; its command stands in "
                f"{folder / 'request.json'}, or choose another name"
            )
        candidates = [folder]
    else:
        numbered = sorted(p for p in request.out_dir.glob(f"{stem}-[0-9]*") if (p / "request.json").exists())
        last = numbered[-1:]
        number = int(last[0].name.rpartition("-")[2]) + 1 if last else 1
        unfinished = [p for p in last if _unfinished(p, asked["key"])]
        candidates = [*unfinished, *(request.out_dir / f"{stem}-{n:03d}" for n in range(number, number + 100))]
    for folder in candidates:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
        if locked(lock):
            try:
                write_whole(folder / "request.json", json.dumps(asked, indent=2) + "\n")
                yield folder
            finally:
                lock.close()
            return
        lock.close()
    raise RequestError(f"study={candidates[-1].name}: another process is running it")


def _asked(request: Request, content: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two requests the same study: everything but where it is kept and how long it may take."""
    free = {"study", "out_dir", "cache_dir", "tracking", "timeout_s", "n_trials"}
    settings = {name: value for name, value in request.resolved.items() if name not in free}
    return {
        "key": digest({"settings": settings, "content": content}),
        "command": " ".join(["tune", *request.overrides]),
        "settings": settings,
    }


def _unfinished(folder: Path, key: str) -> bool:
    if json.loads((folder / "request.json").read_text())["key"] != key:
        return False
    result = folder / "result.json"
    return not result.exists() or bool(json.loads(result.read_text())["interrupted"])


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text)
    draft.replace(path)
