"""`tune export`: an artifact as the platform wants it where it is deployed, and how many replicas hold a rate."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tuner.champions.located import located
from tuner.deploy.deployment import Batching, Deployment, Wanted
from tuner.deploy.format import format_called, formats
from tuner.errors import ExitCode, RequestError
from tuner.system.files import folder


def run(arguments: Sequence[str]) -> ExitCode:
    """`tune export ARTIFACT|models:/NAME@champion|study=NAME --format … [--out DIR] [--rate R] [--latency-ms L]`."""
    options, rest = _parser().parse_known_args(arguments)
    if wrong := [argument for argument in rest if argument.startswith("-")]:
        raise RequestError(f"tune export: {wrong[0]}: no such option; tune --help shows them")
    if options.format is None and options.rate is None:
        raise RequestError(
            f"--format must be given: {', '.join(formats())}; with --rate R alone, how many hold it is told"
        )
    chosen = None if options.format is None else format_called(options.format)
    batching = Batching.PACED if chosen is None else chosen.batching
    modules = tuple(options.code)
    wanted = Wanted(options.rate, options.held, options.latency_ms, options.cores, options.image, modules, batching)
    with located(rest) as (artifact, name):
        deployment = Deployment.of(artifact, options.name or name, wanted)
        lines = [] if options.rate is None else [deployment.capacity.sentence(options.rate)]
        if chosen is not None:
            out = folder(options.out or f"{deployment.name}-{chosen.name}")
            if out.exists():
                raise RequestError(f"--out {out}: it is there already; name another, or remove it")
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
                draft = Path(scratch) / out.name
                draft.mkdir()
                notes = chosen.write(deployment, draft)
                shutil.move(draft, out)
            lines += [str(out), *(note.replace(str(draft), str(out)) for note in notes)]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return ExitCode.OK


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{self.prog}: {message}; tune --help shows the options")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tune export", add_help=False, allow_abbrev=False)
    parser.add_argument("--format")
    parser.add_argument("--out")
    parser.add_argument("--name")
    parser.add_argument("--image")
    parser.add_argument("--rate", type=_positive)
    parser.add_argument("--held", type=_positive)
    parser.add_argument("--latency-ms", type=_positive)
    parser.add_argument("--cores", type=_whole)
    parser.add_argument("--code", action="append", default=[])
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be more than 0")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value
