"""Choosing one of a source's configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sagescale.perf.measurement import Measurement

__all__ = ["Wanted", "choose"]

_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user says of the configuration to import; ``""`` and None say nothing.

    Model and GPU match whole or in part, in any case; ``config`` matches a part of what else tells
    configurations apart.
    """

    model: str = ""
    gpu: str = ""
    tensor_parallel: int | None = None
    config: str = ""


def choose(path: Path, found: Sequence[Measurement], wanted: Wanted) -> Measurement:
    """Return the configuration wanted.

    Only what tells the source's configurations apart chooses: on a source of one model, ``wanted.model`` is a
    label. Raises InputError listing the configurations when none or more than one is left.
    """
    by_text: tuple[tuple[str, str, Callable[[Measurement], str]], ...] = (
        ("--model", wanted.model, lambda one: one.model),
        ("--gpu", wanted.gpu, lambda one: one.gpu),
        ("--config", wanted.config, lambda one: one.variant),
    )
    left = list(found)
    for option, word, says in by_text:
        if word and (option == "--config" or len({says(one) for one in found}) > 1):
            whole = [one for one in left if says(one).casefold() == word.casefold()]
            left = whole or [one for one in left if word.casefold() in says(one).casefold()]
    if wanted.tensor_parallel is not None:
        # A source that does not say its tensor parallelism is told it.
        left = [one for one in left if one.tensor_parallel in {None, wanted.tensor_parallel}]
    if len(left) == 1:
        return left[0]
    given = [*((option, word) for option, word, _ in by_text), ("--tp", wanted.tensor_parallel)]
    asked = " ".join(f"{option} {word}" for option, word in given if word)
    known = _listed(found, left or found)
    if left:
        raise InputError(f"{path}: {len(left)} configurations (choose one of: {known})")
    raise InputError(f"{path}: no configuration with {asked} (expected one of: {known})")


def _listed(found: Sequence[Measurement], shown: Sequence[Measurement]) -> str:
    words = list(dict.fromkeys(_words(one, found) for one in shown))
    more = f"; and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    return ", ".join(words[:_LISTED]) + more


def _words(one: Measurement, found: Sequence[Measurement]) -> str:
    """Return the options that tell this configuration from the others."""
    mine = (("--model", one.model), ("--gpu", one.gpu), ("--tp", one.tensor_parallel))
    words = [
        f"{option} {_quoted(str(value))}"
        for index, (option, value) in enumerate(mine)
        if value and len({_identity(other)[index] for other in found}) > 1
    ]
    twins = [other for other in found if _identity(other) == _identity(one)]
    if len(twins) > 1 and one.variant:
        words.append(f"--config {_quoted(one.variant)}")
    return " ".join(words) or f"--tp {one.tensor_parallel}"


def _identity(one: Measurement) -> tuple[str, str, int | None]:
    return one.model, one.gpu, one.tensor_parallel


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text
