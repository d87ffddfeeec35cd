"""Where a study lies on disk: its name, its lock, and which one the same command continues."""

import contextlib
import json
import shlex
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tuner.errors import RequestError
from tuner.request.request import Request
from tuner.result import StudyFolder
from tuner.system.digests import digest
from tuner.system.files import critical_section, take_lock, write_whole

# keys that say where a study is kept, how long it may take and what is done with its champion: not what it is
_FREE = {"timeout_s", "n_trials", "patience", "stop_when_feasible", "study", "out_dir", "cache_dir", "tracking",
         "promote", "watch", "on_regression"}  # fmt: skip
_NUMBERS = 100  # so many names are tried, where others are taken


@dataclass(frozen=True)
class HeldFolder(StudyFolder):
    """The folder of a study that this process shares with others, as long as its `lock` is held."""

    lock: IO[str]

    @property
    def identity(self) -> str:
        """The study's name where those of several machines meet: the folder's and twelve random digits."""
        return str(json.loads(self.request.read_text())["id"])

    def critical_section(self) -> contextlib.AbstractContextManager[None]:
        """What only one process of the study may do at a time, and briefly."""
        return critical_section(self.path / ".turn")

    def take_over(self, *, wait: bool) -> bool:
        """Has the study for this process from now on, once the others have left; without `wait`, only where none is
        left. Returns whether it is so. Where it is not, the folder is no longer held at all."""
        return take_lock(self.lock, wait=wait)

    def share(self) -> None:
        """Lets others in again."""
        take_lock(self.lock, shared=True)


@contextlib.contextmanager
def study_folder(request: Request, content: Mapping[str, Any]) -> Iterator[HeldFolder]:
    """The study's folder: the one named, the last one of this request if it is unfinished (cut short, or other
    processes are at it: they share it), or the next.

    `content` stands for the model, the samples and the metric: a study goes on only while they are the same. Waits
    while another process decides the study.
    """
    settings = {name: value for name, value in request.resolved.items() if name not in _FREE}
    key = digest({"settings": settings, "content": content})
    kept = {"key": key, "command": shlex.join(["tune", *request.overrides]), "settings": settings}
    candidates = _candidates(request, key)
    for path in candidates:
        path.mkdir(parents=True, exist_ok=True)
        with (path / ".lock").open("a") as lock:
            folder = HeldFolder(path, lock)
            if _claimed(folder, kept):
                folder.share()
                yield folder
                return
    raise RequestError(
        f"study={candidates[-1].name}: it exists with other settings, model or samples; its command stands in "
        f"{StudyFolder(candidates[-1]).request}, or choose another name"
    )


def _candidates(request: Request, key: str) -> list[Path]:
    """The folders that may be this request's, in the order in which they are tried."""
    if request.study is not None:
        return [request.out_dir / request.study]
    stem = f"{request.workload.name}-{request.target.name}"
    numbered = sorted(path for path in request.out_dir.glob(f"{stem}-[0-9]*") if StudyFolder(path).request.exists())
    last = numbered[-1:]
    number = int(last[0].name.rpartition("-")[2]) + 1 if last else 1
    unfinished = [path for path in last if _unfinished(StudyFolder(path), key)]
    return [*unfinished, *(request.out_dir / f"{stem}-{n:03d}" for n in range(number, number + _NUMBERS))]


def _claimed(folder: HeldFolder, kept: Mapping[str, Any]) -> bool:
    """Whether the folder is of that request, of which `kept` goes into its `request.json`; a new one is from now on."""
    with folder.critical_section():
        before = json.loads(folder.request.read_text()) if folder.request.exists() else None
        if before is not None and before["key"] != kept["key"]:
            return False
        identity = before["id"] if before else f"{folder.name}-{uuid.uuid4().hex[:12]}"
        write_whole(folder.request, json.dumps({**kept, "id": identity}, indent=2) + "\n")
        return True


def _unfinished(folder: StudyFolder, key: str) -> bool:
    if json.loads(folder.request.read_text())["key"] != key:
        return False
    return not folder.result.exists() or bool(json.loads(folder.result.read_text())["interrupted"])
