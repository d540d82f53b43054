"""What others say (error bodies, labels, headers, exceptions) before it is shown or written down."""

from __future__ import annotations

from sagescale.errors import one_line
from sagescale.live.secret import without_secrets


def foreign_text(text: object, most: int = 300) -> str:
    """Return a text as one printable line of at most ``most`` characters, without any secret of ours.

    Control, escape and text-direction characters become ``?``. Bytes are read as UTF-8. Secrets go first: a
    cut may not leave the beginning of one.
    """
    if isinstance(text, bytes | bytearray):
        text = text.decode("utf-8", "replace")
    return one_line(without_secrets(str(text)), most)
