"""How many times as fast a champion is, as it is told."""

from hypothesis import given
from hypothesis import strategies as st

from tuner.candidate import Candidate
from tuner.measurement import Measurement
from tuner.study.result import speedup
from tuner.testing.fakes import Null
from tuner.verdict import Finding, Verdict

rates = st.floats(1e-3, 1e9)


@given(rates, rates, st.tuples(rates, rates).map(sorted))
def test_a_speedup_is_the_ratio_of_the_figures_and_within_its_interval(
    mine: float, theirs: float, raced: list[float]
) -> None:
    """The interval is of rounds, the figures of all their calls."""
    champion, rival = (Finding(Candidate((), Null(), 1), Measurement(throughput=rate)) for rate in (mine, theirs))
    low, high = raced
    ratio = speedup(Verdict("feasible", champion), rival, (low, high))
    assert ratio is not None and ratio.ci95 is not None
    assert ratio.value == mine / theirs
    assert ratio.ci95[0] <= min(low, ratio.value) and ratio.ci95[1] >= max(high, ratio.value)
