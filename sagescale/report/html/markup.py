"""HTML that cannot be broken out of: whatever is not made here is text, and is escaped."""

from __future__ import annotations

import html
import json

__all__ = ["Markup", "data", "element", "join"]

_VOID = frozenset({"meta", "br"})


class Markup(str):
    """Finished HTML. Anything else given to :func:`element` is text."""

    __slots__ = ()


def element(tag: str, /, *children: str | None, **attributes: str | float | bool | None) -> Markup:
    """Build an element.

    Args:
        tag: its name.
        children: Markup as it is, text escaped, None left out.
        attributes: a trailing underscore is dropped, others become hyphens; None and False are left out,
            True is an attribute without a value.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_text(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    start = f"<{tag}{written}>"
    return Markup(start if tag in _VOID else f"{start}{join(*children)}</{tag}>")


def join(*children: str | None) -> Markup:
    """Put children one after the other, text among them escaped."""
    given = (child for child in children if child is not None)
    return Markup("".join(child if isinstance(child, Markup) else _text(child) for child in given))


def data(name: str, value: object) -> Markup:
    """Embed a value as JSON that no HTML parser looks into; the page's scripts read it by its id.

    Raises:
        ValueError: a number in it is not finite.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(f'<script type="application/json" id="{_text(name)}">{text}</script>\n')


def _text(text: str) -> str:
    # What cannot be printed cannot be encoded either: lone surrogates of odd file names.
    return html.escape("".join(char if char.isprintable() else "?" for char in text))
