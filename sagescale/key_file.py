"""YAML from outside: the keys and values of one plain document, each with its line, or refused in one line.

Tags, anchors, aliases and duplicate keys are refused, nesting and the digits of whole numbers are bounded:
what is made of a text is no larger than it. Plain scalars follow YAML 1.2's core schema: `1e-3` is a number,
`yes` and `12:30` are text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sagescale.declare import Located, shown
from sagescale.errors import InputError, UnknownFormatError
from sagescale.files import read_input_text

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Protocol

    import yaml

    class _Mark(Protocol):
        """A place in YAML text, whichever of the library's two parsers made it."""

        @property
        def line(self) -> int: ...


MAX_YAML_BYTES = 1024 * 1024
"""No configuration, fault file or profile is larger: those we have seen are a few kilobytes."""

MAX_YAML_DEPTH = 20
"""No key's value nests deeper, and YAML readers take quadratic time over what does."""

FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
"""A number as YAML 1.2 writes it."""

_TOO_DEEP = "nested too deeply; expected `key: value` lines"

_LONG_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_:]{40,}|0[xb][0-9a-fA-F_]{40,})")
"""Whole numbers, in YAML 1.1's notations too, that are slow to convert and that no float may hold."""

_INTEGER = re.compile(r"[-+]?[0-9]+")
_INTEGER_DIGITS = 41  # with a sign; longer ones are refused in a file
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read_key_tree(path: Path, what: str = "a YAML file") -> Located:
    """Return a YAML mapping whose every value, within mappings and lists too, knows its line.

    An empty file has no key.

    Raises:
        InputError: the file (which is to be ``what``) cannot be read, is not YAML, or is no mapping.
    """
    text = read_input_text(path, what, MAX_YAML_BYTES)
    try:
        root = compose_yaml(text, str(path))
    except InputError as error:
        raise UnknownFormatError(str(error), path, what) from None
    return Located({}, str(path)) if root is None else _mapping(root, path, what)


def read_key_trees(path: Path, what: str = "a YAML file") -> list[Located]:
    """Return every document of a YAML file, each as :func:`read_key_tree` does; empty ones are left out.

    Raises:
        InputError: as there.
    """
    roots = _composed(read_input_text(path, what, MAX_YAML_BYTES), str(path))
    return [_mapping(root, path, what) for root in roots if not _is_nothing(root)]


def _mapping(root: yaml.Node, path: Path, what: str) -> Located:
    tree = _locate(root, str(path))
    if not isinstance(tree.value, dict):
        found = "a list" if isinstance(tree.value, list) else shown(tree.plain)
        raise UnknownFormatError(f"{tree.where}: found {found}; expected `key: value` lines", path, what)
    return Located(tree.value, str(path))


def _is_nothing(root: yaml.Node) -> bool:
    return root.tag == "tag:yaml.org,2002:null"


def read_key_file(path: Path) -> dict[str, Located]:
    """Return the top-level keys of a YAML mapping, their values without places of their own.

    Raises:
        InputError: as :func:`read_key_tree`.
    """
    tree = read_key_tree(path).value
    assert isinstance(tree, dict)
    return {name: Located(item.plain, item.where) for name, item in tree.items()}


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
    return None if root is None else _locate(root, where).plain


def parse_scalar(text: str) -> object:
    """Resolve a plain scalar: null, true or false, an integer, a number, or text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= _INTEGER_DIGITS:
        return int(text)
    if FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    if _NAN.fullmatch(text):
        return float("nan")
    return text


def compose_yaml(text: str, where: str) -> yaml.Node | None:
    """Return the node of the one document that a text holds, None where there is none.

    Raises:
        InputError: it is not YAML, nested too deeply, or uses tags, anchors, aliases or numbers that nothing
            here needs; ``where`` and the line are in the message.
    """
    return next(iter(_composed(text, where, several=False)), None)


def _composed(text: str, where: str, *, several: bool = True) -> list[yaml.Node]:
    import yaml

    # libyaml's parser is ten times faster than the one in Python, and not everywhere there.
    loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            problem = _problem(event, depth)
            if problem:
                raise InputError(f"{_at(where, event.start_mark)}: {problem}")
        roots = yaml.compose_all(text, Loader=loader) if several else [yaml.compose(text, Loader=loader)]
        return [root for root in roots if root is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "nesting depth" in (error.problem or ""):
            raise InputError(f"{_at(where, mark)}: {_TOO_DEEP}") from None
        raise InputError(
            f"{_at(where, mark)}: not YAML: {error.problem or error.context}; expected plain YAML"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML: {str(error).splitlines()[0]}; expected plain YAML") from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: not YAML: half of a character; expected plain YAML") from None


def _problem(event: yaml.Event, depth: int) -> str:
    import yaml

    if depth > MAX_YAML_DEPTH:
        return _TOO_DEEP
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        return "anchors and aliases are not accepted; expected plain YAML"
    if tag := getattr(event, "tag", None):
        return f"the tag {tag} is not accepted; expected plain YAML"
    if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _LONG_NUMBER.fullmatch(event.value):
        return f"a whole number of {len(event.value)} digits; expected at most 40"
    return ""


def _locate(node: yaml.Node, path: str) -> Located:
    import yaml

    where = _at(path, node.start_mark)
    if isinstance(node, yaml.ScalarNode):
        # A quoted scalar is text whatever it looks like.
        return Located(node.value if node.style else parse_scalar(node.value), where)
    if isinstance(node, yaml.SequenceNode):
        return Located([_locate(item, path) for item in node.value], where)
    assert isinstance(node, yaml.MappingNode)
    items: dict[str, Located] = {}
    for key, value in node.value:
        place = _at(path, key.start_mark)
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{place}: a key must be a plain name")
        if key.value in items:
            first = items[key.value].where.rpartition(":")[2]
            raise InputError(f"{place}: {key.value} is given twice, first on line {first}")
        items[key.value] = _locate(value, path)
    return Located(items, where)


def _at(where: str, mark: _Mark | None) -> str:
    return where if mark is None else f"{where}:{mark.line + 1}"
