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
from tuner.system.files import critical_section, damaged, read_json, take_lock, write_whole
from tuner.system.names import next_names, numbered, slug

# keys that say where a study is kept, how long it may take and what is done with its champion: not what it is
_FREE = {"timeout_s", "n_trials", "patience", "stop_when_feasible", "study", "out_dir", "cache_dir", "tracking",
         "executor", "install", "compile_only", "promote", "watch", "on_regression"}  # fmt: skip
_NUMBERS = 100  # so many names are tried, where others are taken


@dataclass(frozen=True)
class HeldFolder(StudyFolder):
    """The folder of a study that this process shares with others, as long as its `lock` is held."""

    lock: IO[str]

    @property
    def identity(self) -> str:
        """The study's name where those of several machines meet: the folder's and twelve random digits."""
        request = self.read_request()
        assert request is not None, "it was written when the folder was claimed"
        return request["id"]

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
    while another process decides the study. Raises RequestError where it was begun on another machine.
    """
    settings = {name: value for name, value in request.resolved.items() if name not in _FREE}
    key = digest({"settings": settings, "content": content})
    command = shlex.join(["tune", *request.overrides])
    kept = {"key": key, "command": command, "settings": settings, "machine": request.target.machine}
    candidates = _candidates(request, key)
    for path in candidates:
        path.mkdir(parents=True, exist_ok=True)
        with (path / ".lock").open("a") as lock:
            folder = HeldFolder(path, lock)
            if _claimed(folder, kept, named=request.study is not None):
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
    stem = f"{slug(request.workload.name)}-{slug(request.target.name)}"
    earlier = numbered(request.out_dir, stem)
    unfinished = [path for path in earlier[-1:] if _continued(StudyFolder(path), key)]
    return [*unfinished, *(request.out_dir / name for name in next_names(earlier, stem, _NUMBERS))]


def _claimed(folder: HeldFolder, kept: Mapping[str, Any], *, named: bool) -> bool:
    """Whether the folder is of that request, of which `kept` goes into its `request.json`; a new one is from now on.

    A finished study goes on only where it is `named`. Raises RequestError where the folder is damaged, or its figures
    are of another machine. Those of the version before name none, and go on anywhere.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(folder.critical_section())
        except (IsADirectoryError, PermissionError) as error:
            raise damaged(Path(error.filename), "it is no file that can be locked") from error
        before = folder.read_request()
        if before is not None and (before["key"] != kept["key"] or not (named or _unfinished(folder))):
            return False
        if before is None:
            own = {"id": f"{folder.name}-{uuid.uuid4().hex[:12]}", "machine": kept["machine"]}
        else:
            own = {name: before[name] for name in ("id", "machine") if name in before}
        if own.get("machine", kept["machine"]) != kept["machine"]:
            raise RequestError(
                f"study={folder.name}: it was begun on {own['machine']}, and this is {kept['machine']}: figures of two "
                "machines are never compared; go on there, or choose another name with study="
            )
        known = {name: value for name, value in kept.items() if name != "machine"}
        write_whole(folder.request, json.dumps({**known, **own}, indent=2) + "\n")
        return True


def _continued(folder: StudyFolder, key: str) -> bool:
    """Whether it is that request's, and not finished; one that cannot be read is nobody's."""
    try:
        request = folder.read_request()
        return request is not None and request["key"] == key and _unfinished(folder)
    except RequestError:
        return False


def _unfinished(folder: StudyFolder) -> bool:
    return not folder.result.exists() or bool(read_json(folder.result).get("interrupted"))
