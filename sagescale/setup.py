"""What simulations and comparisons are made of: a trace, engines and configurations, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from sagescale.document import ResultDocument
    from sagescale.experiment.grid import Variant
    from sagescale.experiment.workload import Workload
    from sagescale.perf import Profile
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.faults import Faults
    from sagescale.sim.run import Run
    from sagescale.trace import GivenTrace, Trace, TransformSpec


@dataclass(frozen=True, slots=True)
class Setup:
    """A trace, transformed; the engines, overridden; and both configurations, resolved.

    ``profile`` is what the planner assumes; ``world`` what the engines really are, None where that is it.
    """

    trace: Trace
    profile: Profile
    config: AutoscalerConfig
    simulator: SimulatorConfig
    world: Profile | None = None

    @property
    def modelled(self) -> Profile:
        """The engines as they really are."""
        return self.profile if self.world is None else self.world

    def simulate(
        self, faults: Faults | None = None, progress: Callable[[float], None] | None = None
    ) -> tuple[Run, Run | None]:
        """Replay the trace, and with faults once more without them.

        Raises:
            InputError: the initial pools contradict the limits or the budget.
        """
        from sagescale.sim.simulate import simulate

        given = (self.trace, self.profile, self.config, self.simulator)
        run = simulate(*given, world=self.world, faults=faults, progress=progress)
        return run, None if faults is None else simulate(*given, world=self.world, progress=progress)

    def document(
        self, runs: tuple[Run, Run | None], faults: Faults | None = None, *, search: bool | None = None
    ) -> ResultDocument:
        """Return the result document of what ``simulate`` gave, with what to do.

        ``search`` says whether to look for fixed sizes; see ``experiment.answer.with_answer``.
        """
        from sagescale.experiment.answer import with_answer
        from sagescale.sim.result import configuration, result_document, run_document

        run, without = runs
        name = f"{self.config.policy}/{self.config.load_predictor_type}"
        made = result_document(
            self.trace,
            self.profile,
            configuration(self.config, self.simulator),
            [run_document(run, name, without_faults=without)],
            self.warnings(run),
            world=self.world,
        )
        parts = (self.trace, self.modelled, self.config, self.simulator)
        return with_answer(made, *parts, faults=faults, search=search)

    def warnings(self, run: Run) -> list[str]:
        """What the reader of a run's result should know, one line each (the trace's own come first)."""
        from sagescale.perf.validate import unfit_warnings
        from sagescale.sim.unused import unused_warnings

        found = unfit_warnings(self.modelled)
        if run.rejected:
            found.append(
                f"{run.rejected} requests are larger than the KV memory of {run.world.max_kv_tokens} tokens "
                "(isl + osl): rejected at arrival and counted unfinished"
            )
        if self.simulator.first_token == "decode" and self.config.serving == "disaggregated":
            found.append(
                "first tokens come from decode (first_token: decode): TTFT includes hand-off and a step"
            )
        found += unused_warnings(self.trace, [(self.config, self.simulator)])
        if self.config.no_operation:
            found.append("no_operation: decisions were made but not acted on; the pools stayed as they began")
        unfinished = len(run.requests) - len(run.completed) - run.rejected - run.timed_out
        if unfinished:
            found.append(
                f"{unfinished} requests could never be served: work was left when nothing could proceed"
            )
        return found


def load_setup(
    trace: Trace | GivenTrace,
    profile: str | Profile | None,
    files: Sequence[Path],
    overrides: Sequence[str],
    transforms: TransformSpec,
    options: Mapping[str, tuple[str, object]],
    world: str | Profile | None = None,
) -> Setup:
    """Read and check everything a simulation needs.

    ``options`` are key and value by the option that is short for setting it. With a ``world`` and neither a
    profile nor measured data, the planner assumes an estimate of the world's model and GPU.

    Raises:
        InputError: something is wrong with it; the message says what and where.
    """
    from sagescale.experiment.answer import gpu_hour_price
    from sagescale.live.setup import configured
    from sagescale.perf import estimate_of, load_profile
    from sagescale.sim.config import with_overrides
    from sagescale.trace import Trace, apply_transforms

    real = load_profile(world) if isinstance(world, str) else world

    def estimated(simulator: SimulatorConfig) -> Profile:
        assert real is not None  # else not asked for
        return estimate_of(with_overrides(real, simulator, "disaggregated"))

    found = configured(profile, files, overrides, options, None if real is None else estimated)
    requests = apply_transforms(trace if isinstance(trace, Trace) else trace.read(), transforms)
    true = None if real is None else with_overrides(real, found.simulator, found.config.serving)
    setup = Setup(requests, found.profile, found.config, found.simulator, true)
    gpu_hour_price(setup.simulator, setup.modelled)  # a price that is missing is refused before the run
    return setup


def load_comparison(
    trace: Trace | GivenTrace,
    profile: str | Profile | None,
    configurations: Iterable[tuple[Sequence[Path], Sequence[str], Mapping[str, tuple[str, object]]]],
    transforms: TransformSpec,
) -> tuple[Workload, list[Variant]]:
    """Read and check everything a comparison needs.

    ``configurations`` are files, overrides and options each, as for ``live.setup.configured``; at least one.

    Raises:
        InputError: something is wrong with it; the message says what and where.
    """
    from sagescale.experiment.grid import label_variants
    from sagescale.experiment.workload import Workload
    from sagescale.live.setup import configured
    from sagescale.planner import AutoscalerConfig
    from sagescale.trace import Trace

    labelled = []
    engines: dict[str | None, Profile] = {}  # by measured data
    named: dict[str, Profile] = {}
    for files, overrides, options in configurations:
        found = configured(profile, files, overrides, options)
        if found.config.profile is not None:
            named[found.config.profile] = found.engines
        given = found.settings.given[AutoscalerConfig].get("profile_data_dir")
        data = None if given is None or given.value is None or profile is not None else str(given.value)
        for other in engines.keys() - {data}:
            raise InputError(
                f"profile_data_dir is {other} in one configuration and {data} in another; one "
                "comparison has one profile"
            )
        engines.setdefault(data, found.engines)
        labelled.append((files[0].stem if files else "", found.config, found.simulator))
    variants = label_variants(labelled)
    requests = trace if isinstance(trace, Trace) else trace.read()
    workload = Workload(requests, transforms, next(iter(engines.values())), others=tuple(named.items()))
    workload.trace()  # refuses transforms that cannot be, now rather than in every run
    _check_prices(workload, variants)
    return workload, variants


def _check_prices(workload: Workload, variants: Sequence[Variant]) -> None:
    """Refuse a price that is missing, or money of engines whose GPUs have different prices."""
    from sagescale.experiment.answer import gpu_hour_price

    prices = {
        gpu_hour_price(variant.simulator, engines): engines.gpu
        for variant in variants
        for engines in [workload.engines(variant.config)]
    }
    if len(prices) > 1:
        said = ", ".join(f"{price} of {gpu}" for price, gpu in prices.items())
        raise InputError(f"gpu_hour_price is {said}; expected one price in one comparison")


def choose(option: str, text: str, names: Sequence[str]) -> tuple[str, ...]:
    """Read ``a,b`` or ``all``, each name once and in the order given.

    Raises:
        InputError: a name is none of ``names``.
    """
    if text.strip() == "all":
        return tuple(names)
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in chosen:
        if name not in names:
            raise InputError(
                f"{option} {text}: '{name}' is none of {', '.join(names)} or all{did_you_mean(name, names)}"
            )
    return chosen


def choose_policies(option: str, text: str | None, variants: Sequence[Variant]) -> tuple[str, ...]:
    """Read which policies to try as ``choose`` does; None are those that are configured.

    Raises:
        InputError: a name is no policy's.
    """
    from sagescale.planner.policy import policy_names

    if text is None:
        return tuple(dict.fromkeys(variant.config.policy for variant in variants))
    return choose(option, text, policy_names())


def check_share(option: str, share: float) -> None:
    """Refuse what is no share of requests.

    Raises:
        InputError: it is not above 0 and at most 1.
    """
    if not 0.0 < share <= 1.0:
        raise InputError(f"{option} {share:g}: expected a share above 0 and at most 1")


def check_counts(*counts: tuple[str, int | None, int]) -> None:
    """Refuse counts, as option, number and least; what is not given is fine.

    Raises:
        InputError: one is below its least.
    """
    for option, count, least in counts:
        if count is not None and count < least:
            raise InputError(f"{option} {count}: expected a whole number, {least} or more")
