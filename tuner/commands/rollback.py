"""`tune rollback`: the champion before this one becomes champion again, said by a person."""

import sys
from collections.abc import Sequence

from tuner.commands.promote import read
from tuner.errors import ExitCode, RequestError


def run(arguments: Sequence[str]) -> ExitCode:
    """`[NAME] [reason=…]`."""
    move = read(arguments, "rollback")
    if move.version is not None:
        raise RequestError(
            f"version={move.version}: rollback goes to the champion before; tune promote takes a version"
        )
    before, now = move.registry.rollback(move.name, move.who, move.reason)
    sys.stdout.write(f"{move.name}: version {now} is the champion again, it was {before}\n")
    return ExitCode.OK
