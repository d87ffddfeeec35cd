"""A champion and the float network, timed by another clock: in one process, by CUDA's events and by perf_counter.

    python -m benchmarks.gpu.clock STUDY_FOLDER NETWORK DEVICE SECONDS OUT_FILE

The network is called by code of its own here; of the tuner only the champion's session is used.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuner import artifact
from tuner.system.code import resolve

_TURN_S = 0.3
_POOL = 4


class Contender:
    """Answers arrays with arrays; `resident` runs what torch has on the device already, where a session has that."""

    def __init__(
        self, batch_size: int, answer: Callable[[Any], Any], resident: Callable[[Any], Any] | None, dtype: Any
    ):
        self.batch_size, self.answer, self.resident, self.dtype = batch_size, answer, resident, dtype
        self.wall_ms: list[float] = []
        self.event_ms: list[float] = []
        self.resident_ms: list[float] = []


def main(study: str, reference: str, device: str, seconds: str, out: str) -> None:
    result = json.loads((Path(study) / "result.json").read_text())
    network: Any = resolve(reference, "network")().to(device)
    deployed = artifact.load(Path(study) / "champion")
    name = deployed.inputs[0].name
    session: Any = deployed.session
    contenders = {
        "champion": Contender(
            deployed.batch_size,
            lambda x: session.run({name: x})[0],
            getattr(session, "_call", None),
            getattr(session, "_dtype", torch.float32),
        )
    }

    def eager(x: Any) -> Any:
        return network(torch.from_numpy(x).to(device)).cpu().numpy()

    sizes = {"eager at the same batch": deployed.batch_size}
    if found := result["baselines"]["eager"]:
        sizes["eager"] = found["candidate"]["batch_size"]
    for role, size in sizes.items():
        contenders[role] = Contender(size, eager, network, torch.float32)
    samples, _ = network.made_up(_POOL * max(c.batch_size for c in contenders.values()), 2)
    with torch.inference_mode():
        for contender in contenders.values():
            _time(contender, samples, device, 0.5)  # to warm up
            contender.wall_ms, contender.event_ms, contender.resident_ms = [], [], []
        end = time.perf_counter() + float(seconds)
        while time.perf_counter() < end:
            for contender in contenders.values():
                _time(contender, samples, device, _TURN_S)
        mine, theirs = (contenders[role].answer for role in ("champion", "eager at the same batch"))
        parts = [samples[i : i + deployed.batch_size] for i in range(0, len(samples), deployed.batch_size)]
        agreement = float(np.mean([(mine(part).argmax(-1) == theirs(part).argmax(-1)).mean() for part in parts]))
    figures = {
        "label": deployed.candidate.label,
        "agreement": agreement,
        "timed": {role: _figures(contender) for role, contender in contenders.items()},
        "tuner": {"champion": _told(result["champion"]), "eager": _told(result["baselines"]["eager"])},
    }
    if device == "cuda":
        figures["device_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    Path(out).write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))


def _time(contender: Contender, samples: Any, device: str, seconds: float) -> None:
    """Calls for that long: whole ones, and as often some on what is on the device already."""
    size = contender.batch_size
    batches = [samples[i * size : (i + 1) * size].copy() for i in range(_POOL)]
    there = torch.from_numpy(batches[0]).to(device)
    there = there.to(contender.dtype) if there.is_floating_point() else there
    end, calls = time.perf_counter() + seconds, 0
    while calls < 3 or time.perf_counter() < end:
        batch = batches[calls % _POOL]
        start = time.perf_counter()
        event_ms = _event_ms(lambda batch=batch: contender.answer(batch), device)
        contender.wall_ms.append((time.perf_counter() - start) * 1e3)
        contender.event_ms.append(event_ms)
        if (resident := contender.resident) is not None:
            contender.resident_ms.append(_event_ms(lambda resident=resident: resident(there), device))
        calls += 1


def _event_ms(call: Callable[[], Any], device: str) -> float:
    """Milliseconds by CUDA's events, on the stream that the call uses; without a GPU, by perf_counter."""
    if device != "cuda":
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def _figures(contender: Contender) -> dict[str, float | None]:
    wall = np.array(contender.wall_ms)
    return {
        "batch_size": contender.batch_size,
        "calls": len(wall),
        "p50_ms": float(np.percentile(wall, 50)),
        "p95_ms": float(np.percentile(wall, 95)),
        "event_p50_ms": float(np.median(contender.event_ms)),
        "resident_p50_ms": float(np.median(contender.resident_ms)) if contender.resident_ms else None,
        "samples_per_s": contender.batch_size / float(np.median(wall)) * 1e3,
    }


def _told(finding: dict[str, Any] | None) -> dict[str, Any] | None:
    if finding is None:
        return None
    latency = finding["latency_ms"]
    return {"p50_ms": latency["p50"], "p95_ms": latency["p95"], "samples_per_s": finding["throughput"]}


if __name__ == "__main__":
    main(*sys.argv[1:])
