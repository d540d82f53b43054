"""Reads flat YAML that remembers on which line each key stands.

Plain scalars follow YAML 1.2's core schema: `1e-3` is a number, `yes` and `12:30` are text. Tags,
anchors and aliases are refused; so are duplicate keys.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from sagescale.errors import InputError
from sagescale.files import read_input_text
from sagescale.yaml_guard import MAX_YAML_BYTES, compose_yaml

if TYPE_CHECKING:
    from pathlib import Path

    import yaml

__all__ = ["Located", "parse_scalar", "parse_value", "read_key_file", "read_key_tree"]

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER_DIGITS = 41  # with a sign; the guard refuses longer ones in a file


class Located(NamedTuple):
    """A value, the text it was written as, and where."""

    value: object
    text: str
    where: str


def read_key_file(path: Path) -> dict[str, Located]:
    """Return the top-level keys of a YAML mapping; an empty file has none.

    Raises:
        InputError: the file cannot be read, is not YAML, or is no mapping of keys to values.
    """
    import yaml

    found: dict[str, Located] = {}
    for name, value in _read_items(path):
        written = value.value if isinstance(value, yaml.ScalarNode) else ""
        found[name] = Located(_construct(value, str(path)), written, _where(path, value))
    return found


def read_key_tree(path: Path) -> dict[str, Located]:
    """Return the keys of a YAML mapping, with every value of a mapping and item of a list located.

    Raises:
        InputError: as :func:`read_key_file`.
    """
    return {name: _locate(value, str(path)) for name, value in _read_items(path)}


def _read_items(path: Path) -> list[tuple[str, yaml.Node]]:
    root = compose_yaml(read_input_text(path, "a YAML file", MAX_YAML_BYTES), str(path))
    if root is None:
        return []
    import yaml

    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{_where(path, root)}: expected `key: value` lines")
    return _items(root, str(path))


def parse_value(text: str, where: str) -> object:
    """Read one value written on a command line as YAML.

    Raises:
        InputError: it is not YAML; ``where`` says in the message where it was written.
    """
    try:
        root = compose_yaml(text, where)
    except InputError as error:
        # It is one line: which one is no help.
        raise InputError(str(error).replace(f"{where}:1:", f"{where}:")) from None
    return None if root is None else _construct(root, where)


def parse_scalar(text: str) -> object:
    """Resolve a plain scalar: null, true or false, an integer, a number, or text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= _INTEGER_DIGITS:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    if _NAN.fullmatch(text):
        return float("nan")
    return text


def _where(path: Path | str, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _items(node: yaml.MappingNode, path: str) -> list[tuple[str, yaml.Node]]:
    import yaml

    items: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{_where(path, key)}: a key must be a plain name")
        if key.value in items:
            first = items[key.value].start_mark.line + 1
            raise InputError(f"{_where(path, key)}: {key.value} is given twice, first on line {first}")
        items[key.value] = value
    return list(items.items())


def _locate(node: yaml.Node, path: str) -> Located:
    import yaml

    where = _where(path, node)
    if isinstance(node, yaml.MappingNode):
        return Located({name: _locate(value, path) for name, value in _items(node, path)}, "", where)
    if isinstance(node, yaml.SequenceNode):
        return Located([_locate(item, path) for item in node.value], "", where)
    return Located(_construct(node, path), str(node.value), where)


def _construct(node: yaml.Node, path: str) -> object:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        # A quoted scalar is text whatever it looks like.
        return node.value if node.style else parse_scalar(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, path) for item in node.value]
    assert isinstance(node, yaml.MappingNode)
    return {name: _construct(value, path) for name, value in _items(node, path)}
