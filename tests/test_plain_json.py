"""JSON of anybody's: what is within bounds is read as Python reads it, and all else is one kind of error."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cogview.plain_json import MAX_DEPTH, MAX_INTEGER, parse_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - MAX_INTEGER, MAX_INTEGER - 1)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
@example(1 - MAX_INTEGER)
@settings(max_examples=50, deadline=None)
@pytest.mark.slow
def test_what_is_within_bounds_is_read_as_python_reads_it(value: object) -> None:
    data = json.dumps(value).encode()
    assert parse_json(data) == parse_json(b"\xef\xbb\xbf" + data) == json.loads(data) == value


@given(st.text("[]{}\"':,0123456789eE+-.truefalsn \\", max_size=18).map(str.encode) | st.binary(max_size=30))
@settings(max_examples=200, deadline=None)
def test_anything_else_is_a_value_error(data: bytes) -> None:
    try:
        wanted = json.loads(data)
    except ValueError:
        with pytest.raises(ValueError, match=r".+"):
            parse_json(data)
    else:
        assert parse_json(data) == wanted


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[" * MAX_DEPTH + b"[]" + b"]" * MAX_DEPTH, "deeper than 100"),
        (b"[" * 5_000 + b"]" * 5_000, "deeper than 100"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "deeper than 100"),
        (b"1" + b"0" * 400, "401 digits"),
        (b"-" + b"9" * 5_000, "5000 digits"),
        (str(MAX_INTEGER).encode(), "20 digits"),
        (b" " * 90 + b"12345678901", "101 bytes"),
        (b'"\xff"', "utf-8"),
    ],
)
def test_what_is_beyond_them_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(data, max_bytes=100 if data.startswith(b" ") else 100_000)


def test_the_bounds_themselves_are_within() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert json.dumps(parse_json(deep)).encode() == deep
    assert parse_json(str(MAX_INTEGER - 1).encode()) == MAX_INTEGER - 1


@given(VALUES)
@settings(max_examples=50, deadline=None)
def test_strictly_read_is_what_the_standard_has(value: object) -> None:
    try:
        data = json.dumps(value, allow_nan=False)
    except ValueError:
        with pytest.raises(ValueError, match="no number"):
            parse_json(json.dumps(value), is_strict=True)
    else:
        assert parse_json(data, is_strict=True) == value


@pytest.mark.parametrize("part", ["NaN", "-Infinity", "1e999", "9" * 400, '{"a": 1, "a": 1}'])
@pytest.mark.parametrize("outer", ["%s", "[%s]", '{"b": {"c": [0, %s]}}'])
def test_strictly_nothing_is_read_that_the_standard_has_not_or_that_says_two_things(
    outer: str, part: str
) -> None:
    with pytest.raises(ValueError, match=r"no number|too large|twice"):
        parse_json(outer % part, is_strict=True)
