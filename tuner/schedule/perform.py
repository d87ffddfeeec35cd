"""One run of a schedule: `tune` started as a process, watched, within its time, and recorded however it ends.

The process that runs `perform` outlives the scheduler that started it. What it started does not outlive it.
"""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from tuner.errors import ExitCode, RequestError
from tuner.schedule.runs import By, History, Schedule, lock_path, meaning
from tuner.system import process
from tuner.system.files import critical_section, take_lock


def perform(schedule: Schedule, state: Path, by: By) -> int:
    """Runs a schedule once, now, and returns the exit code of what it runs, or that its time was up.

    Raises RequestError where it is running already, which is recorded. Runs of different schedules on one machine
    take turns, for they would disturb each other's timings; the wait does not count against `timeout_s`.
    """
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    process.adopt_orphans()
    if not Path(schedule.folder).is_dir():
        raise RequestError(
            f"{schedule.name}: its folder {schedule.folder} is not there; put it back, or remove the schedule and add "
            "it elsewhere"
        )
    history = History(state)
    for folder in ("locks", "logs"):
        (state / folder).mkdir(exist_ok=True)
    machine_lock = state / "locks" / f".{socket.gethostname()}"
    with lock_path(state, schedule.name).open("w") as running:
        if not take_lock(running, wait=False):
            history.skipped(schedule.name, by)
            raise RequestError(f"{schedule.name} is still running; this start is skipped (tune schedule history)")
        run = history.began(schedule.name, by)
        log = history.log(run, schedule.name)
        process.say(f"{schedule.name}: {schedule.command}; its output goes to {log}")
        code, outcome = None, "interrupted"
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # the scheduler blocked it up to here
            with critical_section(machine_lock), log.open("wb") as output:
                code, outcome = _watched(schedule, output, running.fileno())
        except KeyboardInterrupt:
            pass
        finally:
            process.end_descendants()
            history.ended(run, code, outcome)
    process.say(f"{schedule.name}: {outcome}" + ("" if code is None else f", exit code {code}"))
    if outcome == "timeout":
        return ExitCode.TIMED_OUT
    if code is None:
        return ExitCode.INTERRUPTED
    return code if code >= 0 else 128 - code  # as a shell says that a signal ended it


def _watched(schedule: Schedule, output: IO[bytes], lock: int) -> tuple[int, str]:
    """Runs the command to its end and returns the exit code and what it means."""
    command = [sys.executable, "-m", "tuner.cli", *schedule.arguments]
    # it holds the lock too: while it lives nobody starts it again
    running = process.start(command, folder=Path(schedule.folder), output=output, kept_open=[lock])
    reason = None
    deadline = time.monotonic() + schedule.timeout_s
    while True:
        try:
            code = running.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            if reason is not None:
                running.kill()
                deadline = time.monotonic() + 1
                continue
            reason = "timeout"
            deadline = time.monotonic() + schedule.grace_s
        except KeyboardInterrupt:
            if reason is None:
                reason = "interrupted"
                deadline = time.monotonic() + schedule.grace_s
        else:
            answered = code in set(ExitCode) and ExitCode(code).finished
            return code, meaning(code) if reason is None or answered else reason
        running.send_signal(signal.SIGTERM)
