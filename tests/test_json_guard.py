"""JSON from outside is read as Python reads it, or refused in one line: never a traceback, never a bomb."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.json_guard import MAX_DEPTH, BadJsonError, parse_json

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
)
documents = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(documents, st.booleans())
def test_what_is_json_is_read_as_it_is(document, ascii_only):
    text = json.dumps(document, ensure_ascii=ascii_only)
    assert parse_json(text) == document
    assert parse_json(text.encode()) == document
    assert parse_json(b"\xef\xbb\xbf" + text.encode()) == document


@given(st.binary() | st.text(alphabet='{}[]",:\\u0dD8eE+-.1 \n').map(str.encode))
def test_anything_else_is_refused(data):
    with contextlib.suppress(BadJsonError):
        parse_json(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested"),
        (b"[" + b"9" * 400 + b"]", "400 digits"),
        (b"9" * 100_000, "100000 digits"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' is given twice"),
        (b'["\\ud800"]', "half of a character"),
        (b'{"\\udc00x": 1}', "half of a character"),
        (b"[" + b"[]," * 1_000_000 + b"[]]", "1000000 objects and lists"),
        (b"[" + b"1," * 5_000_001 + b"1]", "5000000 values"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": ', "ends early"),
        (b"", "ends early"),
    ],
)
def test_what_would_do_harm_is_named(data, message):
    with pytest.raises(BadJsonError, match=message):
        parse_json(data)


def test_what_is_large_but_harmless_is_read():
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert parse_json(deep) == json.loads(deep)
    assert parse_json(b'["\\ud83d\\ude00", 18446744073709551615]') == ["\N{GRINNING FACE}", 2**64 - 1]
