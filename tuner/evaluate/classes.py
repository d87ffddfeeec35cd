"""Whether a model tells those classes apart that a dataset numbered in an order of its own."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tuner.errors import RequestError
from tuner.judging import Judging
from tuner.metrics import named

_BY_CLASS = {named(name) for name in ("top1", "f1", "auc")}  # they take a score for each class


def require_classes(numbered: int | None, judging: Judging, outputs: Sequence[NDArray[Any]]) -> None:
    """Raises RequestError where the judged output of the float model has scores of another number of classes than the
    dataset numbered by itself: then nobody knows which is which."""
    output = outputs[judging.output or 0]
    if numbered is None or judging.metric not in _BY_CLASS or output.ndim != 2 or output.shape[1] in (1, numbered):
        return
    raise RequestError(
        f"dataset.classes: the model has {output.shape[1]} classes, and dataset.path has {numbered} folders of them; "
        "name all in the model's order: dataset.classes=[…]"
    )
