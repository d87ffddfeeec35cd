"""What `tune` says to bad inputs: each is to end with exit code 2 and one sentence or two that name the key or file, at
once, and leave nothing behind. Each runs in a process of its own in a fresh folder, so that it may exit or hang.

    python -m benchmarks.bad_inputs [KIND …]        a few minutes on 2 cores
"""

import collections
import contextlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bad_inputs import files
from benchmarks.bad_inputs.table import KINDS
from benchmarks.common import save

LIMIT_S = 30
_LONGEST = 600  # characters of one or two sentences
_TIMED_OUT = 124


@dataclass(frozen=True)
class Ended:
    """How one command line ended: `left` are the files and folders that it left behind and did not name."""

    code: int
    out: str
    err: str
    left: list[str]
    seconds: float

    def faults(self, names: str) -> Iterator[str]:
        """What is wrong about it, where it was to name that."""
        said = [line for line in self.err.splitlines() if line.startswith("tune: ")]
        if self.code == _TIMED_OUT:
            yield f"no end within {LIMIT_S} s"
        elif self.code != 2:
            yield f"exit code {self.code}"
        if "Traceback" in self.out + self.err:
            yield "traceback"
        if len(said) != 1 or self.err.count("tune: ") != 1 or len(said[0]) > _LONGEST:
            yield f"{len(said)} messages, {len(self.err)} characters"
        elif names not in said[0]:
            yield f"does not name {names!r}"
        if self.left:
            yield f"left {', '.join(self.left[:4])}"


def main() -> None:
    """Tries all kinds, or those named, and saves the counts where all were tried."""
    asked = sys.argv[1:] or list(KINDS)
    with tempfile.TemporaryDirectory() as name:
        good = Path(name) / "good"
        good.mkdir()
        files.write(good)
        import tuner.commands.search
        import tuner.study.run  # noqa: F401  what every child would import

        rows = [(kind, line, names) for kind in asked for line, names in KINDS[kind]]
        counts: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in asked}
        slowest = 0.0
        for n, (kind, line, names) in enumerate(rows):
            ended = tried(line, good, Path(name) / f"{n}")
            slowest = max(slowest, ended.seconds)
            faults = list(ended.faults(names))
            counts[kind]["wrong" if faults else "right"] += 1
            print(f"{'WRONG' if faults else 'right'}  {kind}: tune {line}  ({ended.seconds:.1f} s)")
            print(f"       {ended.err.strip().splitlines()[-1] if ended.err.strip() else '(nothing)'}")
            for fault in faults:
                print(f"       - {fault}", flush=True)
    right = sum(count["right"] for count in counts.values())
    print(f"{right} of {len(rows)} are right")
    if asked == list(KINDS):
        of = {kind: f"{count['right']} of {count.total()}" for kind, count in counts.items()}
        save("bad_inputs", {"inputs": len(rows), "right": right, "kinds": of, "slowest_s": round(slowest, 1)})


def tried(line: str, good: Path, folder: Path) -> Ended:
    """Runs `tune` with that command line, in a folder of its own that has all the files."""
    shutil.copytree(good, folder / "here")
    before = _there(folder / "here")
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _command(shlex.split(line), folder)
    code = _waited(child)
    seconds = time.monotonic() - start
    out, err = ((folder / stream).read_text(errors="replace") for stream in ("out", "err"))
    left = sorted(_there(folder / "here") - before)  # what a cache has, the next try need not build
    shutil.rmtree(folder)
    return Ended(code, out, err, [path for path in left if not path.endswith(".log") or path not in err], seconds)


def _command(arguments: list[str], folder: Path) -> None:
    """Becomes that command, its caches and schedules under the folder. Called in a child; does not return."""
    code = 99
    try:
        os.setsid()
        for number, stream in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / stream, os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # a test has others
        os.chdir(folder / "here")
        os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "here/state")}
        sys.path.insert(0, str(folder / "here"))
        from tuner.cli import main as tune

        code = tune(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _waited(child: int) -> int:
    """The exit code of a child, whose group is ended with it."""
    end = time.monotonic() + LIMIT_S
    status = 0
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not done:
        os.waitpid(child, 0)
        return _TIMED_OUT
    return os.waitstatus_to_exitcode(status)


def _there(folder: Path) -> set[str]:
    """What is in a folder, but for what Python keeps of modules."""
    paths = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {path for path in paths if "__pycache__" not in path}


if __name__ == "__main__":
    main()
