"""Prompts that begin alike: each with one of a few beginnings, such as the system prompts of applications."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.trace.prefixes import MOST_NODES, Prefixes

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_TOKENS = 16
"""What an id covers: the block of vLLM and others."""


def shared_prefixes(isl: NDArray[np.int32], groups: int, tokens: int, rng: np.random.Generator) -> Prefixes:
    """Draw each prompt's beginning from ``groups`` equally likely ones of ``tokens`` tokens.

    A prompt has an id for each full block of its beginning, as far as it is long enough; what follows is its
    own, has no ids, and is never found again.

    Raises:
        InputError: no group, a beginning of less than a block or longer than every prompt, or more blocks
            than can be.
    """
    groups, tokens = check_beginnings(groups, tokens)
    check_room(isl, tokens)
    blocks = tokens // BLOCK_TOKENS
    node = np.arange(groups * blocks, dtype=np.int32)
    depth = np.tile(np.arange(1, blocks + 1, dtype=np.int32), groups)
    parent = np.where(depth == 1, np.int32(-1), node - 1)
    held = np.minimum(isl // BLOCK_TOKENS, blocks)
    leaf = np.where(held, rng.integers(groups, size=len(isl)) * blocks + held - 1, -1).astype(np.int32)
    whole = Prefixes(BLOCK_TOKENS, leaf, parent, node, depth, node.astype(np.int64))
    return whole.with_leaf(leaf)


def check_beginnings(groups: int, tokens: int) -> tuple[int, int]:
    """Return the two as they are; refuse what makes no beginnings.

    Raises:
        InputError: no group, a beginning of less than a block, or more blocks than can be.
    """
    if groups < 1:
        raise InputError(f"--prefix-groups {groups}: expected a whole number, 1 or more")
    if tokens < BLOCK_TOKENS:
        raise InputError(f"--prefix-tokens {tokens}: expected {BLOCK_TOKENS} or more, a block")
    blocks = tokens // BLOCK_TOKENS
    if groups * blocks > MOST_NODES:
        raise InputError(
            f"--prefix-groups {groups}: makes {groups * blocks} blocks with --prefix-tokens {tokens}; "
            f"expected at most {MOST_NODES:,}"
        )
    return groups, tokens


def check_room(isl: NDArray[np.int32] | NDArray[np.int64], tokens: int) -> None:
    """Refuse beginnings of which no prompt has room for one.

    Raises:
        InputError: a beginning is longer than the longest prompt.
    """
    longest = int(isl.max())
    if tokens > longest:
        raise InputError(
            f"--prefix-tokens {tokens}: is longer than every prompt; expected at most the {longest} "
            "tokens of the longest one"
        )
