"""The protocol's grammar: what is well said is read, and what is not is refused with one sentence."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tuner.serve.protocol import DATATYPES, HEADER_LENGTH, Inference, Refusal, Wanted, answered, encoded, parsed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("name", "shape", "datatype", "data", "parameters")
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | JSON,
        "shape": st.lists(st.integers(-1, 2**70), max_size=3) | JSON,
        "datatype": st.sampled_from([*DATATYPES, "BYTES", "fp32"]) | JSON,
        "data": st.lists(st.floats(width=32), max_size=4) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 2**70) | JSON}) | JSON,
    },
)
REQUESTS = st.fixed_dictionaries(
    {}, optional={"id": st.text() | JSON, "inputs": st.lists(TENSORS, max_size=2) | JSON, "outputs": JSON}
)


def written(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, orjson.JSONEncodeError):  # an integer of more than 64 bits, a lone surrogate
        return repr(value).encode(errors="replace")


@given(
    body=st.binary(max_size=64) | REQUESTS.map(written) | JSON.map(written),
    tail=st.binary(max_size=16),
    length=st.none() | st.integers(0, 400).map(str) | st.text(max_size=5),
)
def test_whatever_is_said_is_read_or_refused_with_one_sentence(body: bytes, tail: bytes, length: str | None) -> None:
    try:
        parsed(body + tail, length)
    except Refusal as refusal:
        assert refusal.status == 400
        assert refusal.sentence


@given(array=st.sampled_from(sorted(DATATYPES.values())).flatmap(lambda d: arrays.arrays(d, arrays.array_shapes())))
def test_a_tensor_in_bytes_comes_back_as_it_was(array: np.ndarray) -> None:
    body, headers = encoded({"x": array})
    said = parsed(body, headers[HEADER_LENGTH]).inputs["x"]
    assert said.dtype == array.dtype
    assert said.shape == array.shape
    assert said.tobytes() == array.tobytes()


@given(
    array=arrays.arrays("int64", arrays.array_shapes(), elements=st.integers(-(2**63), 2**63 - 1)), flat=st.booleans()
)
def test_whole_numbers_in_json_are_not_rounded(array: np.ndarray, flat: bool) -> None:
    data = array.ravel().tolist() if flat else array.tolist()
    tensor = {"name": "x", "shape": array.shape, "datatype": "INT64", "data": data}
    assert (parsed(orjson.dumps({"inputs": [tensor]}), None).inputs["x"] == array).all()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"datatype": "BYTES"}, "datatype"),
        ({"shape": [2]}, "data has 1 values|data has shape"),
        ({"shape": [-1]}, "shape"),
        ({"shape": [True]}, "shape"),
        ({"data": ["1"]}, "must be FP32"),
        ({"data": [[1], [1, 2]]}, "flat or nested"),
        ({"data": [None]}, "must be FP32|flat"),
        ({"data": [1e300]}, "too large"),
        ({"data": [True]}, "must be FP32"),
        ({"datatype": "INT8", "data": [200]}, "too large"),
        ({"datatype": "INT8", "data": [1.5]}, "must be INT8"),
        ({"datatype": "UINT8", "data": [-1]}, "too large"),
        ({"datatype": "UINT64", "data": [-1]}, "must be UINT64"),
        ({"datatype": "INT64", "data": [2**63]}, "too large"),
        ({"data": [["1", {}]]}, "must be FP32"),
        ({"shape": [0, 2**63 - 1], "data": []}, "larger than any array"),
        ({"shape": [0, 2**64 - 1], "data": []}, "larger than any array"),
        ({"parameters": {"binary_data_size": 4}}, "binary_data_size"),
        ({"name": 3}, "needs a name"),
    ],
)
def test_no_value_is_cast(change: dict[str, Any], complaint: str) -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}
    with pytest.raises(Refusal, match=complaint):
        parsed(orjson.dumps({"inputs": [tensor | change]}), None)


def test_a_text_among_numbers_is_not_given_room() -> None:
    """NumPy would make each of the values as long as the longest: 40 GB."""
    tensor = {"name": "x", "shape": [10**4], "datatype": "FP32", "data": ["a" * 10**6, *[""] * (10**4 - 1)]}
    with pytest.raises(Refusal, match="must be FP32"):
        parsed(orjson.dumps({"inputs": [tensor]}), None)


def test_large_whole_numbers_stand_beside_small_ones() -> None:
    tensor = {"name": "x", "shape": [2], "datatype": "UINT64", "data": [1, 2**64 - 1]}
    assert parsed(orjson.dumps({"inputs": [tensor]}), None).inputs["x"].tolist() == [1, 2**64 - 1]


def test_an_output_comes_as_the_request_says_unless_it_says_otherwise_itself() -> None:
    wanted = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}]
    for binary in (True, False):
        request = {"inputs": [], "outputs": wanted, "parameters": {"binary_data_output": binary}}
        assert parsed(orjson.dumps(request), None).outputs == (Wanted("a", binary), Wanted("b", False))


def test_what_json_cannot_say_is_refused_not_told_as_null() -> None:
    outputs = {"y": np.array([np.nan], np.float32)}
    with pytest.raises(Refusal, match="ask for bytes"):
        answered("", ("m", "1"), outputs, Inference("", {}, (Wanted("y", False),), False))
    body, _ = answered("", ("m", "1"), outputs, Inference("", {}, None, True))
    assert body.endswith(outputs["y"].tobytes())
