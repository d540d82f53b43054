"""YAML from outside: the nodes of one plain document, or refused in one line, whatever is in it.

Tags, anchors and aliases are refused, nesting and the digits of whole numbers are bounded: what is built
from the nodes is no larger than the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sagescale.errors import InputError

if TYPE_CHECKING:
    from typing import Protocol

    import yaml

    class _Mark(Protocol):
        """A place in YAML text, whichever of the library's two parsers made it."""

        @property
        def line(self) -> int: ...


__all__ = ["MAX_YAML_BYTES", "MAX_YAML_DEPTH", "compose_yaml"]

MAX_YAML_BYTES = 1024 * 1024
"""No configuration, fault file or profile is larger: those we have seen are a few kilobytes."""

MAX_YAML_DEPTH = 20
"""No key's value nests deeper, and YAML readers take quadratic time over what does."""

_TOO_DEEP = "nested too deeply; expected `key: value` lines"

_LONG_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_:]{40,}|0[xb][0-9a-fA-F_]{40,})")
"""Whole numbers, in YAML 1.1's notations too, that are slow to convert and that no float may hold."""


def compose_yaml(text: str, where: str) -> yaml.Node | None:
    """Return the node of the one document that a text holds, None where there is none.

    Raises:
        InputError: it is not YAML, nested too deeply, or uses tags, anchors, aliases or numbers that nothing
            here needs; ``where`` and the line are in the message.
    """
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
        return yaml.compose(text, Loader=loader)
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


def _at(where: str, mark: _Mark | None) -> str:
    return where if mark is None else f"{where}:{mark.line + 1}"
