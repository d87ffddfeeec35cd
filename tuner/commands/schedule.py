"""`tune schedule`: sweeps and studies that run by themselves."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn
from zoneinfo import ZoneInfo

from tuner.errors import RequestError
from tuner.schedule.cron import Cron
from tuner.schedule.runs import History, Run, Schedule

_SHOWN = 20  # runs in the table of the history


def schedule(arguments: Sequence[str]) -> int:
    """Runs one of the sub-commands and returns its exit code. What follows `--` are the arguments of `tune`."""
    ours, told = list(arguments), None
    if "--" in ours:
        at = ours.index("--")
        ours, told = ours[:at], tuple(ours[at + 1 :])
    asked = _parser().parse_args(ours)
    if told is not None and asked.command != "add":
        raise RequestError(f"tune schedule {asked.command} takes nothing after --")
    state = asked.state_dir.expanduser().absolute()
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--state-dir={state}: cannot be written ({error.strerror}); choose another") from error
    if asked.command == "add":
        return _add(asked, state, told or ())
    if asked.command == "history":
        return _history(state, asked.name, asked.json)
    from tuner.schedule.scheduler import Schedules, serve

    if asked.command == "run":
        return serve(state)
    if asked.command == "list":
        return _list(Schedules(state).all(), state)
    if asked.command == "remove":
        Schedules(state).remove(asked.name)
        sys.stdout.write(f"{asked.name} is removed; its history stays\n")
        return 0
    found = Schedules(state).get(asked.name)
    if asked.command == "export":
        from tuner.schedule.export import ENGINES, Place

        sys.stdout.write(ENGINES[asked.engine](found, Place(state, asked.image)))
        return 0
    from tuner.schedule.perform import perform

    return perform(found, state, asked.by)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{self.prog}: {message}; tune --help shows the commands")


def _parser() -> argparse.ArgumentParser:
    state_home = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
    common = _Parser(add_help=False)
    common.add_argument("--state-dir", type=Path, default=state_home / "inference-tuner")
    parser = _Parser(prog="tune schedule", add_help=False, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    def command(name: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[common], add_help=False, allow_abbrev=False)

    add = command("add")
    add.add_argument("name")
    add.add_argument("--cron", required=True)
    add.add_argument("--timezone", default=None)
    add.add_argument("--timeout-hours", type=float, default=8.0)
    add.add_argument("--grace-minutes", type=float, default=5.0)
    for name in ("list", "run"):
        command(name)
    command("remove").add_argument("name")
    now = command("now")
    now.add_argument("name")
    now.add_argument("--by", choices=["now", "scheduler"], default="now", help=argparse.SUPPRESS)
    history = command("history")
    history.add_argument("name", nargs="?")
    history.add_argument("--json", action="store_true")
    export = command("export")
    export.add_argument("engine", choices=["systemd", "cron", "kubernetes", "airflow"])
    export.add_argument("name")
    export.add_argument("--image", default="inference-tuner:latest")
    return parser


def _add(asked: argparse.Namespace, state: Path, told: tuple[str, ...]) -> int:
    """Checks all that can be checked now: at night nobody reads the message."""
    from tuner.schedule.scheduler import Schedules

    if not re.fullmatch(r"\w[\w.\-]*", asked.name):
        raise RequestError(f"{asked.name}: the name must be letters, digits, '.', '_' and '-'")
    Cron.parse(asked.cron)
    for option, value in (("--timeout-hours", asked.timeout_hours), ("--grace-minutes", asked.grace_minutes)):
        if not 0 < value < float("inf"):
            raise RequestError(f"{option}={value:g} must be more than 0")
    if not told:
        raise RequestError("what is to run follows --, for instance: -- sweep=nightly")
    # a scheduled run tells when the champion in use got worse, unless it is told otherwise
    watched = told if any(a.startswith("watch=") for a in told) else (*told, "watch=true")
    _check(watched)
    found = Schedule(
        name=asked.name,
        cron=asked.cron,
        timezone=_zone(asked.timezone),
        arguments=watched,
        folder=str(Path.cwd()),
        timeout_s=asked.timeout_hours * 3600,
        grace_s=asked.grace_minutes * 60,
    )
    due_at = Schedules(state).add(found)
    sys.stdout.write(
        f"{found.name}: {found.command}\n"
        f"in {found.folder}, next at {due_at:%Y-%m-%d %H:%M %Z} ({found.timezone}), where `tune schedule run` is on\n"
    )
    return 0


def _check(arguments: Sequence[str]) -> None:
    """Raises RequestError where `tune` would refuse those arguments."""
    from tuner.request import compose
    from tuner.study import sweep

    if sweep.is_sweep(arguments):
        sweep.checked(arguments)
    else:
        compose.request(arguments)


def _zone(asked: str | None) -> str:
    """The name of the time zone asked for, or of the machine's."""
    from tzlocal import get_localzone_name

    try:
        return str(ZoneInfo(asked or get_localzone_name()))
    except (KeyError, ValueError, OSError) as error:  # unknown, no name at all, a folder of names
        raise RequestError(
            f"--timezone={asked}: no such time zone; they are called UTC, Europe/Berlin and so on"
        ) from error


def _list(schedules: Sequence[tuple[Schedule, datetime]], state: Path) -> int:
    history = History(state)
    rows = []
    for found, due_at in schedules:
        last = history.last(found.name)
        rows.append(
            (found.name, found.cron, f"{due_at:%Y-%m-%d %H:%M %Z} ({found.timezone})",
             "–" if last is None else last.state, found.command, found.folder, f"{found.timeout_s / 3600:g} h")
        )  # fmt: skip
    _print(("schedule", "cron", "next", "last run", "command", "folder", "limit"), rows)
    return 0


def _history(state: Path, name: str | None, as_json: bool) -> int:
    history = History(state)
    runs = history.runs(name)
    if as_json:
        found = [
            {"id": run.id, "schedule": run.schedule, "started_by": run.started_by, "host": run.host, "start": run.start,
             "end": run.end, "exit_code": run.exit_code, "outcome": run.state, "log": _log(history, run)}
            for run in runs
        ]  # fmt: skip
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    rows = [
        (str(run.id), run.schedule, _time(run.start), _time(run.end), _duration(run), run.started_by,
         "–" if run.exit_code is None else str(run.exit_code), run.state, _log(history, run) or "–")
        for run in runs[-_SHOWN:]
    ]  # fmt: skip
    _print(("run", "schedule", "start", "end", "took", "started by", "exit code", "meaning", "log"), rows)
    return 0


def _log(history: History, run: Run) -> str | None:
    log = history.log(run, run.schedule)
    return str(log) if log.exists() else None


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _duration(run: Run) -> str:
    if run.end is None or run.outcome == "skipped":
        return "–"
    minutes, seconds = divmod(round(run.end - run.start), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _print(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    import rich.console
    from rich import box
    from rich.table import Table

    table = Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    rich.console.Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200).print(table)
