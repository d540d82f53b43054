"""Writes configuration classes out: a commented file, resolved values, a JSON schema."""

from __future__ import annotations

import math
import re
import sys
import textwrap
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sagescale.declare import Setting, declared
from sagescale.key_file import parse_scalar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./=,()+ -]*(:[A-Za-z0-9_./=,()+-]+)*")


def yaml_text(value: object) -> str:
    """Write a value so that a key file reads it back; what is no YAML type writes itself (``str``)."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(yaml_text(item) for item in value) + "]"
    text = str(value)
    if not isinstance(value, str) and isinstance(parse_scalar(text), int | float):
        return text  # a startup delay that is a plain number of seconds
    is_text = text == text.strip() and isinstance(parse_scalar(text), str)
    if is_text and _PLAIN.fullmatch(text):
        return text
    import yaml

    return yaml.safe_dump(text, default_style='"', width=sys.maxsize, allow_unicode=True).rstrip("\n")


def commented_yaml(
    types: Sequence[type[Any]], advised: Mapping[str, tuple[object, str]] = MappingProxyType({})
) -> str:
    """Write every key with its default, unit and meaning.

    The keys are commented out, so that what is in force is what the operator chose: a key that is set
    may mean more than its default value (``prediction_window_size``, ``*_gpus_per_instance``).

    Args:
        types: the configuration classes.
        advised: keys to set all the same, to a value better than the default, each with a word why.
    """
    lines = ["# sagescale configuration. Every key is shown with its default; remove '# ' to set it."]
    if advised:
        lines += [f"# Set here, to other than its default: {', '.join(advised)}."]
    for cls in types:
        lines += ["", f"# --- {_title(cls)}"]
        for key in declared(cls).values():
            lines += ["", *_comment(key)]
            if key.name in advised:
                value, why = advised[key.name]
                lines += [f"# default {yaml_text(key.default)}; {why}", f"{key.name}: {yaml_text(value)}"]
            else:
                lines += [f"# {key.name}: {yaml_text(key.default)}"]
    return "\n".join(lines) + "\n"


def resolved_yaml(values: Mapping[str, object], origins: Mapping[str, str], widest: int = 10**6) -> str:
    """Write values as a key file, with where each came from in a column at most ``widest`` to the right."""
    entries = [(f"{name}: {yaml_text(value)}", origins[name]) for name, value in values.items()]
    width = min(widest, max((len(entry) for entry, _ in entries), default=0))
    return "".join(f"{entry:<{width}}  # {origin}\n" for entry, origin in entries)


def json_schema(types: Sequence[type[Any]]) -> dict[str, object]:
    """Return the JSON schema (2020-12) of a key file that may hold the keys of all these classes."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sagescale configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": {key.name: _property(key) for cls in types for key in declared(cls).values()},
    }


def _title(cls: type[Any]) -> str:
    return (cls.__doc__ or cls.__name__).partition("\n")[0].partition(";")[0].rstrip(".")


def _comment(key: Setting) -> list[str]:
    unit = f" [{key.unit}]" if key.unit else ""
    about = textwrap.wrap(f"{key.doc}{unit}", 100, initial_indent="# ", subsequent_indent="# ")
    return [*about, f"# accepts {key.accepts()}"]


def _property(key: Setting) -> dict[str, object]:
    unit = f" [{key.unit}]" if key.unit else ""
    about = {"description": f"{key.doc}{unit}", "default": _json(key.default)}
    if key.parse is not None:
        return {**(key.schema or {}), **about}
    low = "exclusiveMinimum" if key.range.low_open else "minimum"
    high = "exclusiveMaximum" if key.range.high_open else "maximum"
    bounds = ((low, key.range.low), (high, key.range.high))
    number = {name: bound for name, bound in bounds if math.isfinite(bound)}
    if key.kind.json == "array":
        item = {"type": "number", **number}
        return {"type": "array", "prefixItems": [item, item], "minItems": 2, "maxItems": 2, **about}
    shape: dict[str, object] = {"type": [key.kind.json, "null"] if key.optional else key.kind.json, **number}
    if names := key.choice_names():
        shape["enum"] = [*names, None] if key.optional else list(names)
    return {**shape, **about}


def _json(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return [_json(item) for item in value] if isinstance(value, list | tuple) else str(value)
