"""Metrics of answers that are no single class or number: boxes, sequences of tokens, embeddings. All over the set."""

import contextlib
import io
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import RequestError
from tuner.metrics import metric

_PER_IMAGE = 100  # detections that count, the surest first, as COCO has it
_FORMS = (
    "one output (n, k, 6) of x1, y1, x2, y2, score, class; or boxes (n, k, 4) beside scores (n, k, classes), or beside "
    "scores (n, k) and classes (n, k); after the suppression of doubles"
)


def _library(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise RequestError(f"needs {module.partition('.')[0]}: pip install 'inference-tuner[{extra}]'") from error


# --- boxes


@metric(over="set", within=(0, 1))
def map(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> float:
    """COCO's mean average precision, over overlaps from 0.50 to 0.95. `labels` (n, most, 5) are class, x1, y1, x2, y2;
    a class below 0 fills up."""
    coco, cocoeval = _library("pycocotools.coco", "detection"), _library("pycocotools.cocoeval", "detection")
    if labels.ndim != 3 or labels.shape[2] != 5:
        raise RequestError(f"'label' has shape {labels.shape[1:]} a sample, not (most, 5): class, x1, y1, x2, y2")
    if not (labels[:, :, 0] >= 0).any():
        raise RequestError("'label' has no box of a class from 0")
    found = _detections(outputs, labels)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        truth = coco.COCO()
        truth.dataset = _annotated(labels)
        truth.createIndex()
        if not len(found):
            return 0.0
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.params.maxDets = [_PER_IMAGE]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    return float(precision[precision > -1].mean())


def _annotated(labels: NDArray[Any]) -> dict[str, Any]:
    """The boxes that are right, as COCO writes them."""
    boxes: list[dict[str, Any]] = []
    for image, sample in enumerate(labels.tolist()):
        for kind, left, top, right, bottom in sample:
            if kind >= 0:
                width, height = right - left, bottom - top
                if width <= 0 or height <= 0:
                    raise RequestError(f"'label' of sample {image} has a box without area: they are x1, y1, x2, y2")
                box = {"bbox": [left, top, width, height], "area": width * height, "iscrowd": 0}
                boxes.append({"id": len(boxes) + 1, "image_id": image, "category_id": int(kind), **box})
    kinds = sorted({box["category_id"] for box in boxes})
    images = [{"id": image} for image in range(len(labels))]
    return {"images": images, "annotations": boxes, "categories": [{"id": kind} for kind in kinds]}


def _detections(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """Rows of image, x, y, width, height, score, class. Raises RequestError."""
    boxes, scores, kinds = _parts(outputs)
    if kinds is None:
        kinds = np.zeros(scores.shape)
        if len(np.unique(labels[:, :, 0][labels[:, :, 0] >= 0])) > 1:
            raise RequestError(
                f"no output tells the class of a box, and 'label' has several; a detector gives {_FORMS}"
            )
    image = np.repeat(np.arange(len(boxes)), boxes.shape[1]).reshape(scores.shape)
    corner, size = boxes[:, :, :2], boxes[:, :, 2:] - boxes[:, :, :2]
    rows = np.concatenate([image[:, :, None], corner, size, scores[:, :, None], kinds[:, :, None]], axis=2)
    return np.asarray(rows[scores > 0], dtype=np.float64)  # a detector fills up with scores of 0


def _parts(outputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Boxes (n, k, 4), scores (n, k), and classes (n, k) where they are told. Raises RequestError."""
    if len(outputs) == 1 and outputs[0].ndim == 3 and outputs[0].shape[2] == 6:
        whole = outputs[0]
        return whole[:, :, :4], whole[:, :, 4], whole[:, :, 5]
    boxes = [o for o in outputs if o.ndim == 3 and o.shape[2] == 4]
    by_class = [o for o in outputs if o.ndim == 3 and o.shape[2] != 4 and o.dtype.kind == "f"]
    flat = [o for o in outputs if o.ndim == 2]
    kinds = [o for o in flat if _whole(o)] if len(flat) > 1 else []
    scores = [o for o in flat if not any(o is other for other in kinds)]
    if len(boxes) == 1 and len(by_class) == 1 and by_class[0].shape[:2] == boxes[0].shape[:2]:
        return boxes[0], by_class[0].max(axis=2), by_class[0].argmax(axis=2)
    alike = all(o.shape == boxes[0].shape[:2] for o in (*scores, *kinds)) if boxes else False
    if len(boxes) == 1 and len(scores) == 1 and len(kinds) < 2 and alike:
        return boxes[0], scores[0], kinds[0] if kinds else None
    shapes = ", ".join(str(("n", *output.shape[1:])).replace("'", "") for output in outputs)
    raise RequestError(f"outputs {shapes} are no boxes that it knows; a detector gives {_FORMS}")


def _whole(array: NDArray[Any]) -> bool:
    """Whether these are classes rather than scores."""
    return bool((array == np.floor(array)).all())


# --- sequences


@metric(over="set", single=True, better="less")
def wer(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> float:
    """Edits that make the answers the references, over the tokens of the references. `labels` (n, most) are numbers of
    tokens, filled up with -1. The output is the same, or scores (n, time, tokens) of a CTC whose blank is 0."""
    jiwer = _library("jiwer", "speech")
    output = outputs[0]
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise RequestError(
            f"'label' must be the numbers of tokens, (n, most) whole numbers filled up with -1; it has dtype "
            f"{labels.dtype} and shape {labels.shape[1:]} a sample: number texts as the model does"
        )
    if output.ndim == 3 and output.dtype.kind == "f":
        if (labels == 0).any():
            raise RequestError("'label' has token 0, which is the blank of a CTC")
        answers = [_collapsed(row) for row in output.argmax(axis=2)]
    elif output.ndim == 2 and output.dtype.kind in "iu":
        answers = [row[row >= 0] for row in output]
    else:
        raise RequestError(f"it gives shape {output.shape[1:]} of {output.dtype} a sample, not tokens or their scores")
    right = [row[row >= 0] for row in labels]
    if not all(len(row) for row in right):
        raise RequestError("'label' has a sample without any token")
    return float(jiwer.wer([_spelled(row) for row in right], [_spelled(row) for row in answers]))


def _collapsed(best: NDArray[Any]) -> NDArray[Any]:
    """What a CTC's best path spells: repeats are one, blanks nothing."""
    changed = np.concatenate([[True], best[1:] != best[:-1]])
    return np.asarray(best[changed & (best != 0)])


def _spelled(tokens: NDArray[Any]) -> str:
    """A text whose words are the tokens."""
    return " ".join(str(token) for token in tokens.tolist())


# --- embeddings


def _recall(outputs: Sequence[NDArray[Any]], labels: NDArray[Any], k: int) -> NDArray[Any]:
    """1 where one of the `k` others whose embeddings (n, numbers) are nearest, by cosine, has the same label; else 0.
    `labels` (n) are the same for samples that belong together."""
    from sklearn.neighbors import NearestNeighbors

    embedded = outputs[0]
    if embedded.ndim != 2 or embedded.shape[1] < 2 or embedded.dtype.kind != "f":
        raise RequestError(f"it gives shape {embedded.shape[1:]} of {embedded.dtype} a sample, not an embedding")
    if labels.size != len(labels) or labels.dtype.kind not in "iu":
        raise RequestError("'label' must be one whole number a sample, the same for samples that belong together")
    groups = labels.reshape(-1)
    _, place, count = np.unique(groups, return_inverse=True, return_counts=True)
    if alone := int((count[place] < 2).sum()):
        raise RequestError(
            f"{alone} of {len(groups)} samples have a label that no other has; each needs one of its kind "
            "(dataset.calibration_path= keeps the evaluation set whole)"
        )
    index = NearestNeighbors(n_neighbors=min(k, len(groups) - 1), metric="cosine", algorithm="brute").fit(embedded)
    near = groups[index.kneighbors(return_distance=False)]  # of each, itself is none
    return np.asarray((near == groups[:, None]).any(axis=1), dtype=np.float64)


@metric(over="set", single=True, within=(0, 1))
def recall_at_1(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """Whether the nearest other sample has the same label."""
    return _recall(outputs, labels, 1)


@metric(over="set", single=True, within=(0, 1))
def recall_at_5(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """Whether one of the 5 nearest other samples has the same label."""
    return _recall(outputs, labels, 5)


@metric(over="set", single=True, within=(0, 1))
def recall_at_10(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """Whether one of the 10 nearest other samples has the same label."""
    return _recall(outputs, labels, 10)
