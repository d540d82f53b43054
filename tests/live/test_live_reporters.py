"""Who should report: a partial outage stays one, and a pool that became smaller is none."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from live_world import LiveWorld, ToyPools, VirtualClock, reporting
from sagescale.live.metrics.observe import Metrics
from sagescale.live.metrics.reporters import GroupReporters, Reporters, Reports
from sagescale.planner import Sizes

GRACE_S = 120.0
SILENT, FINE = True, False


def named(text, complete=None, listed=None):
    found = frozenset(text)
    return Reports(found, found if complete is None else frozenset(complete), listed and frozenset(listed))


def windows(*steps):
    """Say of each window, a minute apart, whether somebody is missing; a number decides a size before it."""
    group, found, now_s = GroupReporters(GRACE_S), [], 0.0
    for step in steps:
        if isinstance(step, int):
            group.decide(step, now_s)
            continue
        reports, ready = step if isinstance(step[0], Reports) else (step, None)
        if ready is not None:
            group.count(ready, now_s)
        found.append(group.missing(reports) > 0)
        now_s += 60.0
    return found


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([(named("abcd"), 8)] * 30, [SILENT] * 30, id="half of it from the start, counted"),
        pytest.param(
            [(named("abcdef"), 6), *[(named("abcd"), 6)] * 40], [FINE, *[SILENT] * 40],
            id="an outage of forty windows, counted",
        ),
        pytest.param(
            [(named("abcd", listed="abcdefgh"), 8)] * 30, [SILENT] * 30, id="half of it, counted and listed"
        ),
        pytest.param([(named("a", listed="a"), 5)] * 5, [FINE] * 5, id="five that share one page"),
        pytest.param(
            [(named("abcd", listed="abcd"), 4), (named("ab", listed="ab"), 4)], [FINE, FINE],
            id="counted, but listed no longer",
        ),
        pytest.param([(named("abcdef"), 6), (named("abcd"), 4)], [FINE, FINE], id="counted as fewer"),
        pytest.param(
            [(named("ab"), 2), (named("ab"), 4), (named("ab"), 4), (named("ab"), 4), (named("ab"), 4)],
            [FINE, FINE, FINE, SILENT, SILENT], id="ready and never read: a grace of two windows",
        ),
        pytest.param(
            [(named("abcd"), 4), (named("ab"), None), (named("ab"), None)], [FINE, SILENT, SILENT],
            id="whoever counts cannot be asked",
        ),
        pytest.param([named("abcdef"), *[named("abcd")] * 40], [FINE, *[SILENT] * 40], id="nobody counts"),
        pytest.param(
            [named("abcd", listed="abcd"), *[named("ab", listed="abcd")] * 40], [FINE, *[SILENT] * 40],
            id="still listed",
        ),
        pytest.param(
            [named("abcd", listed="abcd"), named("ab", listed="ab")], [FINE, FINE], id="listed no longer"
        ),
        pytest.param(
            [named("abcd", listed="abcd"), named("ab", listed="abcd"), named("abxy", listed="abcdxy")],
            [FINE, SILENT, SILENT], id="others came while two are missing",
        ),
        pytest.param(
            [named("abcd", listed="abcd"), named("cdxy", listed="cdxy"), named("xyzw", listed="xyzw")],
            [FINE, FINE, FINE], id="replaced one by one",
        ),
        pytest.param([named("abcd"), named("wxyz")], [FINE, FINE], id="replaced all at once, no list"),
        pytest.param(
            [named("abcd", listed="e"), named("ab", listed="e")], [FINE, SILENT], id="a list of others"
        ),
        pytest.param([9, named("abcdefghi"), 6, named("abcdef")], [FINE, FINE], id="an HPA follows"),
        pytest.param(
            [9, named("abcdefghi"), 6, named("abcdefgh"), named("abcdefg"), named("abcdef")], [FINE] * 4,
            id="an HPA follows one by one",
        ),
        pytest.param(
            [6, named("abcdef"), 9, named("abcdefghi"), *[named("abcdef")] * 30],
            [FINE, FINE, *[SILENT] * 30],
            id="what was decided before it grew excuses nobody",
        ),
        pytest.param([9, named("abcdefghi"), 6, named("abcd")], [FINE, SILENT], id="fewer than decided"),
        pytest.param(
            [named("abcd"), named("abcd", complete="ab"), named("abcd")], [FINE, SILENT, FINE],
            id="counters of half are gone while gauges stay",
        ),
        pytest.param([named("abcd"), named(""), named("abcd")], [FINE, SILENT, FINE], id="all, and back"),
        pytest.param([named(""), named("ab"), named("abcd")], [FINE] * 3, id="found one after the other"),
    ],
)  # fmt: skip
def test_an_outage_is_no_smaller_pool_and_a_smaller_pool_no_outage(steps, expected):
    assert windows(*steps) == expected


class PoolOfInstances(RuleBasedStateMachine):
    """A pool whose instances start, go for good, fall silent and speak again, in any order."""

    @initialize(count=st.integers(1, 6))
    def begin(self, count):
        self.group, self.born = GroupReporters(GRACE_S), 0
        self.there, self.silent, self.read = set(), set(), set()
        self.start(count)
        self.window()

    @rule(count=st.integers(1, 3))
    def start(self, count):
        self.there |= {f"i{self.born + number}" for number in range(count)}
        self.born += count

    @precondition(lambda self: len(self.there) > 1)
    @rule(data=st.data())
    def remove(self, data):
        gone = {data.draw(st.sampled_from(sorted(self.there)))}
        self.there, self.silent, self.read = self.there - gone, self.silent - gone, self.read - gone

    @rule(data=st.data())
    def fall_silent(self, data):
        self.silent |= data.draw(st.sets(st.sampled_from(sorted(self.there)), min_size=1))

    @rule()
    def speak_again(self):
        self.silent = set()

    @rule()
    def window(self):
        heard = frozenset(self.there - self.silent)
        self.missing = self.group.missing(Reports(heard, heard, frozenset(self.there)))
        self.missed = self.read - heard
        self.read |= heard
        assert self.missing >= len(self.missed)
        if heard:  # a list of which nobody is heard may be one of something else
            assert self.missing == len(self.missed)


class CountedPool(RuleBasedStateMachine):
    """A pool that somebody counts, under an outage of any length after it has settled."""

    @initialize(size=st.integers(1, 8))
    def begin(self, size):
        self.group, self.now_s, self.size = GroupReporters(GRACE_S), 0.0, size

    @rule(size=st.integers(1, 8), lost=st.integers(0, 8), length=st.integers(1, 30))
    def resize_then_lose(self, size, lost, length):
        self.size = size
        for _ in range(4):
            assert self.look(size) == 0
        for _ in range(length):
            assert self.look(max(0, size - lost)) == min(lost, size)

    def look(self, heard):
        self.now_s += 60.0
        self.group.count(self.size, self.now_s)
        names = frozenset(f"i{number}" for number in range(heard))
        return self.group.missing(Reports(names, names))


TestPoolOfInstances = PoolOfInstances.TestCase
TestCountedPool = CountedPool.TestCase
for case in (TestPoolOfInstances, TestCountedPool):
    case.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_a_sum_with_a_part_missing_is_unknown_and_decodes_is_not():
    for group, load in (("prefill", None), ("frontend", None), ("decode", 600.0)):
        reporters = Reporters(GRACE_S)
        for names in ("ab", "a"):
            metrics = Metrics({"requests": 600.0}, (), {group: named(names)})
            judged = reporters.judge(metrics, {}, 0.0)
        assert judged.values["requests"] == load
        assert [item.code for item in judged.problems] == ["instances_silent"]
        assert judged.problems[0].text.startswith(f"1 of 2 {group} instances report")


def test_where_somebody_else_sees_the_load_whole_nobody_need_report():
    reporters = Reporters(GRACE_S)
    for names in ("ab", ""):
        reports = Reports(frozenset(names), None)
        judged = reporters.judge(Metrics({"requests": 600.0}, (), {"prefill": reports}), {"prefill": 8}, 0.0)
    assert judged.values["requests"] == 600.0
    assert not judged.problems


# --- in the loop ------------------------------------------------------------------------------------


def world_of(prefill, decode, *, knows, **keys):
    clock = VirtualClock()
    pools = ToyPools(clock, prefill, decode, startup_s=0.0, drain_s=0.0)
    pools.knows = knows
    return LiveWorld(clock=clock, pools=pools, **keys)


def silent(record):
    return "instances_silent" in {item.code for item in record.problems}


def test_half_of_a_counted_pool_silent_from_the_start_is_an_outage_that_holds_and_then_goes_to_the_floor():
    world = world_of(8, 8, knows=True, live={"safe_floor_prefill": 9, "safe_floor_decode": 9})
    world.load.requests, world.load.silent = 60.0, Sizes(4, 4)
    world.loop.start()
    world.ticks(4)
    assert all(silent(record) for record in world.log.records)
    assert world.pools.sizes == Sizes(8, 8)
    world.ticks(30, start=5)
    assert world.pools.sizes == Sizes(9, 9)
    world.load.silent = Sizes(0, 0)
    world.ticks(2, start=35)
    assert world.pools.sizes == world.wanted(60.0)


def test_an_outage_outlasts_any_number_of_windows_and_a_restart(tmp_path):
    world = world_of(9, 9, knows=False, path=tmp_path / "journal.sqlite", live={"no_data_timeout_s": 1e9})
    world.load.requests = 100_000.0  # all that there are: limits and budget keep them
    world.loop.start()
    world.ticks(2)
    size = world.pools.sizes
    world.load.requests, world.load.silent = 60.0, Sizes(4, 4)
    world.ticks(15, start=3)
    world.loop.journal.close()
    world.loop = world.new_loop()
    world.loop.start()
    world.ticks(15)
    assert all(silent(record) for record in world.log.records[2:])
    assert world.pools.sizes == size
    world.load.silent = Sizes(0, 0)
    world.ticks(2, start=16)
    assert world.pools.sizes < size


def test_who_follows_what_is_published_is_no_outage():
    """An HPA is slow to follow and removes one instance a minute; discovery says nothing."""
    world = world_of(2, 2, knows=False)
    follow, obeyed = world.pools.set, []
    world.pools.set = obeyed.append
    world.load.requests = 2400.0
    world.loop.start()

    def minute(number):
        world.ticks(1, start=number)
        wanted = obeyed[-1]
        at = world.pools.sizes
        follow(Sizes(*(max(to, now - 1) for to, now in zip(wanted, at, strict=True))))

    for number in range(1, 6):
        minute(number)
    assert world.pools.sizes == world.wanted(2400.0)
    world.load.requests = 60.0
    for number in range(6, 30):
        minute(number)
    assert not any(silent(record) for record in world.log.records)
    assert world.pools.sizes == Sizes(1, 1)


def test_a_dry_run_shows_what_it_would_do_where_nobody_acts():
    world = world_of(1, 1, knows=False, live={"actuator": "none"})
    world.load.requests = 2400.0
    world.loop.start()
    world.ticks(1)
    record = world.log.records[-1]
    assert record.current == Sizes(1, 1)
    assert record.goal == world.wanted(2400.0)
    assert not record.acted
    assert "hold_pools_unknown" not in {note.code for note in record.notes}


def test_a_dry_run_under_an_outage_takes_the_pool_for_what_it_was():
    world = world_of(8, 8, knows=False, live={"actuator": "none", "no_data_timeout_s": 1e9})
    world.load.requests = 60.0
    world.load.listed = (8, 8)
    world.loop.start()
    world.ticks(2)
    world.load.silent = Sizes(4, 4)
    world.ticks(20, start=3)
    assert {(record.current, record.goal) for record in world.log.records[2:]} == {(Sizes(8, 8), Sizes(8, 8))}
    world.load.listed = (4, 4)
    world.ticks(1, start=23)
    assert world.log.records[-1].current == Sizes(4, 4)
    assert not silent(world.log.records[-1])


def test_a_dry_run_of_a_frontend_shows_what_it_would_set_too():
    world = world_of(1, 1, knows=False, live={"actuator": "none"})
    world.load.requests = 2400.0
    world.load.reports = lambda: {"frontend": reporting(1, 1)["prefill"]}
    world.loop.start()
    world.ticks(1)
    record = world.log.records[-1]
    assert record.goal == world.wanted(2400.0)
    assert "pools_assumed" in {note.code for note in record.notes}
