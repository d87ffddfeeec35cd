"""Neural Compressor's own tuning by accuracy, in its own environment: it ends at the first int8 model that is within
the limit.

    fit.py MODEL.onnx DATA.npz OUT LIMIT
"""

import sys
from pathlib import Path
from typing import Any

import onnxruntime
from likeness import likeness, samples
from neural_compressor import PostTrainingQuantConfig, quantization
from neural_compressor.config import AccuracyCriterion, TuningCriterion


class Loader:
    """A calibration sample a batch, and no label."""

    batch_size = 1

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        self._batches = batches

    def __iter__(self) -> Any:
        return ((batch, 0) for batch in self._batches)


def main(model: str, data: str, out: str, limit: str) -> None:
    evaluation = samples(data, "evaluation")

    def answers(graph: Any) -> list[list[Any]]:
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        return [session.run(None, batch) for batch in evaluation]

    right = answers(model)
    tuned = quantization.fit(
        model,
        PostTrainingQuantConfig(
            quant_level=1,  # by default it crashes with this approach: a list added to a dict
            approach="auto",
            accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=float(limit)),
            tuning_criterion=TuningCriterion(max_trials=100),
        ),
        calib_dataloader=Loader(samples(data, "calibration")),
        eval_func=lambda proto: likeness(answers(proto.SerializeToString()), right),
    )
    if tuned is None:
        raise SystemExit("no int8 model within the limit")
    tuned.save(str(Path(out) / "model.onnx"))


if __name__ == "__main__":
    main(*sys.argv[1:])
