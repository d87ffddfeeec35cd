"""What a package must be to be announced."""

import pytest

from tuner.decide.package import as_measured


@pytest.mark.parametrize(
    ("accuracy", "before", "same"),
    [
        (0.95, 0.95, True),
        (0.99731 + 3e-8, 0.99731, True),  # a cosine whose sums came in another order
        (53.2001, 53.2, True),
        (1e-9, 0.0, True),
        (0.9503, 0.95, False),  # one of 3,000 samples
        (0.0002, 0.0001, False),
        (0.95, None, False),
    ],
)
def test_an_accuracy_is_the_one_measured_but_for_rounding(accuracy: float, before: float | None, same: bool) -> None:
    assert as_measured(accuracy, before) == same
