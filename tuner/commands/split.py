"""`tune split`: is a model best on the edge, in the cloud, or cut in two?"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tuner.build.routes import conversions
from tuner.errors import ExitCode, RequestError
from tuner.forms.onnx import ONNX
from tuner.request import compose, former
from tuner.request.request import Request
from tuner.study.ways import FILE, Answer, Asked, Link, Way
from tuner.system.secret import masked
from tuner.task import Call

if TYPE_CHECKING:
    from tuner.report.terminal import Terminal

_CLOUD = "target.cloud"
_LINK = ("link.mbit_s", "link.rtt_ms")
_CUTS = 4  # of a graph that are tried, where nothing else is said
_DEFAULTS = {
    "search_space": "quick",
    "search_space.batch_size": "1",
    "++search_space.replicas": "1",
    "objective": "latency",
}
_USAGE = (
    "tune split needs a model, its samples, two targets and the link between them: tune split model=onnx "
    "model.path=net.onnx dataset.path=eval.npz target=cpu target.threads=1 target.cloud=cpu link.mbit_s=20 "
    "link.rtt_ms=30 latency_ms=50"
)
_MEASURED = "it compares what it measures, one request at a time"
_NOT_HERE = {
    "compile_only": _MEASURED,
    "watch": "the parts that it registers are champions of this comparison alone",
    "sweep": "it is one comparison",
    "-m": "it is one comparison",
    "--multirun": "it is one comparison",
    "--cfg": "tune --cfg prints the configuration of one study",
}


def run(arguments: Sequence[str]) -> ExitCode:
    """`target=EDGE target.cloud=CLOUD link.mbit_s=R link.rtt_ms=T [cuts=4]` and what a study takes: INFEASIBLE where
    neither the edge, nor the cloud, nor a cut keeps the limits."""
    asked = read(arguments)
    for side, request in (("target", asked.edge), (_CLOUD, asked.cloud)):
        _found(side, request)
    # slow to import, and not needed to refuse a request
    from tuner.report.console import Console
    from tuner.report.terminal import Terminal
    from tuner.study.split import split

    answer = split(asked, Console())
    _tell(answer, asked, Terminal())
    return answer.exit_code


def read(arguments: Sequence[str]) -> Asked:
    """What the command line asks for. Raises RequestError, naming the key and the mend, before anything is spent."""
    own, overrides = _told_apart(former.present(arguments))
    if not arguments:
        raise RequestError(_USAGE)
    for argument in overrides:
        if (key := argument.partition("=")[0]) in _NOT_HERE and not argument.endswith("=false"):
            raise RequestError(f"{argument}: tune split takes no {key}, for {_NOT_HERE[key]}; leave it out")
    for key in (_CLOUD, *_LINK):
        if not own.get(key):
            raise RequestError(f"{key} must be given: {key}=…; {_USAGE}")
    link = Link(_number(own, "link.mbit_s", above=True), _number(own, "link.rtt_ms"))
    cuts = _number({"cuts": str(_CUTS), **own}, "cuts")
    if cuts != int(cuts):
        raise RequestError(f"cuts={own['cuts']}: must be a whole number")
    edge = _with_defaults(overrides)
    cloud = [o for o in edge if not re.match(r"[+~]*target[.=]", o)]
    cloud += [f"target{key.removeprefix(_CLOUD)}={value}" for key, value in own.items() if key.startswith(_CLOUD)]
    requests = compose.request(edge), _cloud_request(cloud)
    _require(requests[0])
    lines = {"edge": tuple(edge), "cloud": tuple(cloud)}
    return Asked(*requests, lines, link, int(cuts), tuple(map(masked, arguments)))


def _told_apart(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The keys that are only here, with their values, and the overrides of a study. Raises RequestError."""
    own: dict[str, str] = {}
    overrides = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("cuts", *_LINK) or key == _CLOUD or key.startswith(f"{_CLOUD}."):
            if key in own:
                raise RequestError(f"{argument}: {key}={own[key]} is given too")
            own[key] = value
        elif key.split(".")[0] == "link":
            raise RequestError(f"{argument}: no such key; the link has {' and '.join(_LINK)}")
        elif key.split(".")[0] == "cloud":
            raise RequestError(f"{argument}: the target in the cloud is target.{argument}")
        else:
            overrides.append(argument)
    return own, overrides


def _number(own: Mapping[str, str], key: str, *, above: bool = False) -> float:
    """A number of 0 or more, or `above` it. Raises RequestError."""
    try:
        value = float(own[key])
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf if above else 0 <= value < math.inf):
        raise RequestError(f"{key}={own[key]}: must be a number of {'more than 0' if above else '0 or more'}")
    return value


def _with_defaults(overrides: Sequence[str]) -> list[str]:
    """The command line of the whole model on the edge: single requests, in a small space, unless it says otherwise."""
    given = [override.partition("=")[0].lstrip("+~") for override in overrides]

    def said(key: str) -> bool:
        fields_too = key != "search_space"  # a field of that is one of whichever space is chosen
        return any(name == key or (fields_too and name.startswith(f"{key}.")) for name in given)

    return [*overrides, *(f"{key}={value}" for key, value in _DEFAULTS.items() if not said(key.lstrip("+")))]


def _cloud_request(overrides: Sequence[str]) -> Request:
    """Raises RequestError, with the key as it is here."""
    try:
        return compose.request(overrides)
    except RequestError as error:
        raise RequestError(re.sub(r"\btarget(?=[.=:])(?!\.cloud)", _CLOUD, str(error))) from error


def _require(request: Request) -> None:
    """Refuses what a split does not do. Raises RequestError."""
    goal, model = request.goal, request.workload.model
    if goal.objective != "latency":
        raise RequestError(
            f"objective={goal.objective}: tune split looks for the least latency of one request; leave it out"
        )
    for name, counts in (
        ("batch_size", request.space.counts("batch_size")),
        ("replicas", request.space.counts("replicas")),
    ):
        if counts != [1]:
            raise RequestError(
                f"search_space.{name}: tune split answers one request at a time, so it is 1; leave it out"
            )
    if goal.scenario != "SingleStream":
        raise RequestError(f"scenario={goal.scenario}: tune split answers one request at a time; leave it out")
    if request.workload.task != Call():
        raise RequestError("task: tune split cuts what is called once for each request; leave it out")
    if conversions(model.form, (ONNX,)) is None:
        raise RequestError(
            f"model {model.name}: tune split cuts ONNX graphs, and no conversion leads from {model.form} to one; "
            "export it: model=onnx model.path=…"
        )


def _found(key: str, request: Request) -> None:
    """Raises RequestError, with the key as it is here, where the target's device is not."""
    try:
        request.target.check()
    except RequestError as error:
        raise RequestError(re.sub(r"\btarget(?=[.=])(?!\.cloud)", key, str(error))) from error


def _tell(answer: Answer, asked: Asked, terminal: "Terminal") -> None:
    """Prints the verdict, and what every way takes."""
    from tuner.report.words import breaches, limits

    goal, best, nearest = answer.goal, answer.best, answer.nearest
    if best is not None:
        others = [way for way in answer.ways if way is not best and way.latency and way.cut is None]
        beside = [f"{_ms(way, goal.percentile):.2f} ms {way.where}" for way in others]
        than = f"; {' and '.join(beside)}" if beside else ""
        terminal.line(f"Best: {best.where}, {_ms(best, goal.percentile):.2f} ms from end to end{than}.")
    elif nearest is not None:
        missed = ", ".join(breaches(goal, nearest.measured))
        terminal.line(f"None within {limits(goal)}. Nearest: {nearest.where} ({missed}).", bad=True)
    else:
        terminal.line("None: no way could be measured.", bad=True)
    columns = ("", "where", "edge ms", "sent kB", "link ms", "cloud ms", "end to end ms", "accuracy", "drop")
    terminal.table(columns, [_row(way, answer) for way in answer.ways], numbers=columns[2:])
    for way in answer.ways:
        if way.note:
            terminal.line(f"{way.where}: {way.note}")
    link = asked.link
    terminal.line(
        f"ms are p{goal.percentile} of one request. Those of the parts are added, as if both were slow in the same "
        f"request; the link is declared ({link.mbit_s:g} Mbit/s, {link.rtt_ms:g} ms there and back), not measured, and "
        "carries bare tensors."
    )
    if best is not None:
        sides = [name for name, part in (("edge", best.edge), ("cloud", best.cloud)) if part is not None]
        terminal.line(f"artifacts {', '.join(str(answer.folder / name) for name in sides)}")
    terminal.line(f"result    {answer.folder / FILE}")


def _row(way: Way, answer: Answer) -> list[str | None]:
    parts = [part and part.measured and part.measured.latency_ms for part in (way.edge, way.cloud)]
    edge, cloud = (latency and f"{latency.percentile(answer.goal.percentile):.3f}" for latency in parts)
    linked = way.link_ms > 0 or way.cut is not None
    return [
        "best" if way is answer.best else "",
        way.where,
        edge or None,
        f"{way.sent_bytes / 1e3:.2f}" if linked else None,
        f"{way.link_ms:.2f}" if linked else None,
        cloud or None,
        None if way.latency is None else f"{_ms(way, answer.goal.percentile):.2f}",
        None if way.measured.accuracy is None else f"{way.measured.accuracy:.4f}",
        None if way.measured.accuracy_drop is None else f"{way.measured.accuracy_drop:+.4f}",
    ]


def _ms(way: Way, percentile: int) -> float:
    return math.nan if way.latency is None else way.latency.percentile(percentile)
