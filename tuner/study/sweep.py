"""`tune -m …` and `tune sweep=NAME`: one study for every combination of choices, one after the other."""

import contextlib
import json
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tuner.errors import ExitCode, RequestError
from tuner.report.summary import show
from tuner.request import compose
from tuner.request.members import Member
from tuner.request.members import members as members_of
from tuner.request.request import Request
from tuner.result import StudyFolder
from tuner.system import process
from tuner.system.digests import digest
from tuner.system.files import read_json, require_room, take_lock, write_whole
from tuner.system.names import next_names, numbered, slug
from tuner.system.secret import masked

_FOUND = (ExitCode.OK, ExitCode.REGRESSION)  # a champion; a champion, and a regression of the one before
_VERDICT = {
    ExitCode.OK: "all",
    ExitCode.BUG: "failed",
    ExitCode.INFEASIBLE: "none",
    ExitCode.REGRESSION: "regression",
    ExitCode.PARTLY: "some",
    ExitCode.INTERRUPTED: "interrupted",
}


def is_sweep(arguments: Sequence[str]) -> bool:
    return any(a in ("-m", "--multirun") or a.startswith("sweep=") for a in arguments)


@dataclass
class Entry:
    """What `summary.json` says of one member. `exit_code` is None until it ended, negative where a signal ended it."""

    member: str
    chosen: str
    overrides: list[str]
    command: str
    exit_code: int | None = None
    verdict: str | None = None
    champion: str | None = None
    throughput: float | None = None
    latency_ms: float | None = None
    accuracy_drop: float | None = None
    vs_eager: float | None = None
    vs_best_untuned: float | None = None
    study: str | None = None

    @property
    def ended(self) -> bool:
        return self.exit_code not in (None, ExitCode.INTERRUPTED)

    def take(self, code: int, study: StudyFolder | None) -> None:
        """Notes how the member ended, and what its study says, if it got that far."""
        self.exit_code = code
        self.verdict = "interrupted" if code == ExitCode.INTERRUPTED else "failed"
        if study is None or not study.result.exists():
            return
        self.study = study.name
        if code not in (*_FOUND, ExitCode.INFEASIBLE):
            return
        result = study.read_result()
        self.verdict = result.verdict
        if champion := result.champion:
            self.champion, self.throughput = champion.label, champion.measurement.throughput
            self.latency_ms = result.goal.value("latency_ms", champion.measurement)
            self.accuracy_drop = champion.measurement.accuracy_drop
            ratios = {name: ratio.value for name, ratio in result.speedup.items() if ratio is not None}
            self.vs_eager, self.vs_best_untuned = ratios.get("vs_eager"), ratios.get("vs_best_untuned")


def checked(arguments: Sequence[str]) -> list[tuple[Member, Request]]:
    """The members of a sweep with their requests, all of them valid. Raises RequestError naming the member."""
    requests = []
    for member in members_of([a for a in arguments if a not in ("-m", "--multirun")]):
        try:
            requests.append((member, compose.request(member.overrides)))
        except RequestError as error:
            raise RequestError(
                f"{error} (the sweep's member {member.chosen})" if member.chosen else str(error)
            ) from error
    first = requests[0][1]
    for member, request in requests:
        if (request.out_dir, request.tracking) != (first.out_dir, first.tracking):
            raise RequestError(f"out_dir and tracking must be the same for all members of a sweep ({member.chosen})")
    named = [request.study for _, request in requests if request.study is not None]
    if len(set(named)) < len(named):
        raise RequestError(
            f"study={named[0]}: a sweep has {len(requests)} studies; leave the name out, they are numbered"
        )
    return requests


def run(arguments: Sequence[str]) -> ExitCode:
    """Runs a sweep; where it was interrupted, the same command runs the members left.

    Side effects: those of the studies, a run in MLflow above theirs, and `<out_dir>/sweep-…/summary.json`, written anew
    after each member.
    """
    requests = checked(arguments)
    first = requests[0][1]
    require_room(first.out_dir, "out_dir")
    name = next((a.removeprefix("sweep=") for a in arguments if a.startswith("sweep=")), None)
    entries = [
        Entry(
            f"{n:03d}",
            masked(member.chosen),
            list(member.overrides),
            "tune " + shlex.join(map(masked, member.overrides)),
        )
        for n, (member, _) in enumerate(requests, 1)
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _folder(first.out_dir, "sweep" if name is None else f"sweep-{slug(name)}", entries) as folder:
        return _Sweep(first, entries, folder, "tune " + shlex.join(map(masked, arguments))).run()


def exit_code(members: Sequence[int | None]) -> ExitCode:
    """The sweep's exit code, from those of its members; None is one that did not run."""
    if None in members or ExitCode.INTERRUPTED in members:
        return ExitCode.INTERRUPTED
    if ExitCode.REGRESSION in members:
        return ExitCode.REGRESSION
    champions = members.count(ExitCode.OK)
    if champions == len(members):
        return ExitCode.OK
    if champions:
        return ExitCode.PARTLY
    return ExitCode.INFEASIBLE if ExitCode.INFEASIBLE in members else ExitCode.BUG


class _Sweep:
    def __init__(self, request: Request, entries: list[Entry], folder: Path, command: str) -> None:
        from tuner.tracking.stores import reachable
        from tuner.tracking.tracker import Tracker

        self._request = request
        self._entries = entries
        self._folder = folder
        self._command = command
        self._interrupted = False
        reachable(request.tracking.uri)
        self._tracker = Tracker(request.tracking.uri, request.tracking.experiment, folder.name, kind="sweep")
        self._tracker.describe({}, {"command": command, "members": str(len(entries))})
        self._write()

    def run(self) -> ExitCode:
        status = "FAILED"
        try:
            for entry in self._entries:
                if not entry.ended and not self._interrupted:
                    process.say(f"[{int(entry.member)}/{len(self._entries)}] {entry.chosen or entry.command}")
                    ended_with = self._member(entry)
                    study = self._tracker.study_of(entry.member)
                    entry.take(ended_with, None if study is None else StudyFolder(self._request.out_dir / study))
                    self._write()
            status = "KILLED" if self._interrupted else "FINISHED"
            code = exit_code([entry.exit_code for entry in self._entries])
            self._tracker.summary(self._folder / "summary.json", self._counts(), {"verdict": _VERDICT[code]})
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            self._tracker.close(status)
        show(self._summary())
        process.say(f"summary   {self._folder / 'summary.json'}")
        return code

    def _member(self, entry: Entry) -> int:
        """The member's exit code. Ctrl-C and SIGTERM are passed on, a second one too, and it may end in its way."""
        from tuner.tracking.tracker import SWEEP_MEMBER, SWEEP_RUN

        member = None
        while True:
            try:
                if member is None:
                    member = process.start(
                        [sys.executable, "-m", "tuner.cli", *entry.overrides],
                        environment={SWEEP_RUN: self._tracker.run_id, SWEEP_MEMBER: entry.member},
                    )
                code = member.wait()
            except KeyboardInterrupt:
                self._interrupted = True
                if member is None:
                    return ExitCode.INTERRUPTED
                member.send_signal(signal.SIGTERM)
                continue
            # a member that had not yet learned to end well when the signal came did not fail
            return ExitCode.INTERRUPTED if self._interrupted and code == -signal.SIGTERM else code

    def _counts(self) -> dict[str, float]:
        successful = sum(entry.exit_code in _FOUND for entry in self._entries)
        infeasible = sum(entry.exit_code == ExitCode.INFEASIBLE for entry in self._entries)
        failed = sum(entry.ended for entry in self._entries) - successful - infeasible
        return {
            "members": len(self._entries),
            "members_found": successful,
            "members_infeasible": infeasible,
            "members_failed": failed,
        }

    def _summary(self) -> dict[str, Any]:
        return {
            "sweep": self._folder.name,
            "command": self._command,
            "key": _key(self._entries),
            "finished": all(entry.ended for entry in self._entries),
            "members": [asdict(entry) | {"overrides": _shown(entry)} for entry in self._entries],
        }

    def _write(self) -> None:
        write_whole(self._folder / "summary.json", json.dumps(self._summary(), indent=2) + "\n")


@contextlib.contextmanager
def _folder(out_dir: Path, stem: str, entries: list[Entry]) -> Iterator[Path]:
    """The sweep's folder, locked: the last one of this command if members of it are left, or the next.

    Of the last one, `entries` take what is done already.
    """
    earlier = numbered(out_dir, stem)
    for folder in [*earlier[-1:], *(out_dir / name for name in next_names(earlier, stem, 100))]:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            if not take_lock(lock, wait=False):
                continue
            if (folder / "summary.json").exists():
                summary = read_json(folder / "summary.json")
                if summary["finished"] or summary["key"] != _key(entries):
                    continue
                before = [Entry(**entry) for entry in summary["members"]]
                entries[:] = [replace(b, overrides=now.overrides) for b, now in zip(before, entries, strict=True)]
            yield folder
            return
    raise RequestError(f"out_dir={out_dir}: no folder {stem}-… is free there")


def _key(entries: Sequence[Entry]) -> str:
    return digest([_shown(entry) for entry in entries])


def _shown(entry: Entry) -> list[str]:
    """The overrides as they are kept: without a password."""
    return [masked(override) for override in entry.overrides]
