"""Prefix ids of prompts into a tree, some rows at a time: the lists are never in memory together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sagescale.compiling import compiler
from sagescale.errors import InputError
from sagescale.trace.prefixes import MOST_NODES, Prefixes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_compiled = compiler("prefixes", (Path(__file__),))

_FIRST_ROOM = 1024

_IDS_AT_ONCE = 1 << 20


class PrefixBuilder:
    """Grows a tree. While it does it takes about 40 bytes a node and as many a unit, at most twice that.

    Two tables find a node by its parent and unit, and a unit by its id: open addressing, at most half full.
    Most ids need neither: they follow where an earlier prompt with the same beginning went.

    Attributes:
        block_tokens: tokens of an id.
        name: of the file, for messages.
        rows: prompts taken.
    """

    def __init__(self, block_tokens: int, name: str) -> None:
        self.block_tokens = block_tokens
        self.name = name
        self.rows = 0
        self._parent, self._unit, self._depth = (np.empty(_FIRST_ROOM, np.int32) for _ in range(3))
        self._ids = np.empty(_FIRST_ROOM, np.int64)
        self._node_at, self._unit_at = (np.full(2 * _FIRST_ROOM, -1, np.int32) for _ in range(2))
        self._sizes = np.zeros(2, np.int64)

    def add(self, offsets: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Take more prompts.

        Args:
            offsets: int64[rows + 1], where the ids of each begin and end.
            ids: int64, of all of them.

        Returns:
            The node of each one's last id, int32[rows]; -1 of one without ids.

        Raises:
            InputError: more than 2^28 prefixes that differ.
        """
        leaf = np.empty(len(offsets) - 1, np.int32)
        self.rows += len(leaf)
        row = 0
        while True:
            row = _add(
                row,
                offsets,
                ids,
                leaf,
                (self._parent, self._unit, self._depth, self._ids),
                (self._node_at, self._unit_at),
                self._sizes,
            )
            if row == len(leaf):
                return leaf
            self._grow(int(offsets[row + 1] - offsets[row]))

    def add_tokens(self, offsets: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int32]:
        """Take prompts by their tokens, as ``add`` takes ids: an id for each full block of them.

        It is a hash of 64 bits of all tokens up to the block's end, as engines have it.
        """
        starts = np.concatenate([[0], np.cumsum(np.diff(offsets) // self.block_tokens)])
        ids = np.empty(starts[-1], np.int64)
        _hash_blocks(offsets, tokens, starts, ids, self.block_tokens)
        return self.add(starts, ids)

    def add_runs(self, offsets: NDArray[np.int64], runs: NDArray[np.int64]) -> NDArray[np.int32]:
        """Take prompts whose ids come in runs, as ``add`` takes ids; few at a time are written out.

        Args:
            offsets: int64[rows + 1], where the runs of each begin and end.
            runs: int64[runs, 2], first id and length of each: 7, 3 are the ids 7, 8, 9.
        """
        ids_before = np.concatenate([[0], np.cumsum(runs[:, 1])])[offsets]
        leaves = []
        row = 0
        while row < len(offsets) - 1:
            behind = int(np.searchsorted(ids_before, ids_before[row] + _IDS_AT_ONCE, side="right")) - 1
            end = max(behind, row + 1)
            first, length = runs[offsets[row] : offsets[end]].T
            starts = np.cumsum(length) - length
            ids = np.arange(int(length.sum())) + np.repeat(first - starts, length)
            leaves.append(self.add(ids_before[row : end + 1] - ids_before[row], ids))
            row = end
        return np.concatenate(leaves)

    @property
    def next_id(self) -> int:
        """One more than the highest id so far."""
        return int(self._ids[: self._sizes[1]].max(initial=-1)) + 1

    def counts(self, leaf: NDArray[np.int32]) -> NDArray[np.int32]:
        """How many ids lead to each node that ``add`` returned."""
        return np.where(leaf < 0, np.int32(0), self._depth[leaf])

    def finish(self, leaf: NDArray[np.int32]) -> Prefixes:
        """Return the tree of all prompts taken, given the nodes that ``add`` returned, in order."""
        nodes, units = self._sizes.tolist()
        return Prefixes(
            self.block_tokens,
            leaf,
            self._parent[:nodes].copy(),
            self._unit[:nodes].copy(),
            self._depth[:nodes].copy(),
            self._ids[:units].copy(),
        )

    def _grow(self, more: int) -> None:
        """Make room for one more prompt of so many ids."""
        nodes, units = self._sizes.tolist()
        if nodes + more > len(self._parent):
            room = max(2 * len(self._parent), _power_of_two(nodes + more))
            if room > MOST_NODES:
                raise InputError(
                    f"{self.name}: more than {MOST_NODES} blocks of {self.block_tokens} tokens; "
                    "expected at most that, at 40 bytes of memory each: read part of it"
                )
            self._parent, self._unit, self._depth = (
                np.concatenate([column[:nodes], np.empty(room - nodes, np.int32)])
                for column in (self._parent, self._unit, self._depth)
            )
            self._node_at = np.full(2 * room, -1, np.int32)
            _place_nodes(self._node_at, self._parent[:nodes], self._unit[:nodes])
        if units + more > len(self._ids):
            room = max(2 * len(self._ids), _power_of_two(units + more))
            self._ids = np.concatenate([self._ids[:units], np.empty(room - units, np.int64)])
            self._unit_at = np.full(2 * room, -1, np.int32)
            _place_units(self._unit_at, self._ids[:units])


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


@_compiled
def _mixed(low: int, high: int) -> np.uint64:
    """Mix two numbers into 64 bits: the finish of MurmurHash3."""
    x = np.uint64(low) ^ (np.uint64(high) * np.uint64(0x9E3779B97F4A7C15))
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    x ^= x >> np.uint64(33)
    return x


@_compiled
def _slot(low: int, high: int, slots: int) -> np.int64:
    """Where in a table of a power of two of slots to look first."""
    return np.int64(_mixed(low, high) & np.uint64(slots - 1))


@_compiled
def _hash_blocks(
    offsets: NDArray[np.int64],
    tokens: NDArray[np.int64],
    starts: NDArray[np.int64],
    ids: NDArray[np.int64],
    block: int,
) -> None:
    for row in range(len(offsets) - 1):
        code = np.int64(0)
        for block_number in range(starts[row + 1] - starts[row]):
            first = offsets[row] + block_number * block
            for place in range(first, first + block):
                code = np.int64(_mixed(tokens[place], code))
            ids[starts[row] + block_number] = code


@_compiled
def _place_nodes(table: NDArray[np.int32], parent: NDArray[np.int32], unit: NDArray[np.int32]) -> None:
    for node in range(len(parent)):
        at = _slot(unit[node], parent[node], len(table))
        while table[at] >= 0:
            at = (at + 1) & (len(table) - 1)
        table[at] = node


@_compiled
def _place_units(table: NDArray[np.int32], ids: NDArray[np.int64]) -> None:
    for unit in range(len(ids)):
        at = _slot(ids[unit], 0, len(table))
        while table[at] >= 0:
            at = (at + 1) & (len(table) - 1)
        table[at] = unit


@_compiled
def _add(
    row: int,
    offsets: NDArray[np.int64],
    given: NDArray[np.int64],
    leaf: NDArray[np.int32],
    tree: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]],
    tables: tuple[NDArray[np.int32], NDArray[np.int32]],
    sizes: NDArray[np.int64],
) -> int:
    """Take rows from ``row`` on while there is room for all that they could add; return the next one."""
    parent, unit, depth, ids = tree
    node_at, unit_at = tables
    nodes, units = sizes
    while row < len(leaf):
        start, end = offsets[row], offsets[row + 1]
        if nodes + end - start > len(parent) or units + end - start > len(ids):
            break
        node = -1
        for place in range(start, end):
            name = given[place]
            follows = node + 1
            if follows < nodes and parent[follows] == node and ids[unit[follows]] == name:
                node = follows
                continue
            at = _slot(name, 0, len(unit_at))
            while unit_at[at] >= 0 and ids[unit_at[at]] != name:
                at = (at + 1) & (len(unit_at) - 1)
            if unit_at[at] < 0:
                unit_at[at] = units
                ids[units] = name
                units += 1
            this = unit_at[at]
            at = _slot(this, node, len(node_at))
            while node_at[at] >= 0 and (parent[node_at[at]] != node or unit[node_at[at]] != this):
                at = (at + 1) & (len(node_at) - 1)
            if node_at[at] < 0:
                node_at[at] = nodes
                parent[nodes], unit[nodes] = node, this
                depth[nodes] = 1 if node < 0 else depth[node] + 1
                nodes += 1
            node = node_at[at]
        leaf[row] = node
        row += 1
    sizes[0], sizes[1] = nodes, units
    return row
