"""What `tune serve` holds: the largest rate of requests whose p99 is within the limit, beside the samples a second that
the same artifact gives when nobody serves it, and beside LitServe with the same artifact; and the wait that adapts
beside fixed waits. Client and server share the machine's cores, so a share of the offline figure is what is left of it
after HTTP on both sides.

    python -m benchmarks.serve [model …]        nine and twenty minutes on 2 cores; pip makes an environment first
"""

import asyncio
import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import uvloop

from benchmarks.common import RESULTS, calls_a_second, each_kept, prepared_rig
from tuner import artifact
from tuner.candidate import Candidate
from tuner.decide.package import deliver
from tuner.measurement import Measurement
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.serve.client import DIFFERENT, Endpoint, Request, endpoint
from tuner.serve.load import Load, Run, connected, largest_rate
from tuner.tensors import Arrays
from tuner.verdict import Finding

LITSERVE = "litserve==0.2.19"
SECONDS = 4.0  # of a rate
OFFLINE_S = 2.0
START_S = 120.0
NAME = "served"
Loads = Callable[[int], Load]
"""Of requests of so many samples."""


@dataclass(frozen=True)
class Subject:
    """What the study of that model would serve: ONNX Runtime at a batch size, a session a core, within a limit."""

    request: tuple[str, ...]
    batch_size: int
    limit_ms: float
    turns: int
    """Of each wait."""
    replicas: int = 2


SUBJECTS = {
    "digits_cnn": Subject(("model=digits_cnn",), 16, 100.0, 6),
    "minilm": Subject(("model=minilm", "dataset.pairs=100"), 8, 500.0, 2),
}
# the same artifact, called by LitServe's own batching; tensors as base64, for it reads JSON only
LIT = """
import base64, sys
from pathlib import Path
import litserve, numpy as np
from tuner import artifact

class Api(litserve.LitAPI):
    def setup(self, device):
        path = Path(sys.argv[1])
        sizes = [size for size, _ in artifact.read_manifest(path).smaller]
        self.sizes = [artifact.load_share(path, int(sys.argv[5]), size) for size in (*sizes, None)]
        self.loaded = self.sizes[-1]
    def decode_request(self, request):
        return {s.name: np.frombuffer(base64.b64decode(request[s.name]), s.dtype).reshape(-1, *s.shape)
                for s in self.loaded.inputs}
    def batch(self, requests):
        self.counts = [len(next(iter(r.values()))) for r in requests]
        return {name: np.concatenate([r[name] for r in requests]) for name in requests[0]}
    def predict(self, inputs):
        count = len(next(iter(inputs.values())))
        return next(each for each in self.sizes if count <= each.batch_size).run(inputs)
    def unbatch(self, outputs):
        ends = np.cumsum(self.counts)
        return [[o[e - n:e] for o in outputs] for n, e in zip(self.counts, ends)]
    def encode_response(self, outputs):
        return {"outputs": [base64.b64encode(np.ascontiguousarray(o)).decode() for o in outputs]}

if __name__ == "__main__":
    port, most, wait_s = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    api = Api(max_batch_size=most, batch_timeout=wait_s, api_path="/v2/models/served/infer")
    litserve.LitServer(api, accelerator="cpu", workers_per_device=int(sys.argv[5])).run(
        port=port, host="127.0.0.1", log_level="error", generate_client_file=False)
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="litserve-") as folder:
        python = _environment(Path(folder))
        each_kept("serve", sys.argv[1:] or SUBJECTS, partial(_measured, python))
    print(f"kept in {RESULTS / 'serve.json'}")


def _environment(folder: Path) -> Path:
    """A Python with LitServe that sees this one's packages."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    (site,) = folder.glob("lib/python*/site-packages")
    beside = (path for path in sys.path if path.endswith("site-packages"))  # and what their own .pth files bring
    (site / "beside.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in beside))
    subprocess.run([python, "-m", "pip", "install", "--quiet", LITSERVE], check=True)
    _script(python).write_text(LIT)
    return python


def _script(python: Path) -> Path:
    """A file: its workers import it again."""
    return python.with_name("served_by_litserve.py")


def _measured(python: Path, name: str, folder: Path) -> dict[str, Any]:
    subject = SUBJECTS[name]
    _, rig = prepared_rig(folder / "work", *subject.request, f"cache_dir={folder / 'cache'}")
    candidate, champion = Candidate((), OnnxRuntime(), subject.batch_size, subject.replicas), folder / "champion"
    measured = Measurement(accuracy=rig.scores(rig.built(candidate), candidate).value)
    deliver(rig, Finding(candidate, measured), champion)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_compared(python, subject, champion))


async def _compared(python: Path, subject: Subject, champion: Path) -> dict[str, Any]:
    loaded = artifact.load(champion)
    sizes = sorted({1, subject.batch_size})
    ours = partial(_served, champion, subject.limit_ms)
    offline = [_offline(loaded)]
    held: dict[str, Any] = {}
    for size in sizes:
        rates: dict[str, Any] = {}
        async with ours() as load:
            rates["tune serve"] = await _held(load(size), subject.limit_ms)
        # who asks for whole batches has none to join
        for wait_s in (0.001, subject.limit_ms / 4e3) if size < subject.batch_size else (0.001,):
            async with _litserve(python, champion, loaded, size, wait_s) as load:
                rates[f"LitServe, waits {wait_s * 1e3:g} ms"] = await _held(load, subject.limit_ms)
        best = max((rate or 0.0 for server, rate in rates.items() if server != "tune serve"), default=0.0)
        offline.append(_offline(loaded))
        mine = rates["tune serve"] or 0.0
        held[f"{size} a request"] = {
            "requests_s": rates,
            "over_litserve": round(mine / best, 2) if best else None,
            "of_offline": round(mine * size / float(np.median(offline)), 3),
        }
    alone = held["1 a request"]["requests_s"]["tune serve"] or 1e3 / subject.limit_ms
    return {
        "batch_size": subject.batch_size,
        "replicas": subject.replicas,
        "limit_ms": subject.limit_ms,
        "offline_samples_s": [round(rate) for rate in offline],
        "p99_held": held,
        "waits": await _waits(ours, subject, alone),
    }


def _offline(loaded: artifact.Artifact) -> float:
    """Samples a second of whole batches, in this process, a thread for each replica."""
    inputs = _made_up(loaded, loaded.batch_size, np.random.default_rng(0))
    return loaded.batch_size * calls_a_second([replica.run for replica in loaded.replicas], inputs, OFFLINE_S)


async def _waits(ours: Callable[..., Any], subject: Subject, held: float) -> dict[str, Any]:
    """The p99 at three shares of the rate that holds, with a wait that adapts and with fixed ones, several times in
    turns: on a busy machine a single p99 says little."""
    choices: dict[str, dict[str, float]] = {"adaptive": {}}
    for share in (0.0, 0.1, 0.25):
        choices[f"{share * subject.limit_ms:g} ms"] = {"wait_ms": share * subject.limit_ms}
    p99_ms: dict[str, dict[str, list[float]]] = {}
    for seed in range(subject.turns):
        for choice, options in choices.items():
            async with ours(**options) as load:
                for share in (0.3, 0.6, 0.9):
                    run: Run = await load(1).at(share * held, SECONDS, seed)
                    at = p99_ms.setdefault(f"{share * held:.0f} requests/s", {})
                    at.setdefault(choice, []).append(round(run.percentile(99), 2))
    medians = {rate: {choice: float(np.median(ms)) for choice, ms in at.items()} for rate, at in p99_ms.items()}
    return {
        rate: {
            "p99_ms": p99_ms[rate],
            "median_ms": {choice: round(ms, 2) for choice, ms in at.items()},
            "adaptive_over_best_fixed": round(
                at["adaptive"] / min(ms for choice, ms in at.items() if choice != "adaptive"), 3
            ),
        }
        for rate, at in medians.items()
    }


async def _held(load: Load, limit_ms: float) -> float | None:
    """Requests a second."""
    alone_ms = await load.alone()
    held = await largest_rate(lambda rate, seed: load.at(rate, SECONDS, seed, limit_ms), 1e3 / alone_ms, limit_ms)
    return None if held is None else round(held.rate, 1)


@contextlib.asynccontextmanager
async def _served(
    champion: Path, limit_ms: float, wait_ms: float | None = None
) -> AsyncIterator[Callable[[int], Load]]:
    """`tune serve` with this artifact: the load of requests of so many samples."""
    port = _port()
    command = [sys.executable, "-m", "tuner.cli", "serve", str(champion), "--name", NAME, "--port", str(port)]
    command += ["--latency-ms", str(limit_ms), "--quiet"] + (["--wait-ms", str(wait_ms)] if wait_ms is not None else [])
    with _process(command):
        async with connected() as session:
            url = f"http://127.0.0.1:{port}"
            await _ready(session, f"{url}/v2/health/ready")
            place = await endpoint(session, f"{url}/v2/models/{NAME}", None)
            yield lambda size: Load(session, place, place.requests(size, None))


@contextlib.asynccontextmanager
async def _litserve(
    python: Path, champion: Path, loaded: artifact.Artifact, size: int, wait_s: float
) -> AsyncIterator[Load]:
    """LitServe with this artifact: the load of requests of `size` samples, joined until they make a batch."""
    port, random = _port(), np.random.default_rng(0)
    most, replicas = max(1, loaded.batch_size // size), len(loaded.replicas)
    arguments = [str(champion), str(port), str(most), str(wait_s), str(replicas)]
    with _process([str(python), str(_script(python)), *arguments]):
        async with connected() as session:
            await _ready(session, f"http://127.0.0.1:{port}/health")
            place = Endpoint(f"http://127.0.0.1:{port}/v2/models/{NAME}", "LitServe", True, ())
            yield Load(session, place, [_in_base64(loaded, size, random) for _ in range(DIFFERENT)])


def _in_base64(loaded: artifact.Artifact, size: int, random: np.random.Generator) -> Request:
    made = _made_up(loaded, size, random)
    body = {name: base64.b64encode(array.tobytes()).decode() for name, array in made.items()}
    return orjson.dumps(body), {"content-type": "application/json"}


def _made_up(loaded: artifact.Artifact, size: int, random: np.random.Generator) -> Arrays:
    """So many samples, 0 or 1: of any vocabulary."""
    return {s.name: np.asarray(random.integers(0, 2, s.full(size)), s.dtype) for s in loaded.inputs}


@contextlib.contextmanager
def _process(command: Sequence[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _ready(session: aiohttp.ClientSession, url: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(url) as response:
                if response.status == 200:
                    return
        await asyncio.sleep(0.2)
    raise SystemExit(f"{url} is not ready after {START_S:g} s")


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    main()
