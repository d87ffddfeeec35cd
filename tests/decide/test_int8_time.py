"""Why int8 gained what it did is told in what the runtimes' own clocks say."""

from tuner.candidate import Candidate
from tuner.decide.int8_time import Int8Time, fastest_int8
from tuner.measurement import Measurement
from tuner.operators import OperatorTime
from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8
from tuner.testing.fakes import Null
from tuner.trial import Failure, Outcome
from tuner.verdict import Finding, Verdict

INT8 = Candidate((OnnxStaticInt8(),), Null(), 8)
FLOAT = (
    OperatorTime("first", "layer", "f32", 6.0),
    OperatorTime("second", "layer", "f32", 3.0),
    OperatorTime("softmax", "other", "f32", 1.0),
)


def test_layers_stand_side_by_side_the_longest_first_and_the_rest_is_summed() -> None:
    after = (
        OperatorTime("quantize", "conversion", "f32", 1.0),
        OperatorTime("first_q", "layer", "int8", 2.0),
        OperatorTime("second_q", "layer", "f32", 3.0),
        OperatorTime("softmax", "other", "f32", 1.0),
    )
    time = Int8Time(INT8, FLOAT, after)
    assert [row[0] for row in time.table().rows] == ["first_q", "second_q", "all layers", "conversions", "all else"]
    assert time.table().rows[0] == ("first_q", "60 %", 6.0, 2.0, 3.0, "int8")
    assert time.sentence() == (
        "by the runtime's own clock its layers take 90 % of the float model's time and run 1.80× as fast quantized "
        "(1 of 2 still compute in float); conversions between add 14 % to the quantized call"
    )


def test_what_is_no_layer_is_told_where_it_takes_the_gain_away() -> None:
    after = (
        OperatorTime("first", "layer", "int8", 2.0),
        OperatorTime("second", "layer", "int8", 1.0),
        OperatorTime("softmax", "other", "f32", 2.0),
        OperatorTime("sigmoid", "other", "bf16", 5.0),
    )
    assert Int8Time(INT8, FLOAT, after).sentence() == (
        "by the runtime's own clock its layers take 90 % of the float model's time and run 3.00× as fast quantized; "
        "conversions between add 0 % to the quantized call, and what is no layer 60 % (longest: sigmoid, in bf16)"
    )


def test_layers_of_another_number_are_only_summed() -> None:
    time = Int8Time(INT8, FLOAT, (OperatorTime("all", "layer", "int8", 3.0),))
    assert [row[0] for row in time.table().rows] == ["all layers", "conversions", "all else"]


def test_that_no_layer_became_int8_is_told() -> None:
    assert Int8Time(INT8, FLOAT, FLOAT).sentence().endswith("its runtime has no such kernel for them")


def test_the_champion_comes_first_then_the_fastest_then_what_was_not_timed() -> None:
    def tried(size: int, rate: float | None, failure: Failure | None = None) -> Outcome:
        candidate = Candidate((OnnxStaticInt8(),), Null(), size)
        return Outcome(candidate, "complete", Measurement(throughput_normalised=rate), failure)

    none, champion = Verdict("infeasible"), Verdict("feasible", Finding(tried(1, 10.0).candidate, Measurement()))
    plain = Outcome(Candidate((), Null(), 64), "complete", Measurement(throughput_normalised=900.0))
    outcomes = [plain, tried(1, 10.0), tried(2, 30.0), tried(4, None), tried(8, 99.0, Failure("crash", "it died"))]
    assert fastest_int8(champion, outcomes, {}) == tried(1, None).candidate
    assert fastest_int8(none, outcomes, {}) == tried(2, None).candidate
    assert fastest_int8(none, outcomes, {tried(1, None).candidate: 50.0}) == tried(1, None).candidate
    assert fastest_int8(none, [plain, tried(4, None)], {}) == tried(4, None).candidate
    assert fastest_int8(none, [plain], {}) is None
