"""sagescale from Python: what the commands do, on data frames, with the same defaults and refusals."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagescale.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from sagescale.document import ResultDocument
    from sagescale.perf import Profile
    from sagescale.perf.build import ImportOptions
    from sagescale.sim.faults import Faults
    from sagescale.sim.run import Run
    from sagescale.trace import LogSpec, Trace, TransformSpec, Turns

    Requests = pd.DataFrame | Trace | str | os.PathLike[str]
    Keys = Mapping[str, object] | str | os.PathLike[str]

_NEEDED = ("arrival_s", "isl", "osl")
_KNOWN = ("cached_tokens", "priority", "session_id")


def read_trace(requests: Requests, *, log: LogSpec | None = None) -> Trace:
    """Return the requests to replay.

    Args:
        requests: a file in any format that ``sagescale trace info`` reads, or the name of a shipped trace; a
            data frame with columns ``arrival_s`` (seconds), ``isl`` and ``osl`` (tokens), and perhaps
            ``cached_tokens``, ``priority`` and ``session_id``, a row a request, in any order; of sessions
            whose turns wait for answers also ``after``, lists of rows counted from 0, and ``think_s``; or a
            trace, as it is.
        log: of a file that is a service's own log, its columns, which rows count, and its clock, as
            ``--columns``, ``--where`` and ``--time-zone`` say them.

    Raises:
        InputError: it cannot be read or is no trace; the message says why.
    """
    from sagescale.trace import LogSpec, Trace
    from sagescale.trace import read_trace as read_file

    if isinstance(requests, Trace):
        return requests
    if isinstance(requests, (str, os.PathLike)):
        return read_file(str(requests), log=log or LogSpec())
    missing = [name for name in _NEEDED if name not in requests.columns]
    if missing:
        raise InputError(
            f"the data frame has no column {missing[0]}; expected {', '.join(_NEEDED)}, and perhaps "
            f"{', '.join(_KNOWN)}; it has {', '.join(map(str, requests.columns))}"
        )
    for name in (*_NEEDED, *_KNOWN):
        if name in requests.columns and requests[name].dtype.kind not in "iuf":
            raise InputError(
                f"the data frame's column {name} is of type {requests[name].dtype}; expected numbers"
            )
    columns: dict[str, Any] = {
        name: requests[name].to_numpy() for name in (*_NEEDED, *_KNOWN) if name in requests.columns
    }
    try:
        if "after" in requests.columns:
            columns["turns"] = _turns(requests)
        return Trace.from_arrays(**columns, path="<data frame>")
    except (TypeError, ValueError) as error:
        raise InputError(f"the data frame is no trace: {error}") from None


def _turns(requests: Any) -> Turns:  # noqa: ANN401 - a data frame of whatever library
    """Return who waits for whom, by columns of a data frame."""
    from sagescale.trace import Turns

    think_s = requests["think_s"].to_numpy() if "think_s" in requests.columns else [0.0] * len(requests)
    cells = requests["after"].to_numpy()
    # A missing list is None, or NaN where the library has no other.
    return Turns.of([[] if cell is None or isinstance(cell, float) else cell for cell in cells], think_s)


def import_profile(*sources: str | os.PathLike[str], options: ImportOptions | None = None) -> Profile:
    """Fit a profile to measurements, as ``sagescale profile import`` does.

    Args:
        sources: files or folders in any format it reads; several are joined.
        options: what the sources do not say: names, GPUs an instance, limits.

    Raises:
        InputError: no known format, too few points, or contradictions; the message says where.
    """
    from sagescale.perf.build import ImportOptions, build_profile, read_sources

    return build_profile(read_sources([Path(source) for source in sources]), options or ImportOptions())


def simulate(
    requests: Requests,
    *,
    profile: Profile | str | None = None,
    config: Keys | None = None,
    actual_profile: Profile | str | None = None,
    faults: Faults | None = None,
    transforms: TransformSpec | None = None,
) -> Result:
    """Replay requests through modelled pools under the planner, as ``sagescale simulate`` does.

    Args:
        requests: as for ``read_trace``.
        profile: the engines as the planner takes them to be: a profile, its name or its file.
        config: keys and values, or a configuration file.
        actual_profile: the engines as they are, where that differs.
        faults: what goes wrong.
        transforms: of the trace, such as ``TransformSpec(rate_scale=8)``.

    Raises:
        InputError: something cannot be used; the message says what and where.
    """
    from sagescale.setup import load_setup
    from sagescale.trace import TransformSpec

    files, options = _settings(config)
    setup = load_setup(
        read_trace(requests), profile, files, (), transforms or TransformSpec(), options, actual_profile
    )
    runs = setup.simulate(faults)
    return Result(setup.document(runs, faults), runs[0])


def compare(
    requests: Requests,
    *,
    profile: Profile | str | None = None,
    configs: Sequence[Keys] = (),
    policies: Sequence[str] | None = None,
    predictors: Sequence[str] | None = None,
    attainment: float = 0.99,
    replicates: int = 1,
    faults: Faults | None = None,
    transforms: TransformSpec | None = None,
    jobs: int | None = None,
) -> ComparisonResult:
    """Run policies, predictors and configurations on the same requests, as ``compare-predictors`` does.

    Args:
        requests: as for ``read_trace``.
        profile: the engines: a profile, its name or its file.
        configs: each a mapping of keys or a file; none is the defaults.
        policies: names; by default those of ``configs``.
        predictors: names; by default all.
        attainment: share of the requests that is to meet both targets, 0 to 1.
        replicates: copies of the trace every run is made on, the trace itself the first.
        faults: what goes wrong in every run.
        transforms: of the trace.
        jobs: processes; by default one a core.

    Raises:
        InputError: something cannot be used; the message says what and where.
    """
    from sagescale.experiment.compare import Comparison
    from sagescale.experiment.compare import compare as run_comparison
    from sagescale.experiment.execute import default_jobs, open_backend
    from sagescale.planner.forecast import predictor_names
    from sagescale.setup import check_counts, check_share, choose, choose_policies, load_comparison
    from sagescale.trace import TransformSpec

    check_share("attainment is", attainment)
    check_counts(("replicates is", replicates, 1), ("jobs is", jobs, 1))
    tried = choose("predictors", "all" if predictors is None else ",".join(predictors), predictor_names())
    found = [_settings(config) for config in configs or ({},)]
    workload, variants = load_comparison(
        read_trace(requests),
        profile,
        [(files, (), options) for files, options in found],
        transforms or TransformSpec(),
    )
    used = choose_policies("policies", None if policies is None else ",".join(policies), variants)
    comparison = Comparison(variants, used, tried, attainment, replicates, faults)
    with open_backend("processes", jobs or default_jobs(), None) as where:
        return ComparisonResult(run_comparison(workload, comparison, where))


@dataclass(frozen=True, slots=True)
class Result:
    """One simulated run.

    Attributes:
        document: everything that is known of it, as ``--json`` writes it.
        run: the run itself, for what no document holds.
    """

    document: ResultDocument
    run: Run

    @property
    def attainment(self) -> float | None:
        """Share of the requests that met both targets; None where there were none to judge."""
        return self.document.runs[0].sla.attainment

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all pools, starting and draining instances included."""
        return self.document.runs[0].gpu_hours.total

    @property
    def requests(self) -> pd.DataFrame:
        """A row a request, as ``--requests`` writes them: lengths, times, latencies in ms, ``sla_met``."""
        from sagescale.sim.export import requests_table

        frame: pd.DataFrame = requests_table(self.run).to_pandas()
        return frame

    @property
    def timeline(self) -> pd.DataFrame:
        """A row a tick, as ``--timeline`` writes them."""
        from sagescale.sim.export import timeline_frame

        return timeline_frame(self.document.runs[0].timeline, self.document.trace.started_at)

    def to_html(self) -> str:
        """Return the run in pictures: one page that opens without a network."""
        return _page(self.document)


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """A comparison: its runs in the order of the ranking.

    Attributes:
        document: everything that is known of it, as ``--json`` writes it.
    """

    document: ResultDocument

    @property
    def runs(self) -> pd.DataFrame:
        """A row a run: name, policy, predictor, attainment, GPU-hours by pool and in all, and p99 in ms."""
        import pandas as pd

        return pd.DataFrame(
            {
                "name": run.name,
                "policy": run.policy,
                "predictor": run.predictor,
                "attainment": run.sla.attainment,
                "gpu_hours": run.gpu_hours.total,
                **{f"{pool}_gpu_hours": run.gpu_hours.pools.get(pool) for pool in self.document.pools},
                "ttft_p99_ms": run.ttft_ms.p99,
                "itl_p99_ms": run.itl_ms.p99,
            }
            for run in self.document.runs
        )

    def to_html(self) -> str:
        """Return the comparison in pictures: one page that opens without a network."""
        return _page(self.document)


def _page(document: ResultDocument) -> str:
    from sagescale.report.html import render_html

    return render_html(document)


def _settings(config: Keys | None) -> tuple[list[Path], dict[str, tuple[str, object]]]:
    """Return a configuration as files, and as keys by where they were given."""
    if config is None:
        return [], {}
    if isinstance(config, (str, os.PathLike)):
        return [Path(config)], {}
    return [], {f"config[{key!r}]": (key, value) for key, value in config.items()}
