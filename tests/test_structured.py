"""Metrics of boxes, sequences of tokens and embeddings: the right value, and a sentence where the shapes do not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tuner import structured
from tuner.errors import RequestError
from tuner.evaluate.settling import settle
from tuner.metrics import NAMES, find

BOXES = np.array(
    [[[0, 10, 10, 50, 50], [1, 60, 60, 90, 95]], [[1, 5, 5, 40, 45], [-1, 0, 0, 0, 0]]], np.float32
)  # class, x1, y1, x2, y2


def detected(labels: NDArray[np.float32], shift: float = 0.0) -> NDArray[np.float32]:
    """What a detector gives that finds every box, `shift` to the right: x1, y1, x2, y2, score, class."""
    boxes = labels[:, :, 1:] + np.array([shift, 0, shift, 0], np.float32)
    score = np.where(labels[:, :, :1] >= 0, 0.9, 0.0)
    return np.concatenate([boxes, score, labels[:, :, :1]], axis=2).astype(np.float32)


@pytest.mark.parametrize("name", ["map", "wer", "recall_at_1", "recall_at_5", "recall_at_10"])
def test_each_is_found_by_its_name(name: str) -> None:
    assert name in NAMES
    assert find(name) is getattr(structured, name)


# --- boxes


def test_boxes_that_are_right_have_a_precision_of_1_in_every_form_of_output() -> None:
    pytest.importorskip("pycocotools")
    whole = detected(BOXES)
    boxes, scores, kinds = whole[:, :, :4], whole[:, :, 4], whole[:, :, 5]
    by_class = np.where(np.arange(3) == kinds[:, :, None], scores[:, :, None], 0.01).astype(np.float32)
    kinds = np.maximum(kinds, 0) + 0
    for outputs in ([whole], [boxes, by_class], [kinds.astype(np.int64), scores, boxes]):
        assert structured.map(outputs, BOXES) == pytest.approx(1.0)


def test_precision_falls_with_the_overlap_and_with_what_is_missed() -> None:
    pytest.importorskip("pycocotools")
    # an overlap of 36/44 = 0.82 for 40 wide, 26/34 = 0.76 and 31/39 = 0.79: right up to 0.80, 0.75 and 0.75 of ten
    shifted = structured.map([detected(BOXES, shift=4.0)], BOXES)
    assert shifted == pytest.approx((0.7 + 0.6) / 2, abs=0.03)
    missed = detected(BOXES)
    missed[1, 0, 4] = 0.0
    assert structured.map([missed], BOXES) == pytest.approx((1.0 + 51 / 101) / 2)
    assert structured.map([np.zeros_like(missed)], BOXES) == 0.0


def test_the_precision_of_a_detector_is_settled_with_an_interval_and_against_chance() -> None:
    pytest.importorskip("pycocotools")
    random = np.random.default_rng(0)
    corner = random.uniform(0, 60, (8, 2, 2))
    labels = np.concatenate([random.integers(0, 2, (8, 2, 1)), corner, corner + 30], axis=2).astype(np.float32)
    judging, scores = settle("map", None, ["found"], [detected(labels, shift=2.0)], labels)
    assert 0.5 < scores.value < 1 and scores.resampled is not None and scores.resampled.std() >= 0
    assert judging.output is None
    assert judging.guess is None or judging.guess < scores.value


@pytest.mark.parametrize(
    ("outputs", "labels", "said"),
    [
        ([np.zeros((2, 84, 80), np.float32)], BOXES, "after the suppression of doubles"),
        ([np.ones((2, 5, 4), np.float32), np.full((2, 5), 0.5, np.float32)], BOXES, "no output tells the class"),
        ([detected(BOXES)], BOXES[:, :, :4], "not (most, 5): class, x1, y1, x2, y2"),
        ([detected(BOXES)], np.full_like(BOXES, -1), "no box of a class"),
        ([detected(BOXES)], BOXES[:, :, [0, 3, 4, 1, 2]], "a box without area"),
    ],
)
def test_what_is_no_detection_is_refused(
    outputs: list[NDArray[np.float32]], labels: NDArray[np.float32], said: str
) -> None:
    pytest.importorskip("pycocotools")
    with pytest.raises(RequestError, match=said.replace("(", r"\(").replace(")", r"\)")):
        structured.map(outputs, labels)


# --- sequences

WORDS = np.array([[3, 4, 5, 6], [7, 8, -1, -1]])


def test_word_errors_are_edits_over_the_words_of_the_references() -> None:
    pytest.importorskip("jiwer")
    assert structured.wer([WORDS], WORDS) == 0
    assert structured.wer([np.array([[3, 9, 5], [7, 8, 8]])], WORDS) == pytest.approx(3 / 6)  # another, none, one more
    assert find("wer").better == "less"


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=6), min_size=1, max_size=4), st.data())
def test_the_best_path_of_a_ctc_spells_what_it_was_made_of(texts: list[list[int]], data: st.DataObject) -> None:
    pytest.importorskip("jiwer")
    paths = []
    for text in texts:  # repeats and blanks anywhere, a blank between doubles
        path: list[int] = []
        for token in text:
            path += [0] * data.draw(st.integers(int(bool(path) and path[-1] == token), 2))
            path += [token] * data.draw(st.integers(1, 2))
        paths.append(path)
    longest, most = max(map(len, paths)), max(map(len, texts))
    scores = np.eye(6, dtype=np.float32)[[path + [0] * (longest - len(path)) for path in paths]]
    labels = np.array([text + [-1] * (most - len(text)) for text in texts])
    assert structured.wer([scores], labels) == 0


@pytest.mark.parametrize(
    ("output", "labels", "said"),
    [
        (np.eye(9, dtype=np.float32)[np.abs(WORDS)], np.array([[0, 1], [2, 3]]), "the blank of a CTC"),
        (WORDS, np.array(["a b", "c"]), "number texts as the model does"),
        (WORDS.astype(np.float32), WORDS, "not tokens or their scores"),
        (WORDS, np.full_like(WORDS, -1), "without any token"),
    ],
)
def test_what_is_no_sequence_is_refused(output: NDArray[np.float32], labels: NDArray[np.int64], said: str) -> None:
    pytest.importorskip("jiwer")
    with pytest.raises(RequestError, match=said):
        structured.wer([output], labels)


# --- embeddings


def test_recall_looks_for_the_nearest_others_by_direction() -> None:
    angles = np.array([0.0, 0.1, 1.0, 1.15, 0.5, 0.56])
    embedded = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.arange(1, 7)[:, None]
    labels = np.array([0, 0, 1, 1, 0, 1])
    assert structured.recall_at_1([embedded], labels).tolist() == [1, 1, 1, 1, 0, 0]
    assert structured.recall_at_5([embedded], labels).mean() == 1


def test_what_is_no_embedding_or_has_no_partner_is_refused() -> None:
    embedded = np.eye(4)
    for output, labels, said in (
        (embedded, np.array([0, 0, 1, 2]), "2 of 4 samples have a label that no other has"),
        (embedded[:, :1], np.array([0, 0, 1, 1]), "not an embedding"),
        (embedded, np.array([0.5, 0.5, 1, 1]), "one whole number a sample"),
    ):
        with pytest.raises(RequestError, match=said):
            structured.recall_at_1([output], labels)
