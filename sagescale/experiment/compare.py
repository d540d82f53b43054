"""The comparison: a grid of runs, baselines and references beside them, and who wins."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sagescale.document import (
    ComparisonInfo,
    ComparisonTiming,
    FailedRun,
    Forecaster,
    Replicates,
)
from sagescale.experiment.answer import ServingChoice, answer, choices_of, gpu_hour_price, ways_of
from sagescale.experiment.execute import Failure, run_tasks
from sagescale.experiment.forecasts import (
    FORECAST_ONCE,
    ForecastResult,
    ForecastTask,
    forecast_once,
    needs_forecasts,
)
from sagescale.experiment.grid import (
    Entry,
    grid_entries,
    scenario_of,
    scenario_of_run,
    static_entry,
    static_scenario,
)
from sagescale.experiment.misses import counterfactuals, split_misses
from sagescale.experiment.searches import peak_sizes
from sagescale.experiment.tasks import (
    ClairvoyantTask,
    Outcome,
    RunTask,
    SearchTask,
    StaticSearchTask,
    foreseen,
)
from sagescale.experiment.verdict import (
    closed_loop_runs,
    mean_interval,
    open_loop_error,
    rank,
    verdict,
)
from sagescale.experiment.workload import true_load
from sagescale.fleet import within_limits
from sagescale.perf import ProfileModel
from sagescale.perf.validate import unfit_warnings
from sagescale.sim.result import configuration, json_value, profile_info, result_document
from sagescale.sim.unused import unused_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sagescale.document import MissSplit, ProfileInfo, ResultDocument, RunDocument, WithoutFaults
    from sagescale.experiment.execute import Backend
    from sagescale.experiment.forecasts import ForecastMemo
    from sagescale.experiment.grid import Variant
    from sagescale.experiment.searches import Schedule, StaticSizes
    from sagescale.experiment.tasks import Result, Task
    from sagescale.experiment.workload import Workload
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.faults import Faults

SearchKind = TypeVar("SearchKind", StaticSearchTask, ClairvoyantTask)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to compare.

    Attributes:
        variants: the configurations, at least one.
        policies: names; ``reactive`` and the static pairs are always there as well.
        predictors: names, for the policies that use forecasts.
        attainment: the share of requests that must meet both targets.
        replicates: how many copies of the trace every run is made on, the trace itself the first.
        faults: what goes wrong in every run, references and searches included; None is nothing.
    """

    variants: Sequence[Variant]
    policies: Sequence[str]
    predictors: Sequence[str]
    attainment: float = 0.99
    replicates: int = 1
    faults: Faults | None = None


def compare(
    workload: Workload,
    comparison: Comparison,
    backend: Backend,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ResultDocument:
    """Run a comparison.

    Two rounds: first whatever needs no forecast (the forecasts themselves, the searches, the true-load runs
    and the counterfactuals that split misses by cause), then the runs that use what the first found.

    Args:
        workload: the trace and the engines.
        comparison: what to compare.
        backend: where the runs are done.
        progress: called with tasks done and tasks known so far.

    Returns:
        A document whose runs are in the order of the ranking, with ``comparison`` filled in.
    """
    work = _Work(workload, comparison, backend, progress)
    work.run()
    return work.document()


@dataclass(slots=True)
class _Work:
    workload: Workload
    comparison: Comparison
    backend: Backend
    progress: Callable[[int, int], None] | None
    entries: list[Entry] = field(default_factory=list)
    results: dict[Task, Result] = field(default_factory=dict)
    failures: dict[Task, str] = field(default_factory=dict)
    memos: dict[ForecastTask, ForecastMemo] = field(default_factory=dict)
    interrupted: bool = False
    known: int = 0
    began: float = field(default_factory=time.perf_counter)

    # -- what to do -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Do everything that is to be done, or as much as an interruption allows."""
        made = self.comparison
        self.entries = self._under_faults(grid_entries(made.variants, made.policies, made.predictors))
        scenarios = list(dict.fromkeys(scenario_of(variant) for variant in made.variants))
        self.entries += self._under_faults(self._peaks())
        wanted = [task for entry in self.entries for task in self._of_entry(entry)]
        later = dict.fromkeys(task for task in wanted if needs_forecasts(task))
        first: list[Task] = [
            *(
                ForecastTask.of(task, series)
                for task in later
                if forecast_once(self.workload, task)
                for series in FORECAST_ONCE
            ),
            *(self._search(ClairvoyantTask, scenario) for scenario in scenarios),
            *(self._search(StaticSearchTask, scenario) for scenario in self._fixed(scenarios)),
            *(task for task in wanted if task not in later),
        ]
        self._do(first, later=len(later) + 2 * len(scenarios))
        self.entries += self._under_faults(self._found_in_hindsight(scenarios))
        self._do([task for entry in self.entries for task in self._of_entry(entry)])

    def _under_faults(self, entries: Sequence[Entry]) -> list[Entry]:
        faults = self.comparison.faults
        return [
            dataclasses.replace(entry, task=dataclasses.replace(entry.task, faults=faults))
            for entry in entries
        ]

    def _fixed(self, scenarios: Sequence[Variant]) -> list[Variant]:
        """The scenarios that differ to a fixed pair, whose crashed instances only a tick makes good."""
        if self.comparison.faults is not None:
            return list(scenarios)
        interval_s = self.comparison.variants[0].config.adjustment_interval_sec
        return list(dict.fromkeys(static_scenario(scenario, interval_s) for scenario in scenarios))

    def _search(self, kind: type[SearchKind], scenario: Variant) -> SearchKind:
        made = self.comparison
        return kind(scenario.config, scenario.simulator, made.attainment, faults=made.faults)

    def _of_entry(self, entry: Entry) -> list[RunTask]:
        """All runs of an entry: on every replicate, and those that split its misses."""
        return [*self._on_replicates(entry.task), *counterfactuals(entry.task).values()]

    def _do(self, tasks: Sequence[Task], later: int = 0) -> None:
        unique = [
            task for task in dict.fromkeys(tasks) if task not in self.results and task not in self.failures
        ]
        # By replicate, so that workers keep their trace; the most expensive first within one.
        unique.sort(key=lambda task: (getattr(task, "replicate", 0), _rank(task)))
        before = len(self.results) + len(self.failures)
        self.known = before + len(unique) + later

        def done(task: Task, result: Result | Failure) -> None:
            if isinstance(result, Failure):
                self.failures[task] = result.error
            else:
                self.results[task] = result
                if isinstance(task, ForecastTask) and isinstance(result, ForecastResult):
                    self.memos[task] = result.memo
            if self.progress is not None:
                self.progress(len(self.results) + len(self.failures), self.known)

        if unique and not self.interrupted:
            memos = dict(self.memos)
            self.interrupted = not run_tasks(self.backend, self.workload, unique, memos, done)

    def _on_replicates(self, task: RunTask) -> list[RunTask]:
        return [
            task,
            *(
                dataclasses.replace(task, replicate=number, document=False)
                for number in range(1, self.comparison.replicates)
            ),
        ]

    def _peaks(self) -> list[Entry]:
        """The fixed pair that the busiest windows of each pool need by the classic formulas.

        Interval and headroom make a pair: where they make several, each has its variant's name.
        """
        peaks: dict[RunTask, Entry] = {}
        for variant in self.comparison.variants:
            trace = foreseen(self.workload, variant.config, variant.simulator)
            scenario = scenario_of(variant)
            config = variant.config
            model = ProfileModel(self.workload.modelled(variant.config, variant.simulator))
            load = true_load(trace, float(config.adjustment_interval_sec))
            sizes = within_limits(peak_sizes(load, config, model), config.fleet)
            if config.gpus_of(sizes) <= config.max_gpu_budget:
                [fixed] = self._fixed([scenario])
                entry = static_entry(fixed, "peak", sizes)
                if entry.task not in peaks and entry.name in {one.name for one in peaks.values()}:
                    entry = dataclasses.replace(entry, name=f"static/peak {variant.label}")
                peaks.setdefault(entry.task, entry)
        return list(peaks.values())

    def _found_in_hindsight(self, scenarios: Sequence[Variant]) -> list[Entry]:
        found = []
        for scenario in self._fixed(scenarios):
            fixed: StaticSizes | None = self.results.get(self._search(StaticSearchTask, scenario))  # type: ignore[assignment]  # a search answers with sizes
            if fixed is not None and fixed.sizes is not None:
                found.append(static_entry(scenario, "cheapest", fixed.sizes))
        for scenario in scenarios:
            schedule: Schedule | None = self.results.get(self._search(ClairvoyantTask, scenario))  # type: ignore[assignment]  # a search answers with a schedule
            if schedule is not None:
                name = " ".join(filter(None, ("clairvoyant", scenario.label)))
                task = RunTask(
                    scenario.config, scenario.simulator, schedule=schedule, load="true", document=True
                )
                chosen = schedule.settings(scenario.config.pool_names)
                found.append(
                    Entry(
                        name, "clairvoyant", "oracle", "hindsight", task, (*scenario.differs, *chosen.items())
                    )
                )
        return found

    # -- what it found --------------------------------------------------------------------------------

    def document(self) -> ResultDocument:
        """Put together whatever is there."""
        made = self.comparison
        runs: list[RunDocument] = []
        failed, not_run = [], []
        references = self._references()
        for entry in self.entries:
            result = self.results.get(entry.task)
            if isinstance(result, Outcome) and result.document is not None:
                reference = references.get(scenario_of_run(entry.task))
                regret = None if reference is None else result.score.gpu_hours - reference
                runs.append(self._run_document(entry, result.document, regret))
            elif entry.task in self.failures:
                failed.append(FailedRun(name=entry.name, error=self.failures[entry.task]))
            else:
                not_run.append(entry.name)
        for task, error in self.failures.items():
            if isinstance(task, SearchTask):
                name = "static/cheapest" if isinstance(task, StaticSearchTask) else "clairvoyant"
                failed.append(FailedRun(name=name, error=error))
        ranked, reaching = rank(runs, made.attainment)
        closed = closed_loop_runs(ranked)
        holding = sum(run.name in reaching for run in closed)
        winner, sentence = verdict(closed, holding, made.attainment)
        sentence += open_loop_error(ranked, winner)
        base = made.variants[0]
        found = ComparisonInfo(
            attainment_asked=made.attainment,
            reaching=reaching,
            winner=winner,
            verdict=sentence,
            clairvoyant_gpu_hours=min(self._closed_loop(references).values(), default=None),
            replicates=made.replicates,
            forecasters=self._forecasters(),
            failed=failed,
            interrupted=self.interrupted,
            not_run=not_run,
            timing=ComparisonTiming(wall_s=time.perf_counter() - self.began),
        )
        price = gpu_hour_price(base.simulator, self.workload.engines(base.config))
        document = result_document(
            self.workload.trace(),
            self.workload.modelled(base.config, base.simulator),
            configuration(base.config, base.simulator),
            ranked,
            self._warnings(ranked),
            comparison=found,
        )
        why = "interrupted" if self.interrupted else ""
        engines = self._named_engines(ranked)
        choices = choices_of(closed, made.attainment, engines)
        what = answer(
            base.config, made.attainment, *choices,
            price=price, not_searched=why, itl_statistic=base.simulator.itl_statistic,
        )  # fmt: skip
        if engines:
            what = dataclasses.replace(what, ways=ways_of(closed, made.attainment, engines))
        return dataclasses.replace(document, gpu_hour_price=price, answer=what if ranked else None)

    def _run_document(self, entry: Entry, measured: RunDocument, regret: float | None) -> RunDocument:
        faults, replicates = measured.faults, None
        if faults is not None:
            faults = dataclasses.replace(faults, without=self._without_faults(entry))
        if self.comparison.replicates > 1:
            outcomes = [self.results.get(task) for task in self._on_replicates(entry.task)]
            scores = [outcome.score for outcome in outcomes if isinstance(outcome, Outcome)]
            hours = [score.gpu_hours for score in scores]
            attained = [score.attainment for score in scores]
            replicates = Replicates(
                gpu_hours=hours,
                attainment=attained,
                gpu_hours_interval=mean_interval(hours),
                attainment_interval=mean_interval(attained),
            )
        return dataclasses.replace(
            measured,
            profile=self._own_engines(entry),
            name=entry.name,
            policy=entry.policy,
            predictor=entry.predictor,
            config={key: json_value(value) for key, value in entry.differs},
            faults=faults,
            kind=entry.kind,
            misses=self._split(entry),
            replicates=replicates,
            regret_gpu_hours=regret,
        )

    def _own_engines(self, entry: Entry) -> ProfileInfo | None:
        """The engines of a run where they are not those of the document."""
        base = self.comparison.variants[0]
        config, simulator = entry.task.config, entry.task.simulator
        own = profile_info(self.workload.modelled(config, simulator))
        return None if own == profile_info(self.workload.modelled(base.config, base.simulator)) else own

    def _named_engines(self, runs: Sequence[RunDocument]) -> dict[str, ServingChoice]:
        """How each run was served and on which engines, by its name; empty where all were alike."""
        base = self.comparison.variants[0].config
        own = self.workload.engines(base).name
        found = {
            run.name: ServingChoice(
                str(run.config.get("serving", base.serving)),
                own if run.profile is None else run.profile.name,
            )
            for run in runs
        }
        return found if len(set(found.values())) > 1 else {}

    def _split(self, entry: Entry) -> MissSplit:
        left: dict[str, int | None] = {}
        for cause, task in counterfactuals(entry.task).items():
            outcome = self.results.get(task)
            left[cause] = outcome.score.misses if isinstance(outcome, Outcome) else None
        # The very numerator of the attainment, so that the split adds up to what is reported.
        outcome = self.results[entry.task]
        assert isinstance(outcome, Outcome)
        return split_misses(outcome.score.misses, **left)

    def _without_faults(self, entry: Entry) -> WithoutFaults | None:
        outcome = self.results.get(counterfactuals(entry.task)["no_faults"])
        return outcome.score.without_faults() if isinstance(outcome, Outcome) else None

    def _references(self) -> dict[tuple[AutoscalerConfig, SimulatorConfig], float]:
        """GPU-hours of each scenario's achievable reference: the schedule, or a cheaper fixed pair."""
        references: dict[tuple[AutoscalerConfig, SimulatorConfig], float] = {}
        scenarios = {scenario_of_run(entry.task) for entry in self.entries}
        for entry in self.entries:
            outcome = self.results.get(entry.task)
            known = entry.policy == "clairvoyant" or entry.predictor == "cheapest"
            if (
                known
                and isinstance(outcome, Outcome)
                and outcome.score.attainment >= self.comparison.attainment
            ):
                for scenario in self._alike(entry, scenarios):
                    references[scenario] = min(outcome.score.gpu_hours, references.get(scenario, math.inf))
        return references

    def _closed_loop(
        self, references: dict[tuple[AutoscalerConfig, SimulatorConfig], float]
    ) -> dict[tuple[AutoscalerConfig, SimulatorConfig], float]:
        """Leave out those of open loop in a comparison of both ways, as the verdict does."""
        both = len({variant.simulator.open_loop for variant in self.comparison.variants}) > 1
        return {of: hours for of, hours in references.items() if not (both and of[1].open_loop)}

    def _alike(
        self, entry: Entry, scenarios: Iterable[tuple[AutoscalerConfig, SimulatorConfig]]
    ) -> list[tuple[AutoscalerConfig, SimulatorConfig]]:
        """The scenarios an entry is compared in: a fixed pair's are all that differ only in ticks."""
        config, simulator = scenario_of_run(entry.task)
        if entry.policy != "static" or self.comparison.faults is not None:
            return [(config, simulator)]
        interval_s = config.adjustment_interval_sec
        return [
            scenario
            for scenario in scenarios
            if (dataclasses.replace(scenario[0], adjustment_interval_sec=interval_s), scenario[1])
            == (config, simulator)
        ]

    def _forecasters(self) -> list[Forecaster]:
        by_spec: dict[tuple[str, float], list[ForecastResult]] = {}
        for task, result in self.results.items():
            if isinstance(task, ForecastTask) and isinstance(result, ForecastResult):
                by_spec.setdefault((task.spec.predictor, float(task.spec.interval_s)), []).append(result)
        return [
            Forecaster(
                predictor=predictor,
                interval_s=interval_s,
                cadence=results[0].cadence,
                windows=sum(result.windows for result in results),
                refits=sum(result.refits for result in results),
                timing={"seconds": sum(result.seconds for result in results)},
            )
            for (predictor, interval_s), results in sorted(by_spec.items())
        ]

    def _warnings(self, runs: Sequence[RunDocument]) -> list[str]:
        variants = [(variant.config, variant.simulator) for variant in self.comparison.variants]
        modelled = (self.workload.modelled(*variant) for variant in variants)
        warnings = list(dict.fromkeys(line for engines in modelled for line in unfit_warnings(engines)))
        warnings += unused_warnings(self.workload.trace(), variants)
        rejected = max((run.requests.rejected for run in runs), default=0)
        if rejected:
            warnings.append(
                f"{rejected} requests are larger than the KV memory (isl + osl): rejected at arrival and "
                "counted as misses of the policy"
            )
        targets = {(run.sla.target_ttft_ms, run.sla.target_itl_ms, run.sla.itl_statistic) for run in runs}
        if len(targets) > 1:
            warnings.append(
                "runs have different TTFT or ITL targets: their attainments are not the same promise"
            )
        gpus = {self.workload.engines(variant.config).gpu for variant in self.comparison.variants}
        if len(gpus) > 1:
            warnings.append(
                f"the engines are on different GPUs ({', '.join(sorted(gpus))}): an hour of one is no "
                "hour of another"
            )
        if self.interrupted:
            warnings.append("interrupted: the comparison holds what was done by then")
        return warnings


def _rank(task: Task) -> int:
    """Expensive tasks first, as far as their kind tells."""
    slow = {"arima": 0, "auto": 0, "prophet": 1}
    if isinstance(task, ForecastTask):
        return slow.get(task.spec.predictor, 4)
    if isinstance(task, RunTask) and task.load == "named":
        return slow.get(task.config.load_predictor_type, 5)
    if isinstance(task, SearchTask):
        return 2 if isinstance(task, ClairvoyantTask) else 3
    return 5
