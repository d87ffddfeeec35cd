"""What is judged is known by its shape and its labels; what would be a wrong number is refused in a sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tuner import metrics
from tuner.errors import CandidateError, RequestError
from tuner.evaluate.accuracy import lost_interval, no_better, value_interval, with_accuracy
from tuner.evaluate.settling import settle
from tuner.goal import Goal
from tuner.judging import Bar, Judging, Scores
from tuner.measurement import Measurement
from tuner.metrics import metric
from tuner.truth import Truth, filled_up, longer, output_file, room, shapes_file

COUNT = 200
BINARY = np.arange(COUNT) % 2
DIGITS = np.arange(COUNT) % 10


def seeded() -> np.random.Generator:
    return np.random.default_rng(3)


def column(right: float = 0.9, low: float = 0.0, high: float = 1.0) -> NDArray[Any]:
    """One number a sample, between two ends, on the right side of their middle for that share of `BINARY`."""
    sure = seeded().uniform(0.6, 1.0, COUNT)
    side = np.where(np.arange(COUNT) < right * COUNT, BINARY, 1 - BINARY)
    return (low + (high - low) * np.where(side, sure, 1 - sure)).astype(np.float32)[:, None]


def logits(labels: NDArray[Any], classes: int, right: float = 0.9) -> NDArray[Any]:
    answers = np.where(np.arange(COUNT) < right * COUNT, labels, (labels + 1) % classes)
    return (np.eye(classes)[answers] + seeded().uniform(0, 0.5, (COUNT, classes))).astype(np.float32)


def settled(
    outputs: Sequence[NDArray[Any]], labels: NDArray[Any], *, by: str = "auto", output: str | None = None
) -> tuple[Judging, Scores]:
    return settle(by, output, [f"out{n}" for n in range(len(outputs))], outputs, labels)


def here(name: str) -> str:
    return f"{__name__}:{name}"


# --- the metric that suits


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [(0.0, 1.0, "binary_probability"), (-4.0, 4.0, "binary_logit"), (-0.2, 0.2, "binary_logit")],
)
@pytest.mark.parametrize("kind", [np.int64, np.float32, np.bool_])
def test_one_column_is_judged_at_its_threshold(low: float, high: float, name: str, kind: type) -> None:
    judging, scores = settled([column(0.9, low, high)], BINARY.astype(kind))
    assert (metrics.short(judging.metric), scores.value) == (name, 0.9)
    flat, _ = settled([column(0.9, low, high)[:, 0]], BINARY.astype(kind)[:, None])
    assert flat.metric == judging.metric


def test_a_column_that_gets_worse_is_told_so() -> None:
    """Before, one column was always class 0, whatever it answered."""
    judging, scores = settled([column(0.95)], BINARY)
    worse = judging.scores([([column(0.7)], BINARY)])
    assert (scores.value, worse.value) == (0.95, 0.7)


@given(classes=st.integers(2, 12), right=st.floats(0.0, 1.0))
def test_a_score_a_class_is_judged_by_the_largest(classes: int, right: float) -> None:
    labels = np.arange(COUNT) % classes
    judging, scores = settled([logits(labels, classes, right)], labels)
    assert metrics.short(judging.metric) == "top1"
    assert scores.value == pytest.approx(right, abs=1 / COUNT)


def test_a_class_as_a_whole_number_is_compared_with_the_label() -> None:
    answers = np.where(np.arange(COUNT) < 150, DIGITS, 0)
    assert settled([answers], DIGITS)[1].value == pytest.approx((answers == DIGITS).mean())


@pytest.mark.parametrize(
    ("outputs", "labels", "why"),
    [
        ([logits(DIGITS, 10)], DIGITS + 1, "10 classes, 0 to 9, but the labels run from 1 to 10: subtract 1"),
        ([logits(DIGITS, 10)], DIGITS - 1, "labels run from -1 to 8: number the classes from 0"),
        ([logits(BINARY, 2)], DIGITS, "2 classes, 0 to 1, but the labels run from 0 to 9"),
        ([column()], 2 * BINARY - 1, "the labels run from -1 to 1: two classes are 0 and 1"),
        ([column()], DIGITS, "one number a sample, but the labels run from 0 to 9"),
        ([logits(DIGITS, 10)], np.eye(10)[DIGITS], r"label.argmax\(1\)"),
        ([logits(DIGITS, 10)], DIGITS + 0.5, "must be class numbers, and has others.*metric=rmse"),
        ([seeded().normal(size=(COUNT, 3, 4, 4))], DIGITS, "not one score a class"),
        ([np.where(np.eye(COUNT, 10), np.nan, logits(DIGITS, 10))], DIGITS, "include NaN"),
        ([np.ones((COUNT, 10))], DIGITS, "same outputs for every"),
    ],
)
def test_what_would_be_a_wrong_number_is_refused(outputs: list[NDArray[Any]], labels: NDArray[Any], why: str) -> None:
    with pytest.raises(RequestError, match=why):
        settled(outputs, labels)


# --- which output


def test_the_output_that_is_judged_is_found_asked_for_or_said() -> None:
    boxes, right = seeded().normal(size=(COUNT, 5, 4)).astype(np.float32), logits(BINARY, 2, 0.95)
    wrong = logits(BINARY, 2, 0.3)
    judging, scores = settled([boxes, right], BINARY)
    assert (judging.output, judging.title, scores.value) == (1, "top1 of 'out1'", 0.95)
    with pytest.raises(RequestError, match=r"could judge 'out0' or 'out2', and they answer differently; .*=out0"):
        settled([wrong, boxes, right], BINARY)
    for name in ("out2", "2"):
        assert settled([wrong, boxes, right], BINARY, output=name)[1].value == 0.95
    with pytest.raises(RequestError, match="metric_output=out7: the model has no such output; there are out0, out1"):
        settled([wrong, boxes], BINARY, output="out7")
    with pytest.raises(RequestError, match="'out1': it gives shape"):
        settled([wrong, boxes], BINARY, output="out1")


def test_a_label_and_its_probabilities_are_one_answer() -> None:
    """As scikit-learn's exporters write classifiers."""
    probabilities = logits(BINARY, 2, 0.9)
    assert settled([probabilities.argmax(1), probabilities], BINARY)[1].value == 0.9


def second(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return outputs[1].argmax(1) == labels


def test_only_what_the_metric_looks_at_must_vary() -> None:
    constant, varying = np.zeros(COUNT, np.int64), logits(BINARY, 2)
    judging, scores = settled([constant, varying], BINARY, by=here("second"))
    assert scores.value == 0.9
    with pytest.raises(CandidateError, match="same outputs"):
        judging.scores([([np.arange(COUNT), np.ones((COUNT, 2))], BINARY)])


# --- infinity and NaN


def test_infinity_is_by_design_where_the_float_model_has_it() -> None:
    masked = logits(DIGITS, 10)
    masked[masked < 0.3] = -np.inf
    judging, scores = settled([masked], DIGITS)
    assert judging.scores([([masked], DIGITS)]).value == scores.value
    plain, _ = settled([logits(DIGITS, 10)], DIGITS)
    with pytest.raises(CandidateError, match="infinity"):
        plain.scores([([masked], DIGITS)])
    with pytest.raises(CandidateError, match="NaN"):
        judging.scores([([np.where(np.isinf(masked), np.nan, masked)], DIGITS)])


# --- guessing


def guessed(outputs: NDArray[Any], labels: NDArray[Any], by: str = "auto") -> bool:
    judging, scores = settled([outputs], labels, by=by)
    return no_better(judging, scores.value, value_interval(judging.function, scores))


def test_what_is_no_better_than_guessing_is_known() -> None:
    rare = (np.arange(COUNT) < 6).astype(int)
    never = np.stack([np.full(COUNT, 0.9), seeded().uniform(0, 0.1, COUNT)], axis=1)
    assert guessed(never, rare)  # it always answers the most frequent class
    assert guessed(logits((DIGITS + 1) % 10, 10), DIGITS)  # the labels are off by one, within the classes
    assert guessed(logits(seeded().permutation(DIGITS), 10, 1.0), DIGITS)
    assert not guessed(logits(DIGITS, 10), DIGITS)
    assert not guessed(logits(rare, 2, 1.0), rare)


def likelihood(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    shares = np.exp(outputs[0]) / np.exp(outputs[0]).sum(axis=1, keepdims=True)
    return np.log(shares[np.arange(len(labels)), labels])


def loudness(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return outputs[0].max(axis=1)


def test_guessing_is_known_for_any_metric_by_shuffled_labels() -> None:
    assert guessed(logits(seeded().permutation(DIGITS), 10), DIGITS, by=here("likelihood"))
    assert not guessed(logits(DIGITS, 10), DIGITS, by=here("likelihood"))
    assert not guessed(logits(DIGITS, 10), DIGITS, by=here("loudness"))  # it does not look at the labels


CHURN = (np.arange(COUNT) % 10 > 0).astype(int)
AMOUNTS = np.stack([seeded().exponential(size=COUNT), np.arange(COUNT)], axis=1)


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("f1", CHURN, sklearn.metrics.f1_score(CHURN, np.ones(COUNT))),
        ("f1", DIGITS, sklearn.metrics.f1_score(DIGITS, np.full(COUNT, 3), average="macro", zero_division=0)),
        ("rmse", AMOUNTS, sklearn.metrics.root_mean_squared_error(AMOUNTS.ravel(), np.tile(AMOUNTS.mean(0), COUNT))),
        ("mae", AMOUNTS, sklearn.metrics.mean_absolute_error(AMOUNTS, np.tile(np.median(AMOUNTS, 0), (COUNT, 1)))),
    ],
)
def test_guessing_is_the_best_constant_answer(name: str, labels: NDArray[Any], value: float) -> None:
    guess = metrics.find(name).guess
    assert guess is not None and guess(labels) == pytest.approx(value)


def test_a_model_worse_than_a_constant_answer_is_no_better_than_guessing() -> None:
    """Where nine of ten churn, always answering so has an F1 of 0.947."""
    nearly = np.where(np.arange(COUNT) % 40 == 1, 0.2, 0.9)[:, None].astype(np.float32)
    assert settled([nearly], CHURN, by="f1")[1].value == pytest.approx(0.933, abs=0.001)
    assert guessed(nearly, CHURN, by="f1") and not guessed(column(1.0), BINARY, by="f1")
    far = AMOUNTS.mean(axis=0) + 0.01 * seeded().normal(size=AMOUNTS.shape) * AMOUNTS.std(axis=0)
    for name in ("rmse", "mae"):
        assert guessed(far, AMOUNTS, by=name) and not guessed(AMOUNTS + 0.1 * far, AMOUNTS, by=name)


# --- metrics of one's own, and their faults


def whole(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return (outputs[0].argmax(1) == labels).astype(int)


def objects(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return [float(right) for right in whole(outputs, labels)]


def writing(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    scores = whole(outputs, labels)
    outputs[0][:], labels[:] = 0, 0
    return scores


@pytest.mark.parametrize("name", ["whole", "objects", "writing"])
def test_a_metric_may_give_any_numbers_and_write_to_what_it_is_given(name: str) -> None:
    output, labels = logits(DIGITS, 10), DIGITS.copy()
    before = output.copy(), labels.copy()
    assert settled([output], labels, by=here(name))[1].value == 0.9
    assert np.array_equal(output, before[0]) and np.array_equal(labels, before[1])


def words(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return ["right"] * len(labels)


def one_a_batch(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return whole(outputs, labels).mean()


def one_too_many(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return np.ones(len(labels) + 1)


def raising(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    raise KeyError("no such thing")


def not_a_number(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return np.full(len(labels), np.nan)


def endless(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return np.full(len(labels), np.inf)


def random(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return np.random.default_rng().uniform(size=len(labels))


def nothing(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("words", "could not judge the outputs"),
        ("one_a_batch", 'one number for a batch; .*over="set"'),
        ("one_too_many", r"shape \(65,\); it must be one score for each of 64"),
        ("raising", "KeyError: 'no such thing'"),
        ("not_a_number", "gives NaN or infinity"),
        ("endless", "gives NaN or infinity"),
        ("random", "differently each time; seed"),
        ("nothing", "gives NaN or infinity|could not judge"),
    ],
)
def test_a_metric_that_does_not_judge_is_refused_with_its_name(name: str, why: str) -> None:
    with pytest.raises(RequestError, match=f"metric={here(name)}.*{why}"):
        settled([logits(DIGITS, 10)], DIGITS, by=here(name))


# --- over the set


@metric(over="set")
def hits(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    """Recall@1: of each row, whether its nearest other row is of the same label."""
    likeness = outputs[0] @ outputs[0].T
    np.fill_diagonal(likeness, -np.inf)
    return labels[likeness.argmax(axis=1)] == labels


@metric(over="set", better="less")
def word_errors(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    """Errors in all words over all words, as WER has it: no mean of samples."""
    return (outputs[0].argmax(1) != labels).sum() / (1 + labels).sum()


def test_a_metric_over_the_set_gives_one_number_and_its_interval_by_resampling() -> None:
    judging, scores = settled([logits(DIGITS, 10, 0.9)], DIGITS, by=here("word_errors"))
    assert scores.value == pytest.approx(20 / 1100) and scores.samples is None
    low, high = value_interval(judging.function, scores) or (np.nan, np.nan)
    assert low < scores.value < high < 3 * scores.value
    output = logits(DIGITS, 10, 0.8)
    worse = judging.scores([([output[:150]], DIGITS[:150]), ([output[150:]], DIGITS[150:])])
    measured = with_accuracy(Measurement(), judging.function, worse, scores, 0.1)
    assert measured.accuracy_drop == pytest.approx(20 / 1100) and (measured.accuracy_drop_ci95 or (0,))[0] > 0


def test_the_pairs_are_told_apart_where_the_values_are_not() -> None:
    """Against the float model on the same resamples: what errs on one sample more loses that, and no sampling noise."""
    judging, scores = settled([logits(DIGITS, 10, 0.5)], DIGITS, by="f1")
    one_more = judging.scores([([logits(DIGITS, 10, 0.495)], DIGITS)])
    low, high = lost_interval(judging.function, one_more, scores) or (np.nan, np.nan)
    wide = value_interval(judging.function, scores) or (0.0, 0.0)
    assert high - low < (wide[1] - wide[0]) / 5


def test_a_metric_over_the_set_may_score_each_sample() -> None:
    points = np.eye(10)[DIGITS] + seeded().uniform(0, 0.1, (COUNT, 10))
    _, scores = settled([points.astype(np.float32)], DIGITS, by=here("hits"))
    assert scores.samples is not None and scores.value == 1.0


def test_the_usual_metrics_are_those_of_scikit_learn() -> None:
    output, wanted = column(0.8), seeded().normal(size=COUNT)
    near = (wanted + seeded().normal(0, 0.1, COUNT)).astype(np.float32)[:, None]
    answers = (output[:, 0] > 0.5).astype(int)
    assert settled([output], BINARY, by="f1")[1].value == pytest.approx(sklearn.metrics.f1_score(BINARY, answers))
    assert settled([output], BINARY, by="auc")[1].value == pytest.approx(sklearn.metrics.roc_auc_score(BINARY, output))
    mse = sklearn.metrics.mean_squared_error(wanted, near)
    assert settled([near], wanted, by="rmse")[1].value == pytest.approx(mse**0.5)
    assert settled([near], wanted, by="mae")[1].value == pytest.approx(np.abs(near[:, 0] - wanted).mean())
    assert settled([near], wanted, by="correlation")[1].value == pytest.approx(np.corrcoef(near[:, 0], wanted)[0, 1])
    digits = logits(DIGITS, 10, 0.7)
    macro = sklearn.metrics.f1_score(DIGITS, digits.argmax(1), average="macro")
    assert settled([digits], DIGITS, by="f1")[1].value == pytest.approx(macro)


@given(off=st.floats(0, 5), more=st.floats(0, 5))
def test_what_errs_more_loses_more_whichever_way_the_metric_goes(off: float, more: float) -> None:
    wanted = np.linspace(-1, 1, 50)
    for name in ("rmse", "mae"):
        judging, exact = settle(name, None, [], [wanted[:, None]], wanted)
        one, other = (judging.scores([([(wanted + by)[:, None]], wanted)]) for by in (off, off + more))
        lost = judging.function.lost
        assert lost(other.value, exact.value) >= lost(one.value, exact.value) - 1e-9


# --- without labels

UNKNOWN = np.full(COUNT, np.nan)


@pytest.mark.parametrize(
    ("output", "name"),
    [
        (seeded().normal(size=(COUNT, 16)), "cosine"),
        (seeded().dirichlet(np.ones(5), COUNT), "agreement"),
        (seeded().integers(0, 5, COUNT), "agreement"),
        (seeded().normal(100, 1, (COUNT, 1)), "relative_error"),
        (seeded().normal(size=(COUNT, 3, 4, 4)), "cosine"),
    ],
)
def test_without_labels_the_float_model_is_the_truth_by_the_shape_of_its_output(
    output: NDArray[Any], name: str
) -> None:
    judging, scores = settled([output], UNKNOWN)
    assert metrics.short(judging.metric) == name and judging.guess is None
    exact = 0 if name == "relative_error" else 1
    assert scores.value == pytest.approx(exact)
    others = np.roll(output, 1, axis=0)
    half = np.where((np.arange(COUNT) < COUNT // 2).reshape(-1, *[1] * (output.ndim - 1)), output, others)
    assert abs(judging.scores([([half], Truth.of([output], COUNT))]).value - exact) > 0.05


def test_of_several_outputs_the_least_alike_counts() -> None:
    masks, boxes = seeded().normal(size=(COUNT, 2, 4)), seeded().normal(size=(COUNT, 4))
    judging, scores = settled([masks, boxes], UNKNOWN)
    assert (judging.metric, judging.output, scores.value) == ("tuner.fidelity:fidelity", None, pytest.approx(1))
    truth = Truth.of([masks, boxes], COUNT)
    assert judging.scores([([masks, -boxes], truth)]).value == 0
    of_masks, _ = settled([masks, boxes], UNKNOWN, output="out0")
    assert of_masks.scores([([masks, -boxes], truth)]).value == pytest.approx(1)


def boxes(*found: int) -> list[list[NDArray[Any]]]:
    """A detector's answers picture by picture: boxes (1, k, 4) and scores (1, k), the surest first."""
    whole, scores = seeded().uniform(1, 9, (len(found), 5, 4)), np.sort(seeded().uniform(0.1, 1, (len(found), 5)))
    return [[whole[n : n + 1, :k], scores[n : n + 1, ::-1][:, :k]] for n, k in enumerate(found)]


def kept(answers: Sequence[Sequence[NDArray[Any]]]) -> Truth:
    """The float model's answers picture by picture, as they are kept."""
    shapes = [np.array([each.shape[1:] for each in of]) for of in zip(*answers, strict=True)]
    return Truth.of([filled_up(of) for of in zip(*answers, strict=True)], len(answers), shapes)


@pytest.mark.parametrize(
    ("found", "scores"),
    [
        ((5, 3, 0, 2), [1, 1, 1, 1]),  # as many as the float model
        ((1, 3, 0, 2), [0, 1, 1, 1]),  # of five boxes the first alone
        ((0, 3, 0, 2), [0, 1, 1, 1]),
        ((5, 4, 1, 2), [1, 0, 0, 1]),  # more than it found
        ((5, 3, 0, 5), [1, 1, 1, 0]),
    ],
)
def test_an_answer_that_leaves_something_out_or_adds_it_is_not_like_the_float_model_s(
    found: tuple[int, ...], scores: list[int]
) -> None:
    truth, parts = kept(boxes(5, 3, 0, 2)), boxes(*found)
    for name in ("fidelity", "cosine"):
        judging = Judging(f"tuner.fidelity:{name}", None if name == "fidelity" else 0)
        got = judging.scores((outputs, truth.rows(slice(n, n + 1))) for n, outputs in enumerate(parts)).samples
        assert got == pytest.approx(scores)


def test_more_boxes_than_the_longest_answer_cost_that_sample_alone() -> None:
    truth, parts = kept(boxes(2, 1, 3)), boxes(5, 1, 3)
    judging = Judging("tuner.fidelity:fidelity")
    got = judging.scores((outputs, truth.rows(slice(n, n + 1))) for n, outputs in enumerate(parts))
    assert got.samples == pytest.approx([0, 1, 1])


def test_the_float_model_s_answers_come_back_from_disk_with_their_shapes(tmp_path: Path) -> None:
    whole = room(output_file(tmp_path, 0), np.dtype("int64"), (3, 0))
    for n, k in enumerate((0, 2, 1)):
        whole = longer(whole, np.full((1, k), n), output_file(tmp_path, 0))
        whole[n : n + 1, :k] = n
    np.save(shapes_file(tmp_path, 0), np.array([[0], [2], [1]]))
    truth = Truth.load(tmp_path, 1, 3)
    assert truth[0] is not None and truth[0].tolist() == [[-1, -1], [1, 1], [2, -1]]
    assert truth.rows(slice(1, 3)).shapes[0].tolist() == [[2], [1]]  # type: ignore[union-attr]
    assert Truth.joined([truth.rows(slice(0, 1)), truth.rows(slice(1, 3))]).shapes[0].tolist() == [[0], [2], [1]]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["cosine", "agreement"])
@pytest.mark.parametrize("shape", [(COUNT,), (COUNT, 1)])
def test_what_says_nothing_of_one_number_a_sample_is_refused(name: str, shape: tuple[int, ...]) -> None:
    """The cosine of two positive numbers is 1 whatever they are, and two numbers that agree bit by bit are none."""
    with pytest.raises(RequestError, match=f"metric={name}.*one number a sample; metric=relative_error"):
        settled([seeded().uniform(1, 2, shape)], UNKNOWN, by=name)


@metric(over="set")
def longest(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    """Of scores (n, time, tokens) and tokens (n, time): how much of each is filled up, as the values say."""
    scores, tokens = outputs
    return 1000.0 * (scores == 0).sum() + (tokens == -1).sum()


def test_a_metric_over_the_set_gets_answers_of_several_lengths_filled_up() -> None:
    parts = [(2, 3), (1, 5)]  # so many samples of so many steps
    answers = [
        ([1 + np.arange(n * steps * 2.0).reshape(n, steps, 2), np.arange(n * steps).reshape(n, steps)], np.zeros(n))
        for n, steps in parts
    ]
    assert Judging(here("longest")).scores(answers, resamples=0).value == 1000 * 2 * 2 * 2 + 2 * 2
    with pytest.raises(CandidateError, match="differ in shape from batch to batch"):
        Judging(here("longest")).scores([answers[0], ([o[0] for o in answers[1][0]], np.zeros(5))])


def test_a_metric_of_labels_without_labels_is_refused() -> None:
    with pytest.raises(RequestError, match="metric=top1 needs labels, and the evaluation samples have none"):
        settled([logits(DIGITS, 10)], UNKNOWN, by="top1")


# --- what is named as a metric


@given(st.text(max_size=30) | st.from_regex(r"[a-z_.]{0,12}:[a-z_.]{0,12}", fullmatch=True))
def test_whatever_is_named_is_a_metric_or_one_sentence(reference: str) -> None:
    try:
        found = metrics.find(reference)
    except RequestError as error:
        assert str(error).startswith("metric=") and "\n" not in str(error)
    else:
        assert callable(found)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise ValueError('no such day')", "ValueError: no such day"),
        ("raise SystemExit(7)", "SystemExit: 7"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("def f(:", "SyntaxError"),
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("def g(): pass", "no function 'f'"),
        ("f = 3", "no function 'f'"),
    ],
)
def test_a_module_that_does_not_import_is_told_with_its_reason(
    text: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"faulty_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match=why) as error:
        metrics.find(f"{name}:f")
    assert str(error.value).startswith(f"metric='{name}:f'") and "\n" not in str(error.value)


# --- outputs that do not count samples


def test_outputs_without_an_axis_of_samples_are_left_alone() -> None:
    constant, scalar = np.arange(7.0), np.float32(3)
    judging, scores = settled([constant, np.asarray(scalar), logits(DIGITS, 10)], DIGITS)
    assert (judging.output, scores.value) == (2, 0.9)
    assert settled([constant, seeded().normal(size=(COUNT, 16))], UNKNOWN)[0].metric == "tuner.fidelity:cosine"
    for by in ("auto", "cosine", "fidelity"):
        with pytest.raises(RequestError, match="has an axis that counts samples"):
            settled([constant], UNKNOWN, by=by)


def test_a_candidate_of_another_shape_costs_its_trial_not_the_study() -> None:
    judging, _ = settled([logits(DIGITS, 10)], DIGITS)
    with pytest.raises(CandidateError, match="not one score a class"):
        judging.scores([([column()], DIGITS)])


SIZES: list[int] = []


def counting(outputs: Any, labels: Any) -> Any:
    SIZES.append(len(labels))
    return (outputs[0].sum(axis=-1) > labels).astype(float)


@pytest.mark.parametrize("size", [1, 7, 64, 600])
def test_small_batches_are_judged_together_and_come_to_the_same(size: int) -> None:
    random = np.random.default_rng(0)
    outputs, labels = random.normal(size=(600, 3)), random.normal(size=600)
    # of two lengths, and one that has no axis of samples: those are judged as they come
    odd = [np.ones((5, 2)), np.ones((4, 2)), np.ones((1, 4))]

    def batches() -> Any:
        for start in range(0, 600, size):
            yield [outputs[start : start + size]], labels[start : start + size]
        for output, count in zip(odd, (5, 4, 4), strict=True):
            yield [output], np.zeros(count)

    SIZES.clear()
    scores = Judging("tests.test_metrics:counting").scores(batches())
    assert scores.samples is not None
    assert np.array_equal(scores.samples[:600], (outputs.sum(axis=1) > labels).astype(float))
    assert sum(SIZES) == 613 and len(SIZES) <= 10 + 3 and SIZES[-1] == 4


@metric(within=(0, 1))
def as_it_says(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Any:
    return outputs[0][:, 0]


@given(
    right=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=400),
    worse=st.floats(0, 1),
    most_lost=st.floats(0, 0.3),
    seed=st.integers(0, 99),
)
def test_scoring_ends_early_only_where_the_rest_cannot_mend_it(
    right: list[float], worse: float, most_lost: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    known = np.array(right)
    scored = np.where(random.random(len(known)) < worse, random.random(len(known)), known)
    bar, bounded = Bar(known, most_lost), metrics.find(here("as_it_says"))

    def batches() -> Any:
        for start in range(0, len(known), 32):
            some = scored[start : start + 32]
            yield [np.stack([some, np.arange(start, start + len(some))], 1)], np.zeros(len(some))

    first = Judging(here("as_it_says"), bar=bar).scores(batches()).samples
    assert first is not None and np.array_equal(first, scored[: len(first)])
    if len(first) < len(known):
        assert len(first) % 64 == 0
        best = np.append(first, np.ones(len(known) - len(first)))
        assert known.mean() - best.mean() > most_lost, "at the best"
        whole = with_accuracy(Measurement(), bounded, Scores.of(scored), Scores.of(known), most_lost)
        told = with_accuracy(whole, bounded, Scores.of(first), Scores.of(known), most_lost)
        assert told == Measurement(accuracy_drop=known.mean() - best.mean(), accuracy_samples=len(first))
        assert told.accuracy_drop is not None and most_lost < told.accuracy_drop <= (whole.accuracy_drop or 0) + 1e-9
        assert not Goal({"accuracy_drop": 1.0}).feasible(told), "of all samples nothing is known"
        assert with_accuracy(told, bounded, Scores.of(scored), Scores.of(known), most_lost) == whole
    else:
        assert len(known) <= 64 or not bar.missed(bounded, scored[: (len(known) - 1) // 64 * 64])


def test_nothing_is_certain_where_the_best_is_not_known_or_not_kept_to() -> None:
    bar = Bar(np.ones(100), 0.01)
    assert bar.missed(metrics.find(here("as_it_says")), np.zeros(64))
    assert not bar.missed(metrics.find(here("counting")), np.zeros(64)), "no best"
    assert not bar.missed(metrics.find(here("as_it_says")), np.append(np.zeros(63), 1.5)), "a better one than the best"
    assert not Bar(np.full(100, 5.0), 0.01).missed(metrics.find(here("as_it_says")), np.zeros(64)), "weighted ones"
