"""Classes that a dataset numbered by itself are those of the model, or nobody knows which is which."""

import numpy as np
import pytest

from tuner.errors import RequestError
from tuner.evaluate.classes import require_classes
from tuner.judging import Judging

TOP1, RECALL = Judging("tuner.metrics:top1", output=1), Judging("tuner.structured:recall_at_1", output=1)


def test_a_model_of_other_classes_than_there_are_folders_is_refused() -> None:
    outputs = [np.zeros((7, 4)), np.zeros((7, 10))]
    with pytest.raises(RequestError, match=r"model has 10 classes, and dataset\.path has 9 folders of them; name all"):
        require_classes(9, TOP1, outputs)


@pytest.mark.parametrize(
    ("numbered", "judging", "width"), [(10, TOP1, 10), (None, TOP1, 10), (2, TOP1, 1), (9, RECALL, 64)]
)
def test_what_fits_or_is_no_score_of_a_class_is_taken(numbered: int | None, judging: Judging, width: int) -> None:
    require_classes(numbered, judging, [np.zeros(7), np.zeros((7, width))])
