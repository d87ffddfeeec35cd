"""Metrics: from outputs and labels to how good the answers are.

    from sklearn.metrics import f1_score
    from tuner.metrics import metric

    @metric(over="set")
    def f1(outputs, labels):
        return f1_score(labels, outputs[0].argmax(1), average="macro")

A plain function of the outputs and labels of a batch that gives one score a sample needs no decorator: more is better.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.errors import RequestError
from tuner.system.code import resolve
from tuner.system.spelling import nearest

AUTO = "auto"  # the metric that suits the labels and the shape of the outputs
Function = Callable[[Sequence[NDArray[Any]], Any], Any]


@dataclass(frozen=True)
class Metric:
    """How good answers are.

    `function` takes the outputs and the labels of some samples, arrays whose first axis counts them. Over the "batch"
    it gives one score a sample, and their mean counts. Over the "set" it gets all samples at once, and may give one
    number for all of them. `against` "float" the labels are the float model's own outputs (`Truth`).

    `single` metrics judge `outputs[0]`, and are given the one that suits them. `guess` is what an answer that never
    looks at its input reaches with those labels, and `within` are the least and the greatest that a sample may score,
    and so the value, where there are. Scores of a `graded` one lie anywhere between; of another, nothing but 0 and 1
    is right or wrong.
    """

    function: Function
    over: Literal["batch", "set"] = "batch"
    better: Literal["more", "less"] = "more"
    against: Literal["labels", "float"] = "labels"
    single: bool = False
    guess: Callable[[NDArray[Any]], float] | None = None
    within: tuple[float, float] | None = None
    graded: bool = False

    def __call__(self, outputs: Sequence[NDArray[Any]], labels: Any) -> Any:
        return self.function(outputs, labels)

    def lost(self, value: Any, than: Any) -> Any:
        """By how much `value` is worse than another, numbers or arrays of them."""
        return than - value if self.better == "more" else value - than


def metric(**properties: Any) -> Callable[[Function], Metric]:
    """A decorator that makes a function a `Metric` with those properties."""
    return lambda function: Metric(function, **properties)


def named(reference: str) -> str:
    """The metric's `module:name`, of a short name such as `f1` too. Raises RequestError where there is none."""
    if ":" in reference or reference == AUTO:
        return reference
    if reference not in NAMES:
        raise RequestError(
            f"metric={reference!r}: no such metric{nearest(reference, NAMES)}; there are {', '.join(NAMES)}, and your "
            "own as package.module:function"
        )
    module = (
        "tuner.fidelity" if reference in _FIDELITY else "tuner.structured" if reference in _STRUCTURED else __name__
    )
    return f"{module}:{reference}"


def find(reference: str) -> Metric:
    """The metric that `module:name` or a short name names. Raises RequestError."""
    value = resolve(named(reference), "metric")
    return value if isinstance(value, Metric) else Metric(value)


def typed(reference: str) -> str:
    """As a person types it."""
    name = short(reference)
    return name if name in NAMES and named(name) == reference else reference


def short(reference: str) -> str:
    """Its name in a table."""
    return reference.rpartition(":")[2]


# --- of class numbers


def class_numbers(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as whole numbers, one a sample. Raises RequestError where they are none."""
    one_each = labels.reshape(len(labels), -1)
    numbers = labels.dtype.kind in "biuf"
    if numbers and one_each.shape[1] == 1 and (broken := one_each[one_each != np.floor(one_each)]).size:
        mend = "look for what is missing" if np.isnan(broken[0]) else "of quantities choose metric=rmse or mae"
        raise RequestError(f"'label' must be class numbers, and has others, such as {broken[0]:g}: {mend}")
    if not numbers or one_each.shape[1] != 1:
        raise RequestError(
            f"'label' must be class numbers, one a sample; it has dtype {labels.dtype} and shape {labels.shape[1:]} a "
            "sample: make it one (label.argmax(1) of one-hot labels), or choose another metric"
        )
    return one_each[:, 0].astype(np.int64)


def answered_classes(output: NDArray[Any], numbers: NDArray[Any]) -> NDArray[Any]:
    """The class that each row of an output answers. Raises RequestError where its shape, or the labels' `numbers`, do
    not let it be one."""
    if one_each(output) and output.dtype.kind in "biu":
        return output.reshape(-1).astype(np.int64)
    if output.ndim != 2 or output.shape[1] < 2:
        what = "one number a sample (metric=binary_probability or binary_logit judges that)"
        raise RequestError(
            f"it gives {what if one_each(output) else f'shape {output.shape[1:]} a sample'}, not one score a class"
        )
    low, high, count = int(numbers.min()), int(numbers.max()), output.shape[1]
    if low < 0 or high >= count:
        mend = "subtract 1 from 'label'" if (low, high) == (1, count) else "number the classes from 0 in 'label'"
        raise RequestError(f"it has {count} classes, 0 to {count - 1}, but the labels run from {low} to {high}: {mend}")
    return np.asarray(output.argmax(axis=1))


def most_frequent(labels: NDArray[Any]) -> float:
    """The accuracy of always answering the most frequent class."""
    return float(np.unique(class_numbers(labels), return_counts=True)[1].max() / len(labels))


@metric(single=True, guess=most_frequent, within=(0, 1))
def top1(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """1 where the largest of (n, classes) scores, or the class itself as a whole number, is the label, else 0."""
    numbers = class_numbers(labels)
    return np.asarray(answered_classes(outputs[0], numbers) == numbers, dtype=np.float64)


def _binary(output: NDArray[Any], labels: NDArray[Any], threshold: float) -> NDArray[Any]:
    numbers = class_numbers(labels)
    if not one_each(output):
        raise RequestError(f"it gives shape {output.shape[1:]} a sample, not one number")
    if not np.isin(numbers, (0, 1)).all():
        raise RequestError(
            f"it gives one number a sample, but the labels run from {numbers.min()} to {numbers.max()}: two classes "
            "are 0 and 1 in 'label', and a quantity needs another metric"
        )
    return np.asarray((output.reshape(-1) > threshold) == numbers, dtype=np.float64)


@metric(single=True, guess=most_frequent, within=(0, 1))
def binary_probability(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """1 where a probability above 0.5 has label 1, or another label 0; else 0."""
    return _binary(outputs[0], labels, 0.5)


@metric(single=True, guess=most_frequent, within=(0, 1))
def binary_logit(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """1 where a logit above 0 has label 1, or another label 0; else 0."""
    return _binary(outputs[0], labels, 0.0)


def suiting(output: NDArray[Any], labels: NDArray[Any]) -> str:
    """The metric that judges an output of the float model with those labels. Raises RequestError where it takes a
    person to choose one."""
    class_numbers(labels)
    if not one_each(output) or output.dtype.kind in "biu":
        return named("top1")
    return named("binary_probability" if _probable(output) else "binary_logit")


def _probable(column: NDArray[Any]) -> bool:
    """Whether these are probabilities: they never leave 0 to 1, as logits of a whole evaluation set do."""
    return bool(((column >= 0) & (column <= 1)).all())


def one_each(array: NDArray[Any]) -> bool:
    """Whether it has one number a sample."""
    return array.ndim > 0 and array.size == len(array)


# --- of all samples at once


def _f1_of_one_class(labels: NDArray[Any]) -> float:
    """The best F1 of always answering the same class: of one whose share of the labels is p it is 2p / (1 + p)."""
    classes, counts = np.unique(class_numbers(labels), return_counts=True)
    best = float(max(2 * share / (1 + share) for share in counts / counts.sum()))
    if not np.isin(classes, (0, 1)).all():
        return best / len(classes)  # the mean over classes, of which the others have 0
    share = float(counts[classes == 1].sum() / counts.sum())
    return 2 * share / (1 + share)


@metric(over="set", single=True, guess=_f1_of_one_class, within=(0, 1))
def f1(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> float:
    """F1 of class 1 where there are two classes, else the mean of each class's own."""
    from sklearn.metrics import f1_score

    output, numbers = outputs[0], class_numbers(labels)
    if one_each(output) and output.dtype.kind == "f":
        answers = np.asarray(output.reshape(-1) > (0.5 if _probable(output) else 0.0), dtype=np.int64)
    else:
        answers = answered_classes(output, numbers)
    binary = bool(np.isin(numbers, (0, 1)).all() and np.isin(answers, (0, 1)).all())
    return float(f1_score(numbers, answers, average="binary" if binary else "macro", zero_division=0))


@metric(over="set", single=True, guess=lambda labels: 0.5, within=(0, 1))
def auc(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> float:
    """The area under the ROC curve of the score of class 1, for labels 0 and 1."""
    from sklearn.metrics import roc_auc_score

    output, numbers = outputs[0], class_numbers(labels)
    if output.dtype.kind != "f" or not (one_each(output) or (output.ndim == 2 and output.shape[1] == 2)):
        raise RequestError("it is not the score of class 1, nor of two classes")
    if not np.isin(numbers, (0, 1)).all():
        raise RequestError("'label' must be 0 or 1")
    score = output.reshape(-1) if one_each(output) else output[:, 1] - output[:, 0]
    return float(roc_auc_score(numbers, score))


def _about_median(labels: NDArray[Any]) -> float:
    """The mean absolute error of always answering the median of each number."""
    return float(np.abs(_columns(labels) - np.median(_columns(labels), axis=0)).mean())


def _about_mean(labels: NDArray[Any]) -> float:
    """The root mean squared error of always answering the mean of each number: their standard deviation."""
    return float(np.sqrt(_columns(labels).var(axis=0).mean()))


@metric(single=True, better="less", guess=_about_median)
def mae(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """The mean absolute error."""
    return np.asarray(np.abs(_errors(outputs[0], labels)).mean(axis=1))


@metric(over="set", single=True, better="less", guess=_about_mean)
def rmse(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> float:
    """The root of the mean squared error."""
    return float(np.sqrt((_errors(outputs[0], labels) ** 2).mean()))


@metric(over="set", single=True, guess=lambda labels: 0.0, within=(-1, 1))
def correlation(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> float:
    """Pearson's correlation of one number a sample with its label."""
    if not one_each(outputs[0]) or not one_each(labels):
        raise RequestError("it gives more than one number a sample, or 'label' does")
    return float(np.corrcoef(outputs[0].reshape(-1), labels.reshape(-1))[0, 1])


def _errors(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    rows, wanted = _columns(output), _columns(labels)
    if rows.shape != wanted.shape:
        raise RequestError(f"it gives {rows.shape[1]} numbers a sample, 'label' has {wanted.shape[1]}")
    errors: NDArray[Any] = rows - wanted
    return errors


def _columns(array: NDArray[Any]) -> NDArray[Any]:
    """The numbers of a sample in a row."""
    columns: NDArray[Any] = array.reshape(len(array), -1).astype(np.float64)
    return columns


@metric(against="float")
def unjudged(outputs: Sequence[NDArray[Any]], truth: Any) -> NDArray[Any]:
    """Nothing: inputs that were made up do not tell how good answers are."""
    return np.zeros(truth.total)


UNJUDGED = "tuner.metrics:unjudged"
_FIDELITY = ("fidelity", "cosine", "agreement", "relative_error")  # they need no labels
_STRUCTURED = ("map", "wer", "recall_at_1", "recall_at_5", "recall_at_10")
NAMES = (
    "top1", "binary_probability", "binary_logit", "f1", "auc", "rmse", "mae", "correlation", *_STRUCTURED, *_FIDELITY,
)  # fmt: skip
CHOICES = f"metric={', '.join(NAMES)}, or package.module:function"
ACCURACIES = NAMES[:3]  # the share of right answers
