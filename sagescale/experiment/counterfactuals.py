"""The runs that say what each cause of misses cost: the same run with causes taken away."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sagescale.experiment.forecasts import needs_forecasts
from sagescale.experiment.grid import without_forecast
from sagescale.sim.startup import StartupDelay

if TYPE_CHECKING:
    from sagescale.experiment.tasks import RunTask

__all__ = ["counterfactuals"]

_AT_ONCE = StartupDelay("constant", (0.0,))


def counterfactuals(task: RunTask) -> dict[str, RunTask]:
    """The runs that take causes of misses away one after the other; equal ones are shared by all entries.

    By the names that ``split_misses`` takes them by, on the first replicate. Knowing the load changes nothing
    for a policy that looks at no forecast, and instant starts nothing for a fixed pair that is ready from the
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
    ready_from_start = task.config.policy == "static" and task.simulator.initial_prefill is not None
    if task.schedule is not None or not ready_from_start:
        bare = dataclasses.replace(
            bare, simulator=dataclasses.replace(task.simulator, startup_delay_s=_AT_ONCE)
        )
        chain["no_startup"] = bare
    chain["one_more"] = dataclasses.replace(bare, one_more=True)
    return chain
