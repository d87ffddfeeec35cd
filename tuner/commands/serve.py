"""`tune serve`: an artifact answers requests over HTTP, by the Open Inference Protocol."""

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn, get_type_hints

from tuner import artifact
from tuner.errors import ExitCode, RequestError
from tuner.plugin import missing
from tuner.serve.settings import Settings, option

_LIBRARIES = ("starlette", "uvicorn", "httptools", "uvloop", "orjson", "prometheus_client")


def run(arguments: Sequence[str]) -> ExitCode:
    """`ARTIFACT|models:/NAME@champion|study=NAME [--port 8000] …`: serves it until Ctrl-C or SIGTERM."""
    options, rest = _parser().parse_known_args(arguments)
    if wrong := [argument for argument in rest if argument.startswith("-")]:
        raise RequestError(f"tune serve: {wrong[0]}: no such option; there are {', '.join(map(option, _hints()))}")
    settings = Settings(**{name: value for name, value in vars(options).items() if value is not None})
    key = settings.api_key
    needed = dict.fromkeys(_LIBRARIES, "serve")
    if settings.grpc_port is not None:
        needed |= {"grpc": "grpc", "grpc_tools": "grpc"}
    for library, extra in needed.items():
        if (why := missing(library, f"inference-tuner[{extra}]")) is not None:
            raise RequestError(f"tune serve: {why}")
    from tuner.serve.server import serve

    with _located(rest) as (folder, name):
        serve(folder, name, settings, key)
    return ExitCode.OK


@contextlib.contextmanager
def _located(arguments: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """The artifact's folder and its name. A folder needs nothing of the search: an image has none of it installed."""
    if len(arguments) == 1 and (Path(arguments[0]) / artifact.MANIFEST).is_file():
        folder = Path(arguments[0]).resolve()
        yield folder, folder.parent.name if folder.name == "champion" else folder.name
        return
    from tuner.champions.located import located

    with located(arguments) as place:
        yield place


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"tune serve: {message}")


def _hints() -> dict[str, object]:
    return {field.name: get_type_hints(Settings)[field.name] for field in fields(Settings)}


def _parser() -> argparse.ArgumentParser:
    """An option for each field of the settings."""
    parser = _Parser(prog="tune serve", add_help=False, allow_abbrev=False)
    for name, kind in _hints().items():
        if kind is bool:
            parser.add_argument(option(name), action="store_true")
        else:
            number = {int: int, int | None: int, float: float, float | None: float}.get(kind, str)  # type: ignore[call-overload]
            parser.add_argument(option(name), type=number)
    return parser
