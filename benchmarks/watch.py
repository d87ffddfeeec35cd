"""Does the regression watch report a slow-down of 20 %, and not one of 2 %?

A champion of 200 units of work is recorded; then its deployed files are changed, so that it does 240 units, or 204, and
it is examined. 20 times each, with a new record each time, beside ONNX Runtime as the float reference.

    python -m benchmarks.watch
"""

import json
import tempfile
import time
from pathlib import Path

from benchmarks.common import prepared_rig, save
from benchmarks.planted import WORK_FILE, Planted
from tuner import artifact
from tuner.candidate import Candidate
from tuner.champions.examined import TOLERANCE
from tuner.champions.watch import RECORD, Watch
from tuner.decide.package import deliver
from tuner.evaluate.reference import Reference
from tuner.measurement import Measurement
from tuner.verdict import Finding

REPEATS = 20
RECORDED = 200
PLANTED = {"20_per_cent": 240, "2_per_cent": 204}
REQUEST = (
    "model=digits_cnn", "target.threads=1", "accuracy_drop=1",
    # eager takes seconds to load, and there are hundreds of rounds
    "reference.torch._target_=tuner.plugins.backends.onnxruntime.OnnxRuntime",
)  # fmt: skip


def main() -> None:
    start = time.monotonic()
    slowdowns: dict[str, list[float]] = {name: [] for name in PLANTED}
    reported = dict.fromkeys(PLANTED, 0)
    with tempfile.TemporaryDirectory() as scratch:
        request, rig = prepared_rig(Path(scratch) / "rig", *REQUEST)
        registered, candidate = Path(scratch) / "registered", Candidate((), Planted(RECORDED), 8)
        registered.mkdir()
        champion = registered / "champion"
        with Reference(rig, request.reference) as reference:
            scores = rig.scores(rig.built(candidate), candidate)
            measured = reference.with_accuracy(Measurement(), scores, limit=None)
            deliver(rig, Finding(candidate, measured), champion)
            watch = Watch(request, rig, reference)
            for _ in range(REPEATS):
                _plant(champion, RECORDED)
                (registered / RECORD).write_text(json.dumps(watch.record(candidate, champion, measured)))
                for name, work in PLANTED.items():
                    _plant(champion, work)
                    found = watch.examine("planted", "1", registered)
                    assert found.slowdown is not None, found.sentence
                    slowdowns[name].append(round(found.slowdown, 3))
                    reported[name] += found.regression == "slower"
    seconds = round(time.monotonic() - start)
    figures = {"repeats": REPEATS, "tolerance": TOLERANCE, "reported": reported, "found": slowdowns}
    save("watch", {**figures, "seconds": seconds})


def _plant(champion: Path, work: int) -> None:
    (champion / artifact.FILES / WORK_FILE).write_text(json.dumps(work))


if __name__ == "__main__":
    main()
