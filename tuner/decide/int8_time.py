"""Why int8 gained what it did: the time of each layer in float and in int8, by the runtime's own clock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.evaluate.rig import Rig
from tuner.measure import host
from tuner.measure.timing import device_lock
from tuner.operators import OperatorTime
from tuner.plugin import Backend
from tuner.tables import Cell, Table
from tuner.trial import Outcome
from tuner.verdict import Verdict

_MOST_ROWS = 40
_NOTABLE = 0.05  # of the quantized call
_COLUMNS = ("layer", "share of the float time", "float, ms", "quantized, ms", "times as fast", "computes in")


@dataclass(frozen=True)
class Int8Time:
    """One call without and with quantization, operator by operator."""

    quantized: Candidate
    before: Sequence[OperatorTime]
    after: Sequence[OperatorTime]

    def sentence(self) -> str:
        """Where the time goes, in words that follow a label and a ratio."""
        whole, now = _ms(self.before), _ms(self.after)
        was, layers = _of(self.before, "layer"), _of(self.after, "layer")
        share = f"by the runtime's own clock its layers take {_percent(_ms(was) / whole)} % of the float model's time"
        floats = [layer for layer in layers if layer.computes_in != "int8"]
        if len(floats) == len(layers):
            return f"{share}, and none of them has become int8: its runtime has no such kernel for them"
        speed = f"and run {_ms(was) / _ms(layers):.2f}× as fast quantized"
        kept = f" ({len(floats)} of {len(layers)} still compute in float)" if floats else ""
        conversions = f"conversions between add {_percent(self._added('conversion') / now)} % to the quantized call"
        added = self._added("other")
        if added < _NOTABLE * now:
            return f"{share} {speed}{kept}; {conversions}"
        longest = max(_of(self.after, "other"), key=lambda time: time.ms)
        told = f"and what is no layer {_percent(added / now)} % (longest: {longest.name}, in {longest.computes_in})"
        return f"{share} {speed}{kept}; {conversions}, {told}"

    def _added(self, kind: str) -> float:
        """By how much longer operators of that kind take, ms."""
        return max(0.0, _ms(_of(self.after, kind)) - _ms(_of(self.before, kind)))

    def table(self) -> Table:
        """The layers, the longest first, then the rest. Those of one name stand beside one another; where names differ,
        as they run, if both have as many."""
        whole = _ms(self.before)
        was, now = _of(self.before, "layer"), _of(self.after, "layer")
        rows = []
        if {time.name for time in was} == {time.name for time in now}:
            was, now = (sorted(times, key=lambda time: time.name) for times in (was, now))
        if len(was) == len(now):
            pairs = sorted(zip(was, now, strict=True), key=lambda pair: -pair[0].ms)[:_MOST_ROWS]
            rows = [_row(after.name, [before], [after], whole) for before, after in pairs]
        for kind, title in (("layer", "all layers"), ("conversion", "conversions"), ("other", "all else")):
            rows.append(_row(title, _of(self.before, kind), _of(self.after, kind), whole))
        return Table(
            f"Time of a call by layer, as it came and as {self.quantized.label}", _COLUMNS, tuple(rows), "int8_time"
        )


def fastest_int8(verdict: Verdict, outcomes: Sequence[Outcome], rates: Mapping[Candidate, float]) -> Candidate | None:
    """The champion, where that computes in int8; else the fastest that does, whatever it lost, or one that lost
    too much to be timed; None where nothing does. `rates` are the samples/s of those that raced."""
    champion = verdict.champion and verdict.champion.candidate
    quantized = [
        o for o in outcomes if o.failure is None and o.candidate.transforms and o.candidate.arithmetic == "int8"
    ]

    def standing(outcome: Outcome) -> tuple[bool, float]:
        rate = rates.get(outcome.candidate) or outcome.measurement.throughput_normalised or 0.0
        return outcome.candidate == champion, rate

    return best.candidate if (best := max(quantized, key=standing, default=None)) else None


def int8_time(rig: Rig, candidate: Candidate) -> Int8Time | None:
    """Of that candidate, beside the same without quantization. None where that does not run, or their runtime has no
    clock of its own."""
    if type(candidate.backend).operator_times is Backend.operator_times:
        return None
    try:
        before, after = operator_times(rig, candidate.unquantized), operator_times(rig, candidate)
    except CandidateError:  # the log has why, and the study has its verdict without
        return None
    known = all(_ms(_of(times, "layer")) > 0 for times in (before, after))  # by a clock that is fine enough
    return Int8Time(candidate, before, after) if known else None


def operator_times(rig: Rig, candidate: Candidate) -> list[OperatorTime]:
    """Of a call of its artifact, which is built if it is not yet; nothing where its runtime has no clock. Raises
    CandidateError."""
    folder, deadline = rig.built(candidate), rig.deadline()
    with rig.hosting(folder, candidate, deadline) as worker, device_lock(rig.device_lock, deadline.stopped):
        times: list[OperatorTime] = worker.run_for(deadline.left_s(), host.operator_times, folder)
        return times


def _of(times: Sequence[OperatorTime], kind: str) -> list[OperatorTime]:
    return [time for time in times if time.kind == kind]


def _ms(times: Sequence[OperatorTime]) -> float:
    return math.fsum(time.ms for time in times)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _row(
    title: str, before: Sequence[OperatorTime], after: Sequence[OperatorTime], whole_ms: float
) -> tuple[Cell, ...]:
    was, now = _ms(before), _ms(after)
    ratio = round(was / now, 2) if now and was else None
    arithmetic = ", ".join(sorted({time.computes_in for time in after}))
    return title, f"{_percent(was / whole_ms)} %", round(was, 4), round(now, 4), ratio, arithmetic
