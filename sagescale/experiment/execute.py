"""Doing independent tasks on this machine's cores or a Dask cluster's, through joblib.

Whatever the backend, a task gets the same arguments and its answer depends on nothing else, so results are
the same. A task that fails is reported and the others go on; an interruption keeps what is done.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import time
import warnings
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from sagescale.errors import InputError, SagescaleError
from sagescale.experiment.forecasts import FORECAST_ONCE, ForecastResult, ForecastTask, forecast_once
from sagescale.experiment.tasks import PartTask, RunTask, Task, memos_for, perform
from sagescale.perf import ProfileModel
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.engine import Cluster, ServiceLoad, disaggregated
from sagescale.sim.world import build_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sagescale.experiment.forecasts import ForecastMemo
    from sagescale.experiment.tasks import Result
    from sagescale.experiment.workload import Workload

T = TypeVar("T", bound=Task)

START_S = 2.0
"""About what local processes take to start."""
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that could not be done: the exception's type and message, one line."""

    error: str


@dataclass(frozen=True, slots=True)
class Backend:
    """Where tasks run: ``jobs`` of them at once, in local processes or on Dask, and in this process before.

    Attributes:
        alone_until_s: When to begin with others, by ``time.perf_counter``; with one job, never.
    """

    kind: Literal["processes", "dask"]
    jobs: int
    alone_until_s: float = math.inf


def default_jobs() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def open_backend(kind: str, jobs: int, address: str | None, *, start_s: float = 0.0) -> Iterator[Backend]:
    """Get ready to run tasks, and connect to the cluster where there is one.

    Local processes are started when tasks have run in this one for as long as they must go on to be worth
    ``start_s``, what processes take to start: a comparison done by then never starts any. Only for a process
    whose maths libraries run on one thread, as theirs do.

    Raises:
        InputError: the options contradict one another.
        SagescaleError: Dask is not installed, or the cluster does not answer.
    """
    import joblib

    if kind not in {"processes", "dask"}:
        raise InputError(f"--backend {kind}: expected processes or dask")
    if kind == "processes":
        if address is not None:
            raise InputError(f"--address {address}: only --backend dask has an address")
        # One thread a task: the tasks fill the cores, and threads would make results depend on their number.
        context: AbstractContextManager[object] = (
            nullcontext()
            if jobs == 1
            else joblib.parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1)
        )
        with context, warnings.catch_warnings():
            # A process that has grown is replaced when its task is done, which is no concern of the user's.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
            alone_s = math.inf if jobs == 1 else start_s * jobs / (jobs - 1)
            yield Backend("processes", jobs, time.perf_counter() + alone_s)
        return
    if address is None:
        raise InputError("--backend dask: expected --address tcp://HOST:PORT of its scheduler")
    if not re.fullmatch(r"[a-z]+://\S+:[0-9]{1,5}", address):  # Dask itself gives up late, with a traceback
        raise InputError(f"--address {address}: expected tcp://HOST:PORT of the Dask scheduler")
    try:
        from distributed import Client
    except ImportError as error:
        raise SagescaleError(
            f"--backend dask needs the extra sagescale[dask] (pip install 'sagescale[dask]'): {error}"
        ) from None
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise SagescaleError(f"--address {address}: no Dask scheduler answers there: {error}") from None
    with client:
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        if workers == 0:
            raise SagescaleError(f"--address {address}: the Dask scheduler there has no workers")
        with joblib.parallel_config(backend="dask", client=client, wait_for_workers_timeout=_CONNECT_S):
            yield Backend("dask", workers, -math.inf)


def run_tasks(
    backend: Backend,
    workload: Workload,
    tasks: Sequence[T],
    memos: Mapping[ForecastTask, ForecastMemo],
    done: Callable[[T, Result | Failure], None],
) -> bool:
    """Do all tasks, each answer handed to ``done`` as it comes.

    Args:
        backend: where.
        workload: what on.
        tasks: what; expensive ones first keep the cores busy to the end. In this process the cheapest are
            done first: others are not kept waiting for long.
        memos: forecasts made already; a task is sent those it will ask for.
        done: called in this process, in any order.

    Returns:
        False where the user interrupted: what was not done is missing.
    """
    import joblib

    left = list(tasks)
    try:
        while left and time.perf_counter() < backend.alone_until_s:
            task = left.pop()
            done(task, _perform_safely(0, workload, task, memos_for(task, memos))[1])
        if not left:
            return True
        if backend.kind == "processes":
            _compile_kernel(workload)
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        calls = (
            joblib.delayed(_perform_safely)(number, workload, task, memos_for(task, memos))
            for number, task in enumerate(left)
        )
        for number, result in parallel(calls):
            done(left[number], result)
    except KeyboardInterrupt:
        return False
    return True


def add_forecasts(
    backend: Backend, workload: Workload, tasks: Iterable[Task], memos: dict[ForecastTask, ForecastMemo]
) -> bool:
    """Make the forecasts that tasks will ask for and that ``memos`` does not have yet.

    They are made for the whole trace, of which the workload may be the beginning. One that fails is left to
    the runs, which will fail of the same and say so.

    Args:
        backend: where.
        workload: what on.
        tasks: what asks.
        memos: added to.

    Returns:
        False where the user interrupted.
    """
    runs = (task.run if isinstance(task, PartTask) else task for task in tasks)
    asking = [run for run in runs if isinstance(run, RunTask) and forecast_once(workload, run)]
    wanted = [ForecastTask.of(run, series) for run in asking for series in FORECAST_ONCE]
    missing = [task for task in dict.fromkeys(wanted) if task not in memos]

    def done(task: ForecastTask, result: Result | Failure) -> None:
        if isinstance(result, ForecastResult):
            memos[task] = result.memo

    whole = dataclasses.replace(workload, until_s=math.inf)
    return not missing or run_tasks(backend, whole, missing, {}, done)


def _compile_kernel(workload: Workload) -> None:
    """Once, here: processes that find no compiled kernel would all compile it at the same time."""
    world = build_world(ProfileModel(workload.profile), SimulatorConfig())
    one = np.ones(1, np.int32)
    cluster = Cluster.alone(ServiceLoad("service", disaggregated(world), (1, 1), np.zeros(1), one, one, one))
    cluster.advance(math.inf)
    cluster.kv_tokens()


def _perform_safely(
    number: int, workload: Workload, task: Task, memos: Sequence[ForecastMemo]
) -> tuple[int, Result | Failure]:
    try:
        return number, perform(workload, task, memos)
    except SagescaleError as error:
        return number, Failure(str(error))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is reported, and the other runs go on
        return number, Failure(f"{type(error).__name__}: {' '.join(str(error).split())}")
