"""Doing tasks through the store and the back ends of comparisons."""

from __future__ import annotations

import sys
import time

from sagescale.experiment.execute import Failure, add_forecasts, run_tasks
from store import key_of, policy_of


class Worker:
    """Answers tasks: from the store, else by doing them, forecasts first and shared by all runs.

    Attributes:
        failures: what could not be done, one line each.
        done_runs, reused_runs: tasks done now, and found in the store.
        old_runs: those found that were done by other code than today's.

    Args:
        fresh: the policy whose runs are of today's code; the others' may be older. None: all are.
    """

    def __init__(self, backend, store, fresh=None) -> None:
        self._backend = backend
        self._store = store
        self._memos = {}
        self.failures = []
        self.done_runs = 0
        self.reused_runs = 0
        self.old_runs = 0
        self._fresh = fresh

    def answers(self, workload, tasks, words):
        """A mapping of tasks to answers; tasks that failed are missing.

        Raises:
            KeyboardInterrupt: the user stopped it; what is done is kept.
        """
        unique = list(dict.fromkeys(tasks))
        keys = {task: key_of(workload, task) for task in unique}
        for task, key in keys.items():
            old = self._store.of_any_code(key)
            if old is not None and key not in self._store and self._fresh not in {None, policy_of(task)}:
                keys[task] = old
                self.old_runs += 1
        missing = [task for task in unique if keys[task] not in self._store]
        self.reused_runs += len(unique) - len(missing)
        if missing:
            began = time.perf_counter()
            # By replicate, so that processes keep their trace.
            missing.sort(key=lambda task: getattr(getattr(task, "run", task), "replicate", 0))

            def done(task, answer):
                if isinstance(answer, Failure):
                    self.failures.append(f"{_about(task)}: {answer.error}")
                else:
                    self._store.put(keys[task], _about(task), answer)
                    self.done_runs += 1

            self._do(workload, missing, done)
            seconds = time.perf_counter() - began
            print(f"  {words}: {len(missing)} tasks in {seconds:.0f} s", file=sys.stderr, flush=True)
        return {task: self._store.get(keys[task]) for task in unique if keys[task] in self._store}

    def forget_forecasts(self):
        """Another trace follows."""
        self._memos.clear()

    def _do(self, workload, tasks, done):
        if not add_forecasts(self._backend, workload, tasks, self._memos):
            raise KeyboardInterrupt
        if not run_tasks(self._backend, workload, tasks, self._memos, done):
            raise KeyboardInterrupt


def _about(task):
    run = getattr(task, "run", task)
    config = run.config
    what = f"{config.policy}/{config.load_predictor_type} x{config.load_headroom:g}"
    return f"{type(task).__name__} {what} seed {getattr(run, 'replicate', 0)}"
