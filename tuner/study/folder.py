"""Where a study lies on disk: its name, its lock, and which one the same command continues."""

import contextlib
import fcntl
import json
import shlex
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from tuner.errors import RequestError
from tuner.request.request import Request
from tuner.result import StudyFolder
from tuner.system.digests import digest
from tuner.system.files import write_whole


@dataclass(frozen=True)
class HeldFolder(StudyFolder):
    """The folder of a study that this process shares with others, as long as its `lock` is held."""

    lock: IO[str]

    @property
    def identity(self) -> str:
        """The study's name where those of several machines meet: the folder's and twelve random digits."""
        return str(json.loads(self.request.read_text())["id"])

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """What only one process of the study may do at a time, and briefly."""
        with (self.path / ".turn").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield

    def alone(self, *, wait: bool) -> bool:
        """Has the study for this process alone from now on, once the others have left; without `wait`, only where none
        is left. Returns whether it is so. Where it is not, the folder is no longer held at all."""
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def shared(self) -> None:
        """Lets others in again."""
        fcntl.flock(self.lock, fcntl.LOCK_SH)


@contextlib.contextmanager
def study_folder(request: Request, content: Mapping[str, Any]) -> Iterator[HeldFolder]:
    """The study's folder: the one named, the last one of this request if it is unfinished (cut short, or other
    processes are at it: they share it), or the next.

    `content` stands for the model, the samples and the metric: a study goes on only while they are the same. Waits
    while another process decides the study.
    """
    asked = _asked(request, content)
    stem = f"{request.workload.name}-{request.target.name}"
    if request.study is not None:
        candidates = [request.out_dir / request.study]
    else:
        numbered = sorted(p for p in request.out_dir.glob(f"{stem}-[0-9]*") if StudyFolder(p).request.exists())
        last = numbered[-1:]
        number = int(last[0].name.rpartition("-")[2]) + 1 if last else 1
        unfinished = [p for p in last if _unfinished(StudyFolder(p), asked["key"])]
        candidates = [*unfinished, *(request.out_dir / f"{stem}-{n:03d}" for n in range(number, number + 100))]
    for path in candidates:
        path.mkdir(parents=True, exist_ok=True)
        with (path / ".lock").open("a") as lock:
            folder = HeldFolder(path, lock)
            with folder.turn():
                known = json.loads(folder.request.read_text()) if folder.request.exists() else None
                mine = known is None or known["key"] == asked["key"]
                if mine:
                    identity = known["id"] if known else f"{path.name}-{uuid.uuid4().hex[:12]}"
                    write_whole(folder.request, json.dumps(asked | {"id": identity}, indent=2) + "\n")
            if mine:
                folder.shared()
                yield folder
                return
    raise RequestError(
        f"study={candidates[-1].name}: it exists with other settings, model or samples; its command stands in "
        f"{StudyFolder(candidates[-1]).request}, or choose another name"
    )


def _asked(request: Request, content: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two requests the same study: everything but where it is kept and how long it may take."""
    how_long = {"timeout_s", "n_trials", "patience", "stop_when_feasible"}
    free = how_long | {"study", "out_dir", "cache_dir", "tracking", "promote", "watch", "on_regression"}
    settings = {name: value for name, value in request.resolved.items() if name not in free}
    return {
        "key": digest({"settings": settings, "content": content}),
        "command": shlex.join(["tune", *request.overrides]),
        "settings": settings,
    }


def _unfinished(folder: StudyFolder, key: str) -> bool:
    if json.loads(folder.request.read_text())["key"] != key:
        return False
    return not folder.result.exists() or bool(json.loads(folder.result.read_text())["interrupted"])
