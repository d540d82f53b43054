"""YAML from outside: nodes of plain YAML, or one line."""

from __future__ import annotations

import pytest
from sagescale.errors import InputError
from sagescale.key_file import compose_yaml

REFUSED = {
    "deep": ("[" * 21, "f:1: nested too deeply"),
    "deeper than libyaml goes": ("[" * 50_000, "f:1: nested too deeply"),
    "deep in blocks": ("".join(" " * i + "a:\n" for i in range(40)), "f:21: nested too deeply"),
    "an alias": ("a: &x 1\nb: *x\n", "f:1: anchors and aliases"),
    "a bomb": ("a: &a [1]\nb: &b [*a, *a]\n", "f:1: anchors and aliases"),
    "a tag": (
        "a: !!python/object:os.system x",
        "f:1: the tag tag:yaml.org,2002:python/object:os.system is not",
    ),
    "a long number": (f"a: 1\nb: {'9' * 400}", "f:2: a whole number of 400 digits"),
    "a long number in base 60": (f"a: {'1:' * 50}1", "f:1: a whole number of 101 digits"),
    "a long number in hexadecimal": (f"a: 0x{'f' * 50}", "f:1: a whole number of 52 digits"),
    "two documents": ("a: 1\n---\nb: 2\n", "f:2: not YAML"),
    "no end": ("a: [1", "f:2: not YAML"),
    "a control character": ("a: \x00", "f: not YAML"),
    "half of a character": ("a: \udcff", "f: not YAML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_nothing_here_needs_is_refused_with_its_line(case):
    text, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        compose_yaml(text, "f")
    assert str(caught.value).startswith(message)
    assert "expected" in str(caught.value)


def test_long_text_is_no_number():
    node = compose_yaml(f"sha256: {'ab12' * 16}\nquoted: '{'9' * 400}'\n", "f")
    assert [value.value for _, value in node.value] == ["ab12" * 16, "9" * 400]


def test_an_empty_text_has_no_node():
    assert compose_yaml("# nothing\n", "f") is None
