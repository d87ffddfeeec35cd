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

from tuner.errors import ExitCode, RequestError
from tuner.schedule.cron import Cron
from tuner.schedule.runs import History, Run, Schedule
from tuner.system.files import folder, taken_back

_SHOWN = 20  # runs in the table of the history


def run(arguments: Sequence[str]) -> int:
    """Runs one of the sub-commands and returns its exit code. What follows `--` are the arguments of `tune`."""
    own, of_tune = list(arguments), None
    if "--" in own:
        at = own.index("--")
        own, of_tune = own[:at], tuple(own[at + 1 :])
    options = _parser().parse_args(own)
    if of_tune is not None and options.command != "add":
        raise RequestError(f"tune schedule {options.command} takes nothing after --")
    state = folder(str(options.state_dir))
    with taken_back(state):
        try:
            state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"--state-dir={state}: cannot be written ({error.strerror}); choose another") from error
        return _run(options, state, of_tune)


def _run(options: argparse.Namespace, state: Path, of_tune: tuple[str, ...] | None) -> int:
    if options.command == "add":
        _add(options, state, of_tune or ())
    elif options.command == "history":
        _history(state, options.name, options.json)
    elif options.command == "now":
        return _now(options, state)
    else:
        _of_schedules(options, state)
    return ExitCode.OK


def _of_schedules(options: argparse.Namespace, state: Path) -> None:
    """The sub-commands that need APScheduler and nothing else."""
    from tuner.schedule.scheduler import Schedules, serve

    if options.command == "run":
        serve(state)
    elif options.command == "list":
        _list(Schedules(state).all(), state)
    elif options.command == "remove":
        Schedules(state).remove(options.name)
        sys.stdout.write(f"{options.name} is removed; its history stays\n")
    else:
        from tuner.schedule.export import ENGINES, Place

        schedule = Schedules(state).get(options.name)
        schedule.check_secrets()
        sys.stdout.write(ENGINES[options.engine](schedule, Place(state, options.image)))


def _now(options: argparse.Namespace, state: Path) -> int:
    from tuner.schedule.perform import perform
    from tuner.schedule.scheduler import Schedules

    return perform(Schedules(state).get(options.name), state, options.by)


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


def _add(options: argparse.Namespace, state: Path, of_tune: tuple[str, ...]) -> None:
    """Checks all that can be checked now: at night nobody reads the message."""
    from tuner.schedule.scheduler import Schedules

    if not re.fullmatch(r"\w[\w.\-]*", options.name):
        raise RequestError(f"{options.name}: the name must be letters, digits, '.', '_' and '-'")
    Cron.parse(options.cron)
    for option, value in (("--timeout-hours", options.timeout_hours), ("--grace-minutes", options.grace_minutes)):
        if not 0 < value < float("inf"):
            raise RequestError(f"{option}={value:g} must be more than 0")
    if not of_tune:
        raise RequestError("what is to run follows --, for instance: -- sweep=nightly")
    # a scheduled run tells when the champion in use got worse, unless it is told otherwise
    watched = of_tune if any(a.startswith("watch=") for a in of_tune) else (*of_tune, "watch=true")
    _check(watched)
    schedule = Schedule(
        name=options.name,
        cron=options.cron,
        timezone=_zone(options.timezone),
        arguments=watched,
        folder=str(Path.cwd()),
        timeout_s=options.timeout_hours * 3600,
        grace_s=options.grace_minutes * 60,
    )
    schedule.check_secrets()
    due_at = Schedules(state).add(schedule)
    sys.stdout.write(
        f"{schedule.name}: {schedule.command}\nin {schedule.folder}, next at {due_at:%Y-%m-%d %H:%M %Z} "
        f"({schedule.timezone}), where `tune schedule run` is on\n"
    )


def _check(arguments: Sequence[str]) -> None:
    """Raises RequestError where `tune` would refuse those arguments."""
    from tuner.request import compose
    from tuner.study import sweep

    if sweep.is_sweep(arguments):
        sweep.checked(arguments)
    else:
        compose.request(arguments)


def _zone(name: str | None) -> str:
    """The name of the time zone, where there is one of that name, or of the machine's."""
    from tzlocal import get_localzone_name

    try:
        return str(ZoneInfo(name or get_localzone_name()))
    except (KeyError, ValueError, OSError) as error:  # unknown, no name at all, a folder of names
        raise RequestError(
            f"--timezone={name}: no such time zone; they are called UTC, Europe/Berlin and so on"
        ) from error


def _list(schedules: Sequence[tuple[Schedule, datetime]], state: Path) -> None:
    from tuner.report.terminal import Terminal

    history = History(state)
    rows = []
    for schedule, due_at in schedules:
        last = history.last(schedule.name)
        rows.append(
            (schedule.name, schedule.cron, f"{due_at:%Y-%m-%d %H:%M %Z} ({schedule.timezone})",
             None if last is None else last.state, schedule.command, schedule.folder,
             f"{schedule.timeout_s / 3600:g} h")
        )  # fmt: skip
    Terminal().table(("schedule", "cron", "next", "last run", "command", "folder", "limit"), rows)


def _history(state: Path, name: str | None, as_json: bool) -> None:
    history = History(state)
    runs = history.runs(name)
    if as_json:
        described = [
            {"id": run.id, "schedule": run.schedule, "started_by": run.started_by, "host": run.host, "start": run.start,
             "end": run.end, "exit_code": run.exit_code, "outcome": run.state, "log": _log(history, run)}
            for run in runs
        ]  # fmt: skip
        sys.stdout.write(json.dumps(described, indent=2) + "\n")
        return
    from tuner.report.terminal import Terminal

    rows = [
        (str(run.id), run.schedule, _time(run.start), _time(run.end), _duration(run), run.started_by,
         None if run.exit_code is None else str(run.exit_code), run.state, _log(history, run))
        for run in runs[-_SHOWN:]
    ]  # fmt: skip
    Terminal().table(("run", "schedule", "start", "end", "took", "started by", "exit code", "meaning", "log"), rows)


def _log(history: History, run: Run) -> str | None:
    log = history.log(run, run.schedule)
    return str(log) if log.exists() else None


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _duration(run: Run) -> str | None:
    if run.end is None or run.outcome == "skipped":
        return None
    minutes, seconds = divmod(round(run.end - run.start), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
