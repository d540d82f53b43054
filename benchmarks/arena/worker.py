"""Doing tasks through the store and the back ends of comparisons."""

from __future__ import annotations

import sys
import time

from sagescale.experiment.execute import Failure, memos_for, run_tasks
from sagescale.experiment.parts import PartTask, perform_part
from sagescale.experiment.tasks import ForecastTask, perform
from sagescale.planner.policy import uses_forecast
from store import key_of


class Worker:
    """Answers tasks: from the store, else by doing them, forecasts first and shared by all runs.

    Attributes:
        failures: what could not be done, one line each.
        seconds: simulation time of the runs done now, by policy; planning in it.
    """

    def __init__(self, backend, store) -> None:
        self._backend = backend
        self._store = store
        self._memos = {}
        self.failures = []
        self.done_runs = 0
        self.reused_runs = 0

    def answers(self, workload, tasks, words):
        """A mapping of tasks to answers; tasks that failed are missing.

        Raises:
            KeyboardInterrupt: the user stopped it; what is done is kept.
        """
        unique = list(dict.fromkeys(tasks))
        keys = {task: key_of(workload, task) for task in unique}
        missing = [task for task in unique if keys[task] not in self._store]
        self.reused_runs += len(unique) - len(missing)
        if missing:
            began = time.perf_counter()
            self._forecast(workload, missing)
            # By replicate, so that processes keep their trace.
            missing.sort(key=lambda task: getattr(getattr(task, "run", task), "replicate", 0))

            def done(task, answer):
                if isinstance(answer, Failure):
                    self.failures.append(f"{_about(task)}: {answer.error}")
                else:
                    self._store.put(keys[task], _about(task), answer)
                    self.done_runs += 1

            self._do(
                workload,
                missing,
                perform_part,
                lambda task: memos_for(getattr(task, "run", task), self._memos),
                done,
            )
            seconds = time.perf_counter() - began
            print(f"  {words}: {len(missing)} tasks in {seconds:.0f} s", file=sys.stderr, flush=True)
        return {task: self._store.get(keys[task]) for task in unique if keys[task] in self._store}

    def forget_forecasts(self):
        """Another trace follows."""
        self._memos.clear()

    def _forecast(self, workload, tasks):
        """Arrivals do not depend on the policy: they are forecast once for all runs of a replicate."""
        runs = [task.run for task in tasks if isinstance(task, PartTask) and _is_forecast(task.run)]
        wanted = {
            ForecastTask(
                run.spec, series, run.simulator.scrape_delay_s, run.simulator.metric_outage_s, run.replicate
            ): None
            for run in runs
            for series in ("requests", "isl")
        }

        def done(task, answer):
            if isinstance(answer, Failure):
                self.failures.append(f"forecasts of {task.spec.predictor}: {answer.error}")
            else:
                self._memos[task] = answer.memo

        missing = [task for task in wanted if task not in self._memos]
        self._do(workload, missing, perform, lambda _: (), done)

    def _do(self, workload, tasks, perform_one, memos_of, done):
        if tasks and not run_tasks(self._backend, workload, tasks, perform_one, memos_of, done):
            raise KeyboardInterrupt


def _is_forecast(run):
    return run.load == "named" and run.schedule is None and uses_forecast(run.config.policy)


def _about(task):
    run = getattr(task, "run", task)
    config = run.config
    what = f"{config.policy}/{config.load_predictor_type} x{config.load_headroom:g}"
    return f"{type(task).__name__} {what} seed {getattr(run, 'replicate', 0)}"
