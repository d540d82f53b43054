"""Forecasts of arrivals, made once for all runs: they depend on what arrives, not on what a planner does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sagescale.experiment.execute import Failure, run_tasks
from sagescale.experiment.tasks import ForecastResult, ForecastTask, perform
from sagescale.planner.policy import uses_forecast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagescale.experiment.execute import Backend
    from sagescale.experiment.memo import ForecastMemo
    from sagescale.experiment.tasks import RunTask
    from sagescale.experiment.workload import Workload

__all__ = ["add_forecasts", "needs_forecasts"]

_SERIES: tuple[Literal["requests"], Literal["isl"]] = ("requests", "isl")


def needs_forecasts(run: RunTask) -> bool:
    """Whether a run forecasts by predictors of its own."""
    return run.load == "named" and run.schedule is None and uses_forecast(run.config.policy)


def add_forecasts(
    backend: Backend, workload: Workload, runs: Iterable[RunTask], memos: dict[ForecastTask, ForecastMemo]
) -> bool:
    """Make the forecasts that runs will ask for and that ``memos`` does not have yet.

    One that fails is left to the runs, which will fail of the same and say so.

    Args:
        backend: where.
        workload: what on: that of the runs, or one of which theirs is the beginning.
        runs: who asks.
        memos: added to.

    Returns:
        False where the user interrupted.
    """
    wanted = [ForecastTask.of(run, series) for run in runs if needs_forecasts(run) for series in _SERIES]
    missing = [task for task in dict.fromkeys(wanted) if task not in memos]

    def done(task: ForecastTask, result: object) -> None:
        if isinstance(result, ForecastResult):
            memos[task] = result.memo
        else:
            assert isinstance(result, Failure)

    return not missing or run_tasks(backend, workload, missing, perform, lambda _: (), done)
