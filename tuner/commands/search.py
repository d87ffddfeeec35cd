"""`tune`, without a command: a study, or a sweep of them."""

import sys
from collections.abc import Sequence

from tuner.commands.inspect import without_samples
from tuner.errors import ExitCode
from tuner.request import compose, former
from tuner.study import sweep


def run(arguments: Sequence[str]) -> ExitCode:
    """Searches, decides and packages; with `--cfg`, prints the configuration and does nothing."""
    if sweep.is_sweep(arguments):
        return sweep.run(arguments)
    if "--cfg" in arguments:
        sys.stdout.write(compose.printed([argument for argument in arguments if argument != "--cfg"]))
        return ExitCode.OK
    arguments = former.present(arguments)
    config = compose.composed(arguments)
    if compose.missing(config) == ["dataset.path"]:
        return without_samples(arguments)
    request = compose.request(arguments, config)
    if not request.compile_only:
        request.target.check()
    # slow to import, and not needed to refuse a request
    from tuner.report.console import Console
    from tuner.study import compiled
    from tuner.study.run import run as study

    return (compiled.run if request.compile_only else study)(request, Console())
