"""Which prompts begin alike: the block ids of a trace as a tree."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

MOST_NODES = 1 << 28
"""Ids of all prompts, those that begin alike counted once: more than this is in no trace."""

_NO_ROW = np.iinfo(np.int32).max


def freeze(record: object, name: str) -> None:
    """Have a frozen record keep a read-only view of one of its columns."""
    view = getattr(record, name).view()
    view.setflags(write=False)
    object.__setattr__(record, name, view)


@dataclass(frozen=True, slots=True, eq=False)
class Prefixes:
    """Ids of a prompt's blocks lead from the root of a tree to its node; equal leading ids share their nodes.

    So memory is that of the prefixes that differ, 12 bytes for each id, 8 for each that occurs nowhere else,
    and 4 a request, however long the prompts. A *unit* is one id of the trace, numbered from 0 by first
    appearance; the same id behind different prefixes is the same unit at several nodes.

    Nodes are numbered by the first request that reaches them, and along its prompt: of equal trees all
    arrays are equal, parents come before their children, and what a request adds is one run of nodes.

    Attributes:
        block_tokens: tokens of an id, above 0; the last one of a prompt may cover fewer.
        leaf: int32[requests], node of each request's last id; -1 without ids.
        parent: int32[nodes], node before each; -1 at the root.
        unit: int32[nodes], the unit at each node.
        depth: int32[nodes], ids from the root to a node, its own included.
        ids: int64[units], what the trace calls each unit.
    """

    block_tokens: int
    leaf: NDArray[np.int32]
    parent: NDArray[np.int32]
    unit: NDArray[np.int32]
    depth: NDArray[np.int32]
    ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        if self.block_tokens < 1:
            raise ValueError("block_tokens must be at least 1")
        for name in ("leaf", "parent", "unit", "depth", "ids"):
            freeze(self, name)

    @classmethod
    def of(cls, ids: Iterable[Iterable[int]], block_tokens: int) -> Self:
        """Make the tree of lists of ids, one a request."""
        nodes: dict[tuple[int, int], int] = {}
        units: dict[int, int] = {}
        leaf: list[int] = []
        parent: list[int] = []
        unit: list[int] = []
        depth: list[int] = []
        for prompt in ids:
            node = -1
            for name in prompt:
                key = (node, units.setdefault(name, len(units)))
                if key not in nodes:
                    nodes[key] = len(parent)
                    depth.append(1 if node < 0 else depth[node] + 1)
                    parent.append(node)
                    unit.append(key[1])
                node = nodes[key]
            leaf.append(node)
        return cls(
            block_tokens,
            np.array(leaf, np.int32),
            np.array(parent, np.int32),
            np.array(unit, np.int32),
            np.array(depth, np.int32),
            np.array(list(units), np.int64),
        )

    @property
    def counts(self) -> NDArray[np.int32]:
        """Ids of each request, int32[requests]."""
        if not len(self.depth):
            return np.zeros(len(self.leaf), np.int32)
        return np.where(self.leaf < 0, np.int32(0), self.depth[self.leaf])

    def lists(self, start: int, end: int) -> NDArray[np.int64]:
        """What the trace calls the ids of requests ``start`` to before ``end``, one list after the other."""
        counts = self.counts[start:end].astype(np.int64)
        behind = np.cumsum(counts)
        found = np.empty(behind[-1], np.int64)
        node = self.leaf[start:end]
        place = behind - 1
        left = node >= 0
        while left.any():
            node, place = node[left], place[left]
            found[place] = self.ids[self.unit[node]]
            node, place = self.parent[node], place - 1
            left = node >= 0
        return found

    def with_leaf(self, leaf: NDArray[np.int32]) -> Self:
        """Return the tree of other requests, int32[requests] of nodes: without what they do not reach."""
        first = self._first_row(leaf)
        kept = np.flatnonzero(first < _NO_ROW)
        kept = kept[np.lexsort((self.depth[kept], first[kept]))]
        new = np.full(len(first) + 1, -1, np.int32)  # what is before the root stays -1
        new[kept] = np.arange(len(kept), dtype=np.int32)
        units, appeared, unit = np.unique(self.unit[kept], return_index=True, return_inverse=True)
        order = np.argsort(appeared)
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return replace(
            self,
            leaf=new[leaf],
            parent=new[self.parent[kept]],
            unit=rank[unit],
            depth=self.depth[kept],
            ids=self.ids[units[order]],
        )

    def with_copies(
        self, leaf: NDArray[np.int32], copy: NDArray[np.integer], shared: NDArray[np.bool_]
    ) -> Self:
        """Return the tree of requests some of which are copies, each of whose ids is one of its own.

        A copied conversation is not its own cache: ids of copy 1, 2, ... get names that no other id has,
        the same for all requests of one copy.

        Args:
            leaf: int32[requests], node of each request that was copied.
            copy: whole numbers, [requests]: which copy it is, 0 for what is no copy.
            shared: bool[units], those that are the same in all copies.
        """
        stays = shared[self.unit]
        if shared.any():
            for nodes, before in self._edges():
                stays[nodes] &= stays[before]
        fresh, own = np.flatnonzero(~stays), np.flatnonzero(~shared)
        numbers = np.arange(int(copy.max(initial=0)))[:, np.newaxis]

        parent = _own_number(self.parent[fresh], fresh, len(stays), numbers)
        unit = _own_number(self.unit[fresh], own, len(shared), numbers)
        moved = np.where(copy > 0, _own_number(leaf, fresh, len(stays), copy.astype(np.int64) - 1), leaf)
        return replace(
            self,
            parent=np.concatenate([self.parent, parent.ravel()]).astype(np.int32),
            unit=np.concatenate([self.unit, unit.ravel()]).astype(np.int32),
            depth=np.concatenate([self.depth, *[self.depth[fresh]] * len(numbers)]),
            ids=np.concatenate([self.ids, _other_ids(self.ids, len(numbers) * len(own))]),
        ).with_leaf(moved.astype(np.int32))

    def shared_units(self, session_id: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Tell which units occur in several sessions, bool[units].

        Args:
            session_id: int32[requests], the session of each.
        """
        lowest, highest = self._extremes(session_id)
        unit_lowest = np.full(len(self.ids), _NO_ROW, np.int32)
        unit_highest = np.full(len(self.ids), -1, np.int32)
        np.minimum.at(unit_lowest, self.unit, lowest)
        np.maximum.at(unit_highest, self.unit, highest)
        return unit_lowest < unit_highest

    def _extremes(self, session_id: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The lowest and the highest session that reaches each node, int32[nodes] each."""
        lowest = np.full(len(self.parent), _NO_ROW, np.int32)
        highest = np.full(len(self.parent), -1, np.int32)
        rows = np.flatnonzero(self.leaf >= 0)
        np.minimum.at(lowest, self.leaf[rows], session_id[rows])
        np.maximum.at(highest, self.leaf[rows], session_id[rows])
        for nodes, before in reversed(list(self._edges())):
            np.minimum.at(lowest, before, lowest[nodes])
            np.maximum.at(highest, before, highest[nodes])
        return lowest, highest

    def hits(self) -> NDArray[np.int32]:
        """Leading ids of each request that an earlier one also had: what a cache without end would find."""
        first_row = self._first_row(self.leaf)
        first = np.full(len(self.ids), _NO_ROW, np.int32)
        np.minimum.at(first, self.unit, first_row)
        # When the last of a node's leading ids was first seen.
        seen = first[self.unit]
        for nodes, before in self._edges():
            seen[nodes] = np.maximum(seen[nodes], seen[before])
        rows = np.flatnonzero(self.leaf >= 0)
        node = self.leaf.copy()
        while len(rows):
            rows = rows[seen[node[rows]] >= rows]
            node[rows] = self.parent[node[rows]]
            rows = rows[node[rows] >= 0]
        return replace(self, leaf=node).counts

    def _first_row(self, leaf: NDArray[np.int32]) -> NDArray[np.int32]:
        """The first request that reaches each node, int32[nodes]."""
        first = np.full(len(self.parent), _NO_ROW, np.int32)
        rows = np.flatnonzero(leaf >= 0)
        first[leaf[rows[::-1]]] = rows[::-1]  # the last assignment stands
        for nodes, before in reversed(list(self._edges())):
            np.minimum.at(first, before, first[nodes])
        return first

    def _edges(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        """The nodes of each depth from 2 on with the nodes before them, those nearest to the root first."""
        order = np.argsort(self.depth, kind="stable")
        ends = np.cumsum(np.bincount(self.depth, minlength=2))[1:]
        deeper = (order[start:end] for start, end in itertools.pairwise(ends))
        return ((nodes, self.parent[nodes]) for nodes in deeper)


def _own_number(
    old: NDArray[np.int32], own: NDArray[np.int64], of: int, copy: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number what is a copy's own behind all ``of`` there are, copy by copy from 0; the rest stays."""
    rank = np.full(of + 1, -1, np.int64)  # what is before the root stays -1
    rank[own] = np.arange(len(own))
    return np.where(rank[old] < 0, old, of + copy * len(own) + rank[old])


def _other_ids(ids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The least ``count`` numbers from 0 that are no ids; behind them all where ids are 0, 1, 2, ..."""
    return np.setdiff1d(np.arange(len(ids) + count), ids, assume_unique=True)[:count]
