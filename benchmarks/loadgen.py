"""LoadGen's clock beside ours, and its real arrivals beside the simulated ones, with the bundled CNN on ONNX Runtime.

Prints for each scenario what LoadGen found over what the tuner says: 1.00 where they agree.

    python -m benchmarks.loadgen
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import hosting, prepared_rig, save
from tuner.candidate import Candidate
from tuner.measure import host, loadgen, queueing
from tuner.plugins.backends.onnxruntime import OnnxRuntime

BATCH, LIMIT_MS, PERCENTILE, LOAD = 8, 20.0, 90, 0.7
SECONDS = 5.0


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        _, rig = prepared_rig(Path(scratch), "model=digits_cnn")
        with hosting(rig, [Candidate((), OnnxRuntime(), BATCH)]) as (worker,):
            worker.resume()
            calls = worker.run(host.turn, SECONDS, 100).wall_ms
            single = worker.run(loadgen.single_stream, SECONDS)
            offline = worker.run(loadgen.offline, SECONDS)
            call_s = float(np.mean(calls)) / 1e3
            rate = LOAD * BATCH / float(np.median(calls)) * 1e3
            server = worker.run(loadgen.server, rate, LIMIT_MS, float(PERCENTILE), SECONDS, call_s)
    simulated = queueing.at_rate(np.array([server.service_ms]), BATCH, rate)
    ratios = {
        "SingleStream p50": single.p50 / float(np.median(calls)),
        "SingleStream p95": single.p95 / float(np.percentile(calls, 95)),
        "Offline samples/s": offline.qps * float(np.mean(calls)) / BATCH / 1e3,
        f"Server p50 at {LOAD:.0%}": server.p50 / simulated.p50,
        f"Server p{PERCENTILE} at {LOAD:.0%}": server.p90 / simulated.p90,
        f"Server samples a call at {LOAD:.0%}": server.batch_fill / simulated.batch_fill,
    }
    save("loadgen", {name: round(ratio, 2) for name, ratio in ratios.items()})


if __name__ == "__main__":
    main()
