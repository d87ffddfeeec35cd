"""Do huge pages or another allocator make a call faster? The same artifacts called in fresh processes, in turns, with
glibc's allocator as it is, with huge pages asked of the kernel (glibc.malloc.hugetlb=1), and with jemalloc and tcmalloc
in its place where they are installed (Debian's libjemalloc2 and libtcmalloc-minimal4).

    python -m benchmarks.allocators        about a quarter of an hour on 2 cores
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.common import prepared_rig, save
from benchmarks.real.models import REAL
from tuner import artifact
from tuner.candidate import Candidate
from tuner.measure.stream import copied
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.backends.openvino import OpenVINO
from tuner.tensors import Arrays

ROUNDS = 6  # their least and greatest hold the median at 97 %
SECONDS = 2.0
SIZES = {"digits_cnn": (1, 64), "nudenet": (1, 8)}
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")


def main() -> None:
    if sys.argv[1:]:
        print(json.dumps(called_ms(Path(sys.argv[1]))))
        return
    rows = []
    for model, sizes in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            asked = REAL[model](scratch) if model in REAL else [f"model={model}"]
            _, rig = prepared_rig(scratch / "rig", *asked, "latency_ms=10000", f"cache_dir={scratch / 'cache'}")
            for backend in (OnnxRuntime(), OpenVINO()):
                for size in sizes:
                    candidate = Candidate((), backend, size)
                    rows.append({"model": model, "candidate": candidate.label, **gains(rig.built(candidate))})
                    print(rows[-1], flush=True)
    save("allocators", {"rounds": ROUNDS, "over_glibc": rows})


def variants() -> Mapping[str, Mapping[str, str]]:
    """What the environment of each has more than that of `glibc`."""
    found = {"glibc": {}, "huge pages": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}}
    for name in ("jemalloc", "tcmalloc"):
        files = sorted(LIBRARIES.glob(f"lib{name}*.so*"))
        found |= {name: {"LD_PRELOAD": str(files[0])}} if files else {}
    return found


def gains(folder: Path) -> dict[str, list[float] | str]:
    """By what each is faster than glibc's allocator, as the median of the rounds, the least and the greatest; or how
    the process ended that it made fail."""
    ratios: dict[str, list[float]] = {}
    ended: dict[str, str] = {}
    for _ in range(ROUNDS):
        took: dict[str, float] = {}
        for name, more in variants().items():
            command = [sys.executable, "-m", "benchmarks.allocators", str(folder)]
            done = subprocess.run(command, env=os.environ | more, capture_output=True, text=True, check=name == "glibc")
            if done.returncode:
                ended[name] = f"exit code {done.returncode}: {done.stderr.strip().rpartition(chr(10))[2][:200]}"
            else:
                took[name] = json.loads(done.stdout)
        for name in took.keys() - {"glibc"}:
            ratios.setdefault(name, []).append(took["glibc"] / took[name])
    told = {name: [round(float(f(each)), 3) for f in (np.median, min, max)] for name, each in ratios.items()}
    return {name: ended.get(name) or told[name] for name in variants() if name != "glibc"}


def called_ms(folder: Path) -> float:
    """The median call of an artifact with a batch of noise, ms, in this process."""
    loaded, noise = artifact.load(folder), np.random.default_rng(0)
    shapes = {spec.name: (spec.full(loaded.batch_size), spec.dtype) for spec in loaded.inputs}
    batch: Arrays = {name: noise.standard_normal(shape).astype(dtype) for name, (shape, dtype) in shapes.items()}
    for _ in range(20):
        loaded.run(batch)
    end, took = time.perf_counter() + SECONDS, []
    while (start := time.perf_counter()) < end:
        loaded.run(copied(batch))
        took.append((time.perf_counter() - start) * 1e3)
    return float(np.median(took))


if __name__ == "__main__":
    main()
