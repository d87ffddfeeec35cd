"""Says what a study found.

    python examples/read_a_result.py outputs/my_net-cpu-001

It reads `result.json` and `trials.json`: docs/concepts.md has every field, with units.
"""

import sys
from pathlib import Path

from tuner.result import FindingRecord, StudyFolder


def told(finding: FindingRecord) -> str:
    """A candidate with its figures, in one line."""
    measured = finding.measurement
    latency = "not timed" if measured.latency_ms is None else f"{measured.latency_ms.p95:.3f} ms"
    return f"{finding.label}: {latency} at the 95th percentile, accuracy {measured.accuracy}, {measured.size_mb} MB"


def main(folder: StudyFolder) -> None:
    result = folder.read_result()
    print(f"{result.study}: {result.verdict}; limits {result.goal.limits}")
    if result.champion is not None:
        print("champion ", told(result.champion))
        for name, ratio in result.speedup.items():
            if ratio is not None:
                print(f"          {ratio.value:.2f} times as fast, {name}")
    elif result.nearest_miss is not None:
        print("nearest  ", told(result.nearest_miss))
    for trial in folder.read_trials():
        print(f"trial {trial.name}", trial.label, trial.failure.sentence if trial.failure else trial.state)
    for remark in result.remarks:
        print("but      ", remark)


if __name__ == "__main__":
    main(StudyFolder(Path(sys.argv[1])))
