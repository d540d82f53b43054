"""The prefix cache of an engine (ENGINES.md 4): which leading tokens are there, and what goes first.

A unit is one id of the trace on one instance: an entry, chained with those of the same id elsewhere, so that
the router finds all instances at once. What a pre-empted request leaves behind are entries of its own,
stretches of blocks. Entries that nobody holds are idle, in the order in which they were let go. The ids of a
prompt are the way from the root of a tree to its node; along a stretch of nodes that follow one another
nothing is looked up.
"""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.state import State


@inlined
def _ids(s: State, request: int) -> int:
    """How many ids a prompt has."""
    leaf = s.stepped.requests[request].leaf
    return np.int64(s.stepped.nodes[leaf].depth) if leaf >= 0 else np.int64(0)


@inlined
def _blocks_an_id(s: State, slot: int) -> int:
    pool = s.pools[s.instances[slot].pool]
    return np.int64(s.services[pool.service].unit_tokens) // pool.block_tokens


@inlined
def _full_blocks(s: State, slot: int, request: int) -> int:
    """How many full blocks a prompt has."""
    return np.int64(s.isl[request]) // s.pools[s.instances[slot].pool].block_tokens


@inlined
def _end(ids: int, each: int, full: int) -> int:
    """The block after the last full one of so many leading ids; a prompt's last one may have fewer."""
    return min(ids * each, full)


@inlined
def _path(s: State, request: int) -> int:
    """Write the stretches that lead to a prompt's node, the last first; how many they are."""
    x = s.stepped
    node = np.int64(x.requests[request].leaf)
    stretches = 0
    while node >= 0:
        x.path[2 * stretches] = x.nodes[node].stretch
        x.path[2 * stretches + 1] = node
        node = np.int64(x.nodes[x.nodes[node].stretch].parent)
        stretches += 1
    return stretches


@inlined
def _entry(s: State, unit: int, slot: int) -> int:
    """The entry of a unit on an instance; -1 where it is not cached there."""
    x = s.stepped
    entry = np.int64(x.first_entry[unit])
    while entry >= 0 and x.entries[entry].slot != slot:
        entry = np.int64(x.entries[entry].chain)
    return entry


@inlined
def _unlink(s: State, slot: int, entry: int) -> None:
    """An idle entry is idle no longer."""
    x = s.stepped
    e = x.engines[slot]
    one = x.entries[entry]
    if one.older >= 0:
        x.entries[one.older].newer = one.newer
    else:
        e.oldest_idle = one.newer
    if one.newer >= 0:
        x.entries[one.newer].older = one.older
    else:
        e.newest_idle = one.older
    e.idle -= one.blocks


@inlined
def _becomes_idle(s: State, slot: int, entry: int) -> None:
    x = s.stepped
    e = x.engines[slot]
    one = x.entries[entry]
    one.older = e.newest_idle
    one.newer = -1
    if e.newest_idle >= 0:
        x.entries[e.newest_idle].newer = entry
    else:
        e.oldest_idle = entry
    e.newest_idle = entry
    e.idle += one.blocks


@inlined
def _new_entry(s: State, slot: int, blocks: int) -> int:
    x = s.stepped
    entry = np.int64(s.progress[0].free_entry)
    one = x.entries[entry]
    s.progress[0].free_entry = one.chain
    s.progress[0].free_entries -= 1
    one.slot = slot
    one.born = s.services[s.pools[s.instances[slot].pool].service].looks
    one.blocks = blocks
    one.holders = 0
    return entry


@compiled
def _remove(s: State, entry: int) -> None:
    """An entry that is neither held nor idle is there no longer."""
    x = s.stepped
    one = x.entries[entry]
    first = x.first_entry[one.unit] if one.unit >= 0 else x.requests[one.request].own
    at = np.int64(first)
    if at != entry:
        while x.entries[at].chain != entry:
            at = np.int64(x.entries[at].chain)
        x.entries[at].chain = one.chain
    elif one.unit >= 0:
        x.first_entry[one.unit] = one.chain
    else:
        x.requests[one.request].own = one.chain
    one.chain = s.progress[0].free_entry
    one.slot = -1
    s.progress[0].free_entry = entry
    s.progress[0].free_entries += 1


@compiled
def evict(s: State, slot: int) -> None:
    """What was let go longest ago makes room: a unit as a whole, a request's own blocks from their end."""
    x = s.stepped
    e = x.engines[slot]
    blocks = s.pools[s.instances[slot].pool].blocks
    while e.used + e.idle > blocks:
        entry = np.int64(e.oldest_idle)
        one = x.entries[entry]
        over = e.used + e.idle - blocks
        if one.unit < 0 and one.blocks > over:
            one.blocks -= over
            e.idle -= over
        else:
            _unlink(s, slot, entry)
            _evicted(s, slot, entry)


@inlined
def _evicted(s: State, slot: int, entry: int) -> None:
    """A router that looks now and then goes on seeing what was there when it looked."""
    e = s.stepped.engines[slot]
    one = s.stepped.entries[entry]
    if one.unit >= 0 and one.born < s.services[s.pools[s.instances[slot].pool].service].looks:
        one.slot = -1 - slot
        one.newer = e.gone
        e.gone = entry
    else:
        _remove(s, entry)


@compiled
def forget_gone(s: State, slot: int) -> None:
    """The router looks again, or the instance is gone: what has been evicted is there for nobody."""
    x = s.stepped
    e = x.engines[slot]
    while e.gone >= 0:
        entry = np.int64(e.gone)
        e.gone = x.entries[entry].newer
        _remove(s, entry)


@inlined
def _own_from(s: State, request: int, block: int) -> int:
    """How many blocks a request left behind from this one on, without a gap in their entry."""
    x = s.stepped
    entry = np.int64(x.requests[request].own)
    while entry >= 0:
        one = x.entries[entry]
        if one.first <= block < one.first + one.blocks:
            return np.int64(one.first + one.blocks - block)
        entry = np.int64(one.chain)
    return np.int64(0)


@compiled
def look_up(s: State, slot: int, request: int, known: int, member: int) -> tuple[int, int, int]:
    """Find the leading blocks of a request that need not be computed; with a member (else -1) hold them.

    Returns:
        The blocks; how many of them are shared; and how many blocks of what is hit are idle, whole units.
    """
    x = s.stepped
    e = x.engines[slot]
    most = (known - 1) // s.pools[s.instances[slot].pool].block_tokens  # at least one token is computed
    ids = _ids(s, request)
    each, full = _blocks_an_id(s, slot), _full_blocks(s, slot, request)
    found = np.int64(0)
    shared = np.int64(0)
    idle = np.int64(0)
    end = np.int64(0)
    back = _path(s, request) - 1 if ids > 0 else -1
    node = np.int64(x.path[2 * back]) if back >= 0 else np.int64(-1)
    number = np.int64(0)  # of the next id
    own_id = np.int64(-1)  # whose blocks so far are its own
    while found < most:
        entry = np.int64(-1)
        at_id = number < ids and found == number * each
        if at_id:
            own_id = np.int64(-1)
            end = _end(number + 1, each, full)
            if end > found:
                entry = _entry(s, np.int64(x.nodes[node].unit), slot)
        if entry >= 0:
            one = x.entries[entry]
            taken = min(np.int64(one.blocks), end - found, most - found)
            if one.holders == 0:
                idle += one.blocks
                if member >= 0:
                    _unlink(s, slot, entry)
                    e.used += one.blocks
            if member >= 0:
                one.holders += 1
                x.members[member].units = number + 1
            found += taken
            shared += taken
        else:
            taken = min(_own_from(s, request, found), most - found)
            if number < ids and (at_id or found < number * each):
                taken = min(taken, (number + (1 if at_id else 0)) * each - found)
            if taken <= 0:
                break
            idle += taken
            found += taken
            if at_id and end > found - taken:
                own_id = number
            if own_id >= 0 and found >= end:
                if member >= 0:
                    _stay_private(s, member, own_id)
                own_id = np.int64(-1)
        if at_id:
            number += 1
            if number < ids:
                if node == x.path[2 * back + 1]:
                    back -= 1
                    node = np.int64(x.path[2 * back])
                else:
                    node += 1
    if member >= 0:
        x.members[member].hit = found
        x.members[member].units = max(x.members[member].units, found // each) if ids > 0 else 0
        forget_own(s, slot, request)
    return found, shared, idle


@compiled
def _stay_private(s: State, member: int, index: int) -> None:
    """A request's own blocks are what it has of an id, whether or not that is cached."""
    x = s.stepped
    m = x.members[member]
    if m.private >= 0:
        run = x.private_runs[m.private]
        if run.first + run.count == index:
            run.count += 1
            return
    found = np.int64(s.progress[0].free_run)
    run = x.private_runs[found]
    s.progress[0].free_run = run.next
    s.progress[0].free_runs -= 1
    run.first = index
    run.count = 1
    run.next = m.private
    m.private = found


@compiled
def add_scheduled(s: State, slot: int, member: int, computed: int, chunk: int) -> None:
    """Units whose last token this chunk computes are found from now on; those cached already stay its own."""
    x = s.stepped
    m = x.members[member]
    request = np.int64(m.request)
    ids = _ids(s, request)
    if ids == 0:
        return
    block = np.int64(s.pools[s.instances[slot].pool].block_tokens)
    each, full = _blocks_an_id(s, slot), _full_blocks(s, slot, request)
    index = max(computed // (block * each), m.units)
    end = _end(index + 1, each, full)
    if index >= ids or end * block > computed + chunk:
        return
    node = _node(s, request, index)
    begin = _end(index, each, full)
    while end * block <= computed + chunk:
        if begin < end and end * block > computed:
            unit = np.int64(x.nodes[node].unit)
            if _entry(s, unit, slot) < 0:
                entry = _new_entry(s, slot, end - begin)
                one = x.entries[entry]
                one.unit = unit
                one.holders = 1
                one.chain = x.first_entry[unit]
                x.first_entry[unit] = entry
                m.shared += end - begin
                if s.services[s.pools[s.instances[slot].pool].service].lost_units > 0 and x.lost[unit]:
                    x.lost[unit] = False  # cached again
                    s.services[s.pools[s.instances[slot].pool].service].lost_units -= 1
            else:
                _stay_private(s, member, index)
        index += 1
        if index >= ids:
            break
        node = _next_node(s, request, node, index)
        begin = end
        end = _end(index + 1, each, full)


@compiled
def asked_again(s: State, slot: int, request: int, index: int) -> int:
    """Tokens of a prompt's ids from this one on that only drained instances had, without a gap."""
    x = s.stepped
    w = s.services[s.pools[s.instances[slot].pool].service]
    block = np.int64(s.pools[s.instances[slot].pool].block_tokens)
    most = (np.int64(s.isl[request]) - 1) // block  # at least one token is computed in any case
    ids = _ids(s, request)
    if index >= ids:
        return 0
    each, full = _blocks_an_id(s, slot), _full_blocks(s, slot, request)
    node = _node(s, request, index)
    first = min(_end(index, each, full), most)
    end = first
    while index < ids:
        unit = np.int64(x.nodes[node].unit)
        if not x.lost[unit]:
            break
        x.lost[unit] = False
        w.lost_units -= 1
        index += 1
        end = min(_end(index, each, full), most)
        if index < ids:
            node = _next_node(s, request, node, index)
    return int((end - first) * block)


@inlined
def _node(s: State, request: int, index: int) -> int:
    """The node of a prompt's id ``index``."""
    x = s.stepped
    node = np.int64(x.requests[request].leaf)
    while x.nodes[x.nodes[node].stretch].depth - 1 > index:
        node = np.int64(x.nodes[x.nodes[node].stretch].parent)
    return np.int64(node - (x.nodes[node].depth - 1 - index))


@inlined
def _next_node(s: State, request: int, node: int, index: int) -> int:
    """The node of a prompt's id ``index``, that before it being at ``node``: mostly the next one."""
    x = s.stepped
    leaf = np.int64(x.requests[request].leaf)
    if x.nodes[leaf].stretch <= node < leaf:
        return node + 1
    while x.nodes[x.nodes[leaf].stretch].depth - 1 > index:
        leaf = np.int64(x.nodes[x.nodes[leaf].stretch].parent)
    return leaf - (x.nodes[leaf].depth - 1 - index)


@compiled
def withdraw(s: State, slot: int, member: int, computed: int, chunk: int) -> None:
    """A request is pre-empted in the very step that was to compute these units: they are not there."""
    x = s.stepped
    m = x.members[member]
    request = np.int64(m.request)
    block = np.int64(s.pools[s.instances[slot].pool].block_tokens)
    ids = _ids(s, request)
    each, full = _blocks_an_id(s, slot), _full_blocks(s, slot, request)
    run = np.int64(m.private)
    node = np.int64(x.requests[request].leaf)
    for index in range(ids - 1, -1, -1):
        end = _end(index + 1, each, full)
        if end * block <= computed or index < m.units:
            break
        while run >= 0 and index < x.private_runs[run].first:
            run = np.int64(x.private_runs[run].next)
        private = run >= 0 and index < x.private_runs[run].first + x.private_runs[run].count
        begin = _end(index, each, full)
        if not private and begin < end and end * block <= computed + chunk:
            _remove(s, _entry(s, np.int64(x.nodes[node].unit), slot))
            m.shared -= end - begin
        node = np.int64(x.nodes[node].parent)


@inlined
def _keep(s: State, slot: int, request: int, first: int, end: int) -> None:
    """A request leaves blocks of its own behind."""
    x = s.stepped
    if end > first:
        entry = _new_entry(s, slot, end - first)
        one = x.entries[entry]
        one.unit = -1
        one.request = request
        one.first = first
        one.chain = x.requests[request].own
        x.requests[request].own = entry
        _becomes_idle(s, slot, entry)


@compiled
def let_go(s: State, slot: int, held, computed: int, keep_tokens: int) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Let go of what a request holds, the tail before the head.

    Args:
        s: the state.
        slot: of the instance.
        held: what it holds, a record with ``request``, ``units``, ``shared``, ``private`` and ``hit``.
        computed: tokens whose KV is there.
        keep_tokens: of its own blocks those full of so many tokens stay, idle, for it alone.
    """
    x = s.stepped
    e = x.engines[slot]
    request = np.int64(held.request)
    block = np.int64(s.pools[s.instances[slot].pool].block_tokens)
    kept = keep_tokens // block
    own_end = kept  # its own blocks from own_first to here are yet to be kept
    own_first = np.int64(0)
    if held.shared > 0:
        ids = _ids(s, request)
        each, full = _blocks_an_id(s, slot), _full_blocks(s, slot, request)
        own_first = min(kept, _end(ids, each, full))
        run = np.int64(held.private)
        node = np.int64(x.requests[request].leaf)
        for index in range(ids - 1, -1, -1):
            begin = _end(index, each, full)
            end = _end(index + 1, each, full)
            while run >= 0 and index < x.private_runs[run].first:
                run = np.int64(x.private_runs[run].next)
            private = run >= 0 and index < x.private_runs[run].first + x.private_runs[run].count
            if not private and begin < end and (index < held.units or end * block <= computed):
                if index == held.units - 1 and held.hit < end:
                    own_first = min(kept, np.int64(held.hit))
                _keep(s, slot, request, own_first, own_end)
                entry = _entry(s, np.int64(x.nodes[node].unit), slot)
                one = x.entries[entry]
                one.holders -= 1
                if one.holders == 0:
                    e.used -= one.blocks
                    _becomes_idle(s, slot, entry)
                own_end = min(kept, begin)
            own_first = min(kept, begin)
            node = np.int64(x.nodes[node].parent)
    _keep(s, slot, request, own_first, own_end)
    run = np.int64(held.private)
    while run >= 0:
        following = np.int64(x.private_runs[run].next)
        x.private_runs[run].next = s.progress[0].free_run
        s.progress[0].free_run = run
        s.progress[0].free_runs += 1
        run = following
    held.private = -1


@compiled
def forget_own(s: State, slot: int, request: int) -> None:
    """What a request left behind is free: it is back, or will not come back for it."""
    x = s.stepped
    while x.requests[request].own >= 0:
        entry = np.int64(x.requests[request].own)
        _unlink(s, slot, entry)
        _remove(s, entry)


@compiled
def forget_all(s: State, slot: int) -> None:
    """An instance is gone, and its cache with it."""
    e = s.stepped.engines[slot]
    forget_gone(s, slot)
    while e.oldest_idle >= 0:
        entry = np.int64(e.oldest_idle)
        _unlink(s, slot, entry)
        _remove(s, entry)


@compiled
def overlaps(s: State, request: int, block: int, each: int, looks: int) -> None:
    """Count by slot how many leading blocks of a prompt are cached, in ``overlap``; it was cleared.

    As of the router's last look, where it has taken some; entries evicted since have slots below zero.
    ``overlap_ids`` says how many ids these are; -1 where they end within one.
    """
    x = s.stepped
    index = 0
    full = np.int64(s.isl[request]) // block
    if x.requests[request].leaf < 0:
        return
    for back in range(_path(s, request) - 1, -1, -1):
        for node in range(x.path[2 * back], x.path[2 * back + 1] + 1):
            blocks = _end(np.int64(index + 1), each, full) - index * each
            entry = np.int64(x.first_entry[x.nodes[node].unit])
            found = False
            while entry >= 0:
                one = x.entries[entry]
                taken = min(np.int64(one.blocks), blocks)
                e = x.engines[one.slot if one.slot >= 0 else -1 - one.slot]
                if e.overlap_ids == index and taken > 0 and (looks == 0 or one.born < looks):
                    e.overlap += taken
                    e.overlap_ids = index + 1 if taken == each else -1
                    found = True
                entry = np.int64(one.chain)
            if not found:
                return
            index += 1
