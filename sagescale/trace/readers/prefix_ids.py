"""Prefix ids of a file: how many tokens each covers, and whether the prompts are long enough for theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.trace.readers.containers import READ, refuse_cell
from sagescale.trace.readers.fields import TOKENS, Field
from sagescale.trace.trace import most_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sagescale.trace.prefix_builder import PrefixBuilder
    from sagescale.trace.source import Head, Source

BLOCK_TOKENS = "hash_block_tokens"
"""The key of a Parquet schema's metadata, or the column, that says how many tokens an id covers."""

_LEAST_COVERED, _ENOUGH_PROMPTS = 0.7, 100


def block_tokens(
    files: Sequence[tuple[Source, Head]],
    asked: int | None,
    usual: int,
    stated_by: Callable[[Source, Head], int],
) -> int:
    """Return how many tokens an id of these files covers: as they state, as asked for, or as is usual.

    Args:
        files: each has ids.
        asked: what ``--hash-block-tokens`` says; None when it was not given.
        usual: of the format; 0 where there is no usual one.
        stated_by: tells what a file says; 0 when it does not.

    Raises:
        InputError: none of them says it, or two say different things.
    """
    found = asked or 0
    for source, head in files:
        tokens = stated_by(source, head)
        if tokens and found and tokens != found:
            other = f"--hash-block-tokens {asked}" if asked else f"those of {files[0][0].path} of {found}"
            raise InputError(
                f"{source.path}: prefix ids are of {tokens} tokens, and {other}; expected one size of block"
            )
        found = tokens or found
    found = found or usual
    if not found:
        raise InputError(
            f"{files[0][0].path}: has prefix ids and does not say how many tokens each covers; expected "
            f"--hash-block-tokens N, e.g. 16"
        )
    return found


def stated(source: Source, head: Head) -> int:
    """Return what the file says itself, in its schema or in every row; else 0."""
    if head.container != "parquet":
        return 0
    if head.block_tokens is not None:
        if not head.block_tokens.isdecimal() or not 0 < int(head.block_tokens) < 1 << 31:
            raise InputError(
                f"{source.path}: schema's {BLOCK_TOKENS}: found '{head.block_tokens}', expected a whole "
                f"number of tokens above 0"
            )
        return int(head.block_tokens)
    if BLOCK_TOKENS not in head.columns:
        return 0
    values = READ["parquet"](source, head, (Field(BLOCK_TOKENS, TOKENS),), None)[BLOCK_TOKENS]
    odd = np.flatnonzero((values != values[:1]) | (values == 0))
    if len(odd):
        expected = "one whole number of tokens above 0 in all rows"
        refuse_cell(source, f"row {odd[0] + 1}", BLOCK_TOKENS, values[odd[0]].item(), expected)
    return int(values[0]) if len(values) else 0


def check_ids(
    source: Source,
    head: Head,
    column: str,
    isl: NDArray[np.int32],
    leaf: NDArray[np.int32],
    builder: PrefixBuilder,
) -> None:
    """Refuse a prompt with more ids than it has blocks.

    Raises:
        InputError: naming the line.
    """
    counts = builder.counts(leaf)
    excess = (counts > most_ids(isl, builder.block_tokens)) & (isl > 0)
    if excess.any():
        row = int(excess.argmax())
        raise InputError(
            f"{source.path}: {source.place(head, row)}, column '{column}': found {counts[row]} ids for "
            f"{isl[row]} prompt tokens, expected at most {most_ids(isl, builder.block_tokens)[row]} of "
            f"{builder.block_tokens} tokens each; of other blocks say --hash-block-tokens N"
        )


def coverage_warning(
    isl: NDArray[np.int32], leaf: NDArray[np.int32], builder: PrefixBuilder
) -> tuple[str, ...]:
    """Say where ids cover much less than their prompts: perhaps each covers more than is usual."""
    counts = builder.counts(leaf)
    with_ids = counts > 0
    if int(with_ids.sum()) < _ENOUGH_PROMPTS:
        return ()
    covered = int(counts.sum(dtype=np.int64)) * builder.block_tokens
    tokens = int(isl[with_ids].sum(dtype=np.int64))
    if covered >= _LEAST_COVERED * tokens:
        return ()
    note = (
        f"prefix ids of {builder.block_tokens} tokens cover {covered / tokens:.0%} of their prompts' tokens; "
        f"of larger blocks say --hash-block-tokens N"
    )
    return (note,)
