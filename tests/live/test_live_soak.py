"""Ten thousand ticks of virtual time with random faults: about a week at one a minute."""

from __future__ import annotations

import gc
import random
import resource

from live_world import LiveWorld
from sagescale.live.journal import read_journal

TICKS = 10_000


def test_a_week_of_faults_leaves_no_trace(tmp_path):
    random_faults = random.Random(5)
    path = tmp_path / "journal.sqlite"
    world = LiveWorld(
        path=path,
        load_predictor_type="moving_average",
        max_gpu_budget=16,
        live={"journal_retention_days": 0.5, "scale_up_timeout_s": 600.0, "max_step_instances": 4},
    )
    world.loop.start()
    base_s = world.clock.now
    world.log.records = _Last()
    world.log.decisions = _Last()
    world.log.events = _Last()
    world.pools.orders = _Last()
    blind_shrinks = late = 0
    memory = {}
    number = 1
    for tick in range(TICKS):
        load = world.load
        load.requests = max(0.0, 1500.0 + 1500.0 * random_faults.uniform(-1, 1))
        load.broken = random_faults.choice(["down", "500", "late"]) if random_faults.random() < 0.1 else ""
        world.pools.fail_orders = random_faults.random() < 0.05
        world.pools.fail_states = random_faults.random() < 0.03
        if random_faults.random() < 0.01:
            world.clock.offset += random_faults.uniform(-4000, 4000)
        if random_faults.random() < 0.02 and not world.pools.fail_states:
            low, high = world.config.min_prefill_instances, 3
            world.pools.pools[0][:] = world.pools.pools[0][: random_faults.randint(low, high)]
        before = world.pools.sizes
        world.loop._wait_for(number)
        moved_meanwhile = world.pools.sizes != before
        before = world.pools.sizes
        record = world.loop.tick(number)
        if random_faults.random() < 0.01:
            world.clock.now += random_faults.uniform(0, 400)
        following = world.loop._after(number)
        late += following > number + 1
        number = following
        if load.broken and not moved_meanwhile:
            blind_shrinks += any(to < at for to, at in zip(record.goal, record.current, strict=True))
        assert world.pools.most_gpus <= 16
        if tick in {2000, TICKS - 1}:
            gc.collect()
            memory[tick] = (len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert blind_shrinks == 0
    assert late > 10
    due_s = world.loop.rhythm.anchor_s + number * 60.0
    assert 0 <= due_s - world.clock.now <= 60, "the next tick is neither past nor late"
    assert (due_s - base_s) % 60 == (world.loop.rhythm.anchor_s - base_s) % 60, "no drift"
    (objects, resident_kb), (objects_then, resident_then_kb) = memory[TICKS - 1], memory[2000]
    assert objects - objects_then < 1000, "memory is flat"
    assert resident_kb - resident_then_kb < 10_000
    world.loop.finish()
    ticks, _ = read_journal(path)
    kept = list(ticks)
    assert 0.5 * 24 * 60 * 0.8 <= len(kept) <= 0.5 * 24 * 60 + 60
    assert path.stat().st_size < 5_000_000
    assert [tick.id for tick in kept] == list(range(kept[0].id, kept[-1].id + 1)), "no record is missing"


class _Last(list):
    """Forgets: what a watcher keeps is not the loop's memory."""

    def append(self, item) -> None:
        self[:] = [item]
