"""Prefix ids as a tree: what goes in comes out, shared, whatever is done to the requests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.trace import Prefixes, Trace, rate_scale, slice_trace, speed_up, tile
from trace_strategies import id_lists

FIELDS = ("leaf", "parent", "unit", "depth", "ids")


def lists(prefixes: Prefixes) -> list[list[int]]:
    return [prefixes.lists(row, row + 1).tolist() for row in range(len(prefixes.leaf))]


def same(a: Prefixes, b: Prefixes) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@given(id_lists())
def test_a_tree_holds_the_lists_it_was_made_of(ids):
    made = Prefixes.of(ids, 16)
    assert lists(made) == ids
    assert made.counts.tolist() == [len(one) for one in ids]
    # Equal leading ids share their nodes.
    assert len(made.parent) == len({tuple(one[:n]) for one in ids for n in range(1, len(one) + 1)})
    assert len(made.ids) == len({name for one in ids for name in one})
    assert (made.parent < np.arange(len(made.parent))).all()


@given(id_lists(), st.data())
def test_the_tree_of_some_requests_is_the_tree_of_their_lists(ids, data):
    rows = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1))
    made = Prefixes.of(ids, 16)
    assert same(made.with_leaf(made.leaf[rows]), Prefixes.of([ids[row] for row in rows], 16))


@given(id_lists(), st.data())
def test_copies_have_ids_of_their_own_but_for_those_that_are_shared(ids, data):
    made = Prefixes.of(ids, 16)
    rows = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1))
    copies = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    common = data.draw(st.sets(st.integers(0, 7)))
    shared = np.isin(made.ids, list(common))
    found = made.with_copies(made.leaf[rows], np.array(copies), shared)
    named: dict[int, tuple[int, int]] = {}
    plain = []
    for row, copy, got in zip(rows, copies, lists(found), strict=True):
        assert len(got) == len(ids[row])
        for name, new in zip(ids[row], got, strict=True):
            whose = (0 if name in common else copy, name)
            # One name is one id of one copy, and the originals keep theirs.
            assert named.setdefault(new, whose) == whose
            assert whose[0] or new == name
        plain.append(got)
    assert len(set(named.values())) == len(named)
    assert same(found, Prefixes.of(plain, 16))


@given(id_lists())
def test_a_hit_is_a_leading_id_that_an_earlier_prompt_had(ids):
    seen: set[int] = set()
    expected = []
    for one in ids:
        expected.append(next((n for n, name in enumerate(one) if name not in seen), len(one)))
        seen.update(one)
    assert Prefixes.of(ids, 16).hits().tolist() == expected


def test_a_trace_refuses_more_ids_than_its_prompts_have_blocks():
    Trace.from_arrays([0, 1], [33, 5], [1, 1], prefixes=Prefixes.of([[1, 2, 3], []], 16))
    with pytest.raises(ValueError, match="at most ceil"):
        Trace.from_arrays([0, 1], [32, 5], [1, 1], prefixes=Prefixes.of([[1, 2, 3], []], 16))


def test_ids_follow_their_requests_into_the_order_of_arrival():
    trace = Trace.from_arrays([5, 0], [33, 50], [1, 1], prefixes=Prefixes.of([[1, 2], [1, 4, 3]], 16))
    assert lists(trace.prefixes) == [[1, 4, 3], [1, 2]]
    assert trace.sha256 != Trace.from_arrays([0, 5], [50, 33], [1, 1]).sha256


def test_copies_of_a_trace_do_not_hit_each_other():
    trace = Trace.from_arrays([0, 1, 2], [64] * 3, [1] * 3, prefixes=Prefixes.of([[1, 2], [1, 3], [9]], 16))
    for made in (tile(trace, 3), rate_scale(trace, 3, jitter_s=0.1)):
        found = lists(made.prefixes)
        first = [ids[0] for ids in found]
        assert len(found) == 9
        assert sorted(first.count(name) for name in set(first)) == [1, 1, 1, 2, 2, 2]
    assert lists(rate_scale(trace, 0.7).prefixes) == [[1, 2], [9]]
    assert lists(slice_trace(trace, 1, 9).prefixes) == [[1, 3], [9]]
    assert lists(speed_up(trace, 2).prefixes) == lists(trace.prefixes)
