"""Secrets come from a file or the environment, and never print."""

from __future__ import annotations

import json
import os
from urllib.parse import quote

from sagescale.errors import InputError, one_line
from sagescale.files import read_input_text

_LEAST_LETTERS = 3
"""A shorter secret is none, and hiding it would garble every message."""

_MOST_BYTES = 65_536
_KEPT = 64
"""Secrets remembered so that they can be hidden: those in use and, as they rotate, the last ones."""

_known: dict[str, None] = {}


class Secret:
    """A text that shows as ``***`` wherever it is printed, logged or formatted."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) >= _LEAST_LETTERS:
            _known.setdefault(text)
            for old in list(_known)[:-_KEPT]:
                _known.pop(old, None)

    def reveal(self) -> str:
        """Return the text, for the one place that sends it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written anywhere")


def without_secrets(text: str) -> str:
    """Return a text with ``***`` for every secret read so far, also as JSON, a URL or Python writes it.

    A server may send back what it was sent, and what it sends back is shown and stored.
    """
    forms = {
        form
        for known in tuple(_known)
        for form in (known, json.dumps(known)[1:-1], quote(known), quote(known, safe=""), repr(known)[1:-1])
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def read_secret(key: str, file: str | None, env: str | None) -> Secret | None:
    """Read the secret that ``key_file``, ``--key-file`` or ``key_env`` names; ``None`` where none is given.

    The file is read on every call, so that a rotated token is picked up.

    Raises:
        InputError: both are given, or the one given holds nothing; the text itself is never in the message.
    """
    if file is not None and env is not None:
        raise InputError(f"{key}_file and {key}_env are both given; expected one of them")
    if env is not None:
        text = os.environ.get(env, "").strip()
        if not text:
            raise InputError(f"{key}_env is {env}, which is not set; expected it in the environment")
        return Secret(text)
    if file is None:
        return None
    named = f"{key}-file" if key.startswith("--") else f"{key}_file"
    try:
        text = read_input_text(file, "text", _MOST_BYTES).strip()
    except InputError as error:
        raise InputError(f"{named}: {error}; expected one line with the secret") from None
    if not text or "\n" in text:
        raise InputError(f"{named}: {file}: expected one line with the secret")
    return Secret(text)


def foreign_text(text: object, most: int = 300) -> str:
    """Return a text as one printable line of at most ``most`` characters, without any secret of ours.

    Control, escape and text-direction characters become ``?``. Bytes are read as UTF-8. Secrets go first: a
    cut may not leave the beginning of one.
    """
    if isinstance(text, bytes | bytearray):
        text = text.decode("utf-8", "replace")
    return one_line(without_secrets(str(text)), most)
