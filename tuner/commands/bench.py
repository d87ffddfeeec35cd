"""`tune bench`: how a live endpoint of the Open Inference Protocol answers at a rate, or which rate it holds."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import ExitCode, RequestError
from tuner.plugin import missing
from tuner.report.terminal import Terminal

if TYPE_CHECKING:
    from tuner.serve.load import Run

_LIBRARIES = ("aiohttp", "orjson", "uvloop")
_COLUMNS = ("requests/s", "answered", "p50 ms", "p95 ms", "p99 ms", "95 % interval", "sent late, p99 ms")
_LATE = 0.1  # of the limit: a client that late measures itself
_CLOSE = 1.1  # to the rate that was found: more than that, and a server is overloaded on purpose


@dataclass(frozen=True)
class _Wanted:
    """`rate` is None where it is to be found."""

    rate: float | None
    latency_ms: float | None = None
    batch: int = 1
    seconds: float = 5.0
    connections: int = 256
    inputs: Path | None = None
    binary: bool | None = None


def run(arguments: Sequence[str]) -> ExitCode:
    """`URL rate=R|find [latency_ms=L] [batch=1] [seconds=5] [inputs=FILE.npz] [connections=256] [binary=true]`."""
    url, wanted = _read(arguments)
    for library in _LIBRARIES:
        if (why := missing(library, "inference-tuner[serve]")) is not None:
            raise RequestError(f"tune bench: {why}")
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_bench(url, wanted))


def _read(arguments: Sequence[str]) -> tuple[str, _Wanted]:
    urls = [a for a in arguments if a.startswith(("http://", "https://"))]
    pairs = dict(a.split("=", 1) for a in arguments if a not in urls and "=" in a)
    names = [field.name for field in fields(_Wanted)]
    if len(urls) != 1 or len(pairs) + 1 != len(arguments):
        raise RequestError("tune bench needs one address, http://HOST:PORT/v2/models/NAME, and rate=R or rate=find")
    if wrong := [key for key in pairs if key not in names]:
        raise RequestError(f"{wrong[0]}={pairs[wrong[0]]}: no such key; there are {', '.join(names)}")
    if "rate" not in pairs:
        raise RequestError("rate=R (requests per second) or rate=find must be given")
    if pairs["rate"] == "find" and "latency_ms" not in pairs:
        raise RequestError("latency_ms=L must be given: rate=find looks for the largest rate whose p99 is within it")
    if (binary := pairs.get("binary", "true")) not in ("true", "false"):
        raise RequestError(f"binary={binary}: must be true or false; without it the server's metadata says")
    return urls[0], _Wanted(
        rate=None if pairs["rate"] == "find" else _number(pairs, "rate"),
        latency_ms=_number(pairs, "latency_ms") if "latency_ms" in pairs else None,
        batch=_whole(pairs, "batch") if "batch" in pairs else 1,
        seconds=_number(pairs, "seconds") if "seconds" in pairs else 5.0,
        connections=_whole(pairs, "connections") if "connections" in pairs else 256,
        inputs=Path(pairs["inputs"]) if "inputs" in pairs else None,
        binary=binary == "true" if "binary" in pairs else None,
    )


def _number(pairs: dict[str, str], key: str) -> float:
    try:
        value = float(pairs[key])
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise RequestError(f"{key}={pairs[key]}: must be a number of more than 0")
    return value


def _whole(pairs: dict[str, str], key: str) -> int:
    value = _number(pairs, key)
    if value != int(value):
        raise RequestError(f"{key}={pairs[key]}: must be a whole number")
    return int(value)


async def _bench(url: str, wanted: _Wanted) -> ExitCode:
    from tuner.serve.client import endpoint
    from tuner.serve.load import Load, Run, connected, largest_rate

    terminal = Terminal()
    async with connected(wanted.connections) as session:
        place = await endpoint(session, url, wanted.binary)
        requests = place.requests(wanted.batch, wanted.inputs)
        load = Load(session, place, requests)
        runs: list[Run] = []
        form = "in bytes" if place.binary else "as JSON"
        sent = f"{place.samples(wanted.batch)} samples a request, {len(requests)} requests that differ"
        terminal.line(f"{place.url}: {place.server}, tensors {form}, {sent}")
        alone_ms = await load.alone()
        terminal.line(f"a lone request takes {alone_ms:.3g} ms")

        async def run(rate: float, seed: int) -> Run:
            limit_ms = wanted.latency_ms if wanted.rate is None else None
            runs.append(await load.at(rate, wanted.seconds, seed, limit_ms or math.inf))
            return runs[-1]

        if wanted.rate is not None:
            await run(wanted.rate, 0)
            held = None
        else:
            held = await largest_rate(run, 1e3 / alone_ms, wanted.latency_ms or math.inf)
    terminal.table(_COLUMNS, [_row(each) for each in sorted(runs, key=lambda each: each.rate)], numbers=_COLUMNS)
    limit_ms = wanted.latency_ms
    if limit_ms is not None and any(each.client_ms > _LATE * limit_ms for each in runs):
        terminal.line("the client itself was late, which counts: the server may hold more; run it elsewhere", bad=True)
    decided = [each.at_once for each in runs if held is None or each.rate <= _CLOSE * held.rate]
    if (at_once := max(decided)) > wanted.connections:
        terminal.line(
            f"up to {at_once:,} requests were under way, and {wanted.connections} connections carry one each: the rest "
            f"waited in the client, which counts; give connections={at_once}",
            bad=True,
        )
    if held is not None:
        low, high = held.interval
        within = f"{held.rate:,.0f} requests/s (95 % interval {low:,.0f} to {high:,.0f})"
        terminal.line(f"p99 is within {limit_ms:g} ms up to {within}")
        return ExitCode.OK
    if wanted.rate is None or (limit_ms is not None and runs[0].percentile(99) > limit_ms):
        terminal.line(f"p99 is not within {limit_ms:g} ms", bad=True)
        return ExitCode.INFEASIBLE
    return ExitCode.OK


def _row(run: "Run") -> list[str]:
    low, high = run.interval
    p50, p95, p99 = (f"{run.percentile(q):.2f}" for q in (50, 95, 99))
    return [
        f"{run.rate:,.0f}",
        f"{run.answered:.1%}",
        p50,
        p95,
        p99,
        f"{low:.2f} to {high:.2f}",
        f"{run.client_ms:.2f}",
    ]
