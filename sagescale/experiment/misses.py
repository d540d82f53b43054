"""Misses by cause: what is left of them when the causes are taken away one after the other."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sagescale.document import MissSplit
from sagescale.experiment.forecasts import needs_forecasts
from sagescale.experiment.grid import without_forecast
from sagescale.sim.initial import given_sizes
from sagescale.sim.startup import StartupDelay

if TYPE_CHECKING:
    from sagescale.experiment.tasks import RunTask


def split_misses(
    total: int,
    *,
    no_faults: int | None = None,
    true_load: int | None = None,
    no_startup: int | None = None,
    one_more: int | None = None,
) -> MissSplit:
    """Split the misses of a run, exactly.

    Each argument is the misses of a run that is the one before it with one more cause taken away:

    * ``no_faults``: nothing goes wrong. What that saves, the faults cost.
    * ``true_load``: the planner knows the next interval's load. What that saves, the forecast cost.
    * ``no_startup``: and instances are READY the instant they are launched. That saves what startup cost.
    * ``one_more``: and each pool has an instance more than asked for. That saves what was short by less than
      an instance: the misses that whole instances cost.

    What is left is the policy's: it asks for the wrong sizes even so, or limits or the budget forbid the
    right ones.

    A share is the difference of two runs, one after the other, so the five add up to the total. A cause may
    help: with a forecast too high, instances are there that the policy would not ask for, and a run that
    knows the load misses more. Then its share is below zero, and those of others may exceed the total. A None
    is a counterfactual that does not apply (no faults, or a policy that uses no forecast) or was not run; its
    share is 0.
    """
    left = total
    shares = []
    for misses in (no_faults, true_load, no_startup, one_more):
        reached = left if misses is None else misses
        shares.append(left - reached)
        left = reached
    return MissSplit(
        total=total,
        faults=shares[0],
        forecast=shares[1],
        startup=shares[2],
        whole_instances=shares[3],
        policy=left,
        without={
            "faults": no_faults,
            "forecast_error": true_load,
            "startup": no_startup,
            "rounding": one_more,
        },
    )


_AT_ONCE = StartupDelay("constant", (0.0,))


def counterfactuals(task: RunTask) -> dict[str, RunTask]:
    """The runs that take causes of misses away one after the other; equal ones are shared by all entries.

    By the names that ``split_misses`` takes them by, on the first replicate. Knowing the load changes nothing
    for a policy that uses no forecast, and instant starts nothing for a fixed pair that is ready from the
    beginning.
    """
    chain: dict[str, RunTask] = {}
    bare = dataclasses.replace(task, replicate=0, document=False)
    if task.faults is not None:
        bare = dataclasses.replace(bare, faults=None)
        chain["no_faults"] = bare
    if needs_forecasts(task):
        bare = dataclasses.replace(bare, config=without_forecast(task.config), load="true")
        # Without faults this is the oracle entry: equal to it, so that it is run once.
        chain["true_load"] = dataclasses.replace(bare, document=task.faults is None)
    found = given_sizes(task.config, task.simulator)
    ready_from_start = task.config.policy == "static" and found is not None
    if task.schedule is not None or not ready_from_start:
        bare = dataclasses.replace(
            bare, simulator=dataclasses.replace(task.simulator, startup_delay_s=_AT_ONCE)
        )
        chain["no_startup"] = bare
    chain["one_more"] = dataclasses.replace(bare, one_more=True)
    return chain
