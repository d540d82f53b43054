"""What to do: fixed sizes all day or autoscaled ones, what each costs and keeps, in a manager's words."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from sagescale.document import AnswerInfo, Choice, ServingWay
from sagescale.experiment.grid import Variant, scenario_of, static_scenario
from sagescale.experiment.searches import StaticSizes
from sagescale.experiment.tasks import Outcome, RunTask, StaticSearchTask, fixed_sizes, perform
from sagescale.experiment.verdict import percent
from sagescale.experiment.workload import Workload
from sagescale.trace import TransformSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sagescale.document import ResultDocument, RunDocument
    from sagescale.perf import Profile
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import ItlStatistic, SimulatorConfig
    from sagescale.sim.faults import Faults
    from sagescale.trace import Trace


class ServingChoice(NamedTuple):
    """A way of serving, and the name of the engines."""

    serving: str
    profile: str


_WORTH_NAMING = 0.005
"""Shares of GPU-hours that round to 1 % or more."""

MOST_REQUESTS = 300_000
"""Requests up to which ``simulate`` searches for fixed sizes unasked: some ten runs more."""


def gpu_hour_price(simulator: SimulatorConfig, profile: Profile) -> float | None:
    """Return the price of an hour of the profile's GPU, None where no price is configured.

    Raises:
        InputError: there are prices, and none for that GPU.
    """
    return None if simulator.gpu_hour_price is None else simulator.gpu_hour_price.of(profile.gpu)


def answer(
    config: AutoscalerConfig,
    asked: float,
    fixed: Choice | None,
    autoscaled: Choice | None,
    *,
    price: float | None = None,
    not_searched: str = "",
    itl_statistic: ItlStatistic = "mean",
) -> AnswerInfo:
    """Weigh fixed sizes against autoscaled ones.

    Args:
        config: its targets.
        asked: the attainment to keep.
        fixed: the fixed sizes, None where none hold or none were looked for.
        autoscaled: the run under a policy; None where there is none.
        price: of a GPU-hour.
        not_searched: why fixed sizes were not looked for, empty where they were.
        itl_statistic: what the ITL target binds.
    """
    fixed, autoscaled = _priced(fixed, price), _priced(autoscaled, price)
    holds = [one for one in (fixed, autoscaled) if one is not None and one.attainment >= asked]
    saves = None
    if fixed is not None and autoscaled is not None and fixed.gpu_hours > 0:
        saves = 1.0 - autoscaled.gpu_hours / fixed.gpu_hours
    best = min(holds, key=lambda one: (one.gpu_hours, one is not fixed), default=None)
    take = "neither" if best is None else "fixed" if best is fixed else "autoscaled"
    itl = {"mean": "ITL", "p99": "p99 gap", "max": "largest gap"}[itl_statistic]
    targets = f"TTFT {config.target_ttft_ms:g} / {itl} {config.target_itl_ms:g} ms at {100 * asked:g} %"
    pools = len(config.pools) if fixed is None else len(fixed.sizes)
    what = "pair" if pools > 1 else "size"
    parts = [
        _in_words(fixed, "fixed ", " all day", asked)
        if fixed is not None
        else f"no fixed {what} within the limits and the budget holds"
        if not not_searched
        else f"fixed sizes were not searched for ({not_searched})",
        "no autoscaled run to compare with"
        if autoscaled is None
        else _in_words(autoscaled, f"autoscaled with {autoscaled.name} ", "", asked),
    ]
    both = fixed is not None and autoscaled is not None
    text = f"for {targets}: {', or '.join(parts) if both else '; '.join(parts)}"
    if fixed is not None or not not_searched:  # else there is nothing to weigh
        text = f"{text}: {_advice(take, saves, what, both_hold=len(holds) == 2)}"
    return AnswerInfo(
        text=text,
        attainment_asked=asked,
        take=take,
        fixed=fixed,
        autoscaled=autoscaled,
        saves=saves,
    )


def _advice(take: str, saves: float | None, what: str, *, both_hold: bool) -> str:
    """Say which to take, and why."""
    if take == "neither":
        return "neither holds; wider limits, looser targets or a faster startup would have to help"
    if not both_hold or saves is None:
        return f"take the {f'fixed {what}' if take == 'fixed' else 'autoscaled one'}"
    if take == "autoscaled":
        return f"saves {100 * saves:.0f} %" if saves >= _WORTH_NAMING else "saves less than 1 %"
    more = f"costs {-100 * saves:.0f} % more" if -saves >= _WORTH_NAMING else "saves nothing"
    return f"autoscaling {more}, take the fixed {what}"


def _in_words(choice: Choice, before: str, after: str, asked: float) -> str:
    if after:  # fixed: each pool by its name
        sizes = " + ".join(f"{low} {pool}" for pool, (low, _) in choice.sizes.items())
    else:
        sizes = " + ".join(f"{low}-{high}" if low < high else f"{low}" for low, high in choice.sizes.values())
    cost = "" if choice.cost is None else f", costing {choice.cost:,.2f}"
    short = "" if choice.attainment >= asked else ", falls short"
    hours = f"{choice.gpu_hours:.2f}" if choice.gpu_hours < 10.0 else f"{choice.gpu_hours:,.1f}"
    where = "" if choice.engines is None else f" {choice.engines}, at most {choice.gpus} GPUs"
    return f"{before}{sizes}{after}{where} ({hours} GPU-hours{cost}, {percent(choice.attainment)}{short})"


def _priced(choice: Choice | None, price: float | None) -> Choice | None:
    if choice is None or price is None:
        return choice
    return dataclasses.replace(choice, cost=price * choice.gpu_hours)


def choice_of(run: RunDocument, engines: str | None = None) -> Choice:
    """Return a run as a choice: the sizes its pools were asked to have; with engines, these and its GPUs."""
    sizes = {
        pool: [min(asked), max(asked)]
        for pool, line in run.timeline.pools.items()
        for asked in [[run.initial.get(pool, 0), *line.target]]
    }
    return Choice(
        name=run.name,
        sizes=sizes,
        attainment=run.judged_attainment.mean,
        gpu_hours=run.judged_gpu_hours.mean,
        engines=engines,
        gpus=None if engines is None else run.scaling.max_gpus,
    )


def choices_of(
    runs: Sequence[RunDocument], asked: float, engines: Mapping[str, ServingChoice] = MappingProxyType({})
) -> tuple[Choice | None, Choice | None]:
    """Return the best fixed sizes and the best autoscaled run of a comparison, each None where it has none.

    Of those that reach the attainment the cheapest, else what comes nearest.

    Args:
        runs: of the comparison.
        asked: the attainment.
        engines: of each run by its name, where they differ.
    """
    words = _told_apart(engines)
    fixed = [choice_of(run, words.get(run.name)) for run in runs if run.policy == "static"]
    scaled = [
        choice_of(run, words.get(run.name))
        for run in runs
        if run.policy != "static" and run.kind != "hindsight"
    ]
    return _best(fixed, asked), _best(scaled, asked)


def _told_apart(engines: Mapping[str, ServingChoice]) -> dict[str, str]:
    """Name the engines of each run by what tells them from those of others."""
    found = set(engines.values())
    several = [len({getattr(one, part) for one in found}) > 1 for part in ServingChoice._fields]
    return {
        name: " ".join(
            word
            for word, differs in zip((f"served {one.serving}", f"on {one.profile}"), several, strict=True)
            if differs
        )
        for name, one in engines.items()
    }


def ways_of(
    runs: Sequence[RunDocument], asked: float, engines: Mapping[str, ServingChoice]
) -> list[ServingWay]:
    """Return what each way of serving and engines take, the cheapest first, then those that hold nothing."""
    words = _told_apart(engines)
    ways = []
    for one in dict.fromkeys(engines.values()):
        own = [run for run in runs if engines[run.name] == one]
        fixed, autoscaled = choices_of(own, asked, engines)
        ways.append(
            ServingWay(
                engines=words[own[0].name],
                serving=one.serving,
                profile=one.profile,
                fixed=fixed,
                autoscaled=autoscaled,
            )
        )

    def cost(way: ServingWay) -> tuple[bool, float]:
        both = [choice for choice in (way.fixed, way.autoscaled) if choice is not None]
        best = _best(both, asked)
        return (True, 0.0) if best is None else (best.attainment < asked, best.gpu_hours)

    return sorted(ways, key=cost)


def _best(choices: Sequence[Choice], asked: float) -> Choice | None:
    def place(choice: Choice) -> tuple[bool, float, float]:
        if choice.attainment >= asked:
            return False, choice.gpu_hours, -choice.attainment
        return True, -choice.attainment, choice.gpu_hours

    return min(choices, key=place, default=None)


def cheapest_fixed(
    trace: Trace,
    engines: Profile,
    config: AutoscalerConfig,
    simulator: SimulatorConfig,
    faults: Faults | None = None,
) -> Choice | None:
    """Search the fixed sizes that keep ``target_attainment`` on a trace at the least GPU-hours.

    Returns:
        None where no pair within the limits and the budget keeps it.
    """
    workload = Workload(trace, TransformSpec(), engines)
    scenario = static_scenario(scenario_of(Variant("", config, simulator)), config.adjustment_interval_sec)
    made = scenario.config, scenario.simulator
    found = perform(workload, StaticSearchTask(*made, config.target_attainment, faults=faults))
    assert isinstance(found, StaticSizes)  # what a search for one answers
    if found.sizes is None:
        return None
    run = perform(workload, RunTask(*fixed_sizes(*made, found.sizes), faults=faults))
    assert isinstance(run, Outcome)  # what a run answers
    return Choice(
        name="static",
        sizes={pool: [size, size] for pool, size in found.sizes.items()},
        attainment=run.score.attainment,
        gpu_hours=run.score.gpu_hours,
    )


def with_answer(
    document: ResultDocument,
    trace: Trace,
    engines: Profile,
    config: AutoscalerConfig,
    simulator: SimulatorConfig,
    *,
    faults: Faults | None = None,
    search: bool | None = None,
) -> ResultDocument:
    """Add to a simulation's document what to do: its run against the cheapest fixed sizes that hold.

    Args:
        document: of one run.
        trace: what was served.
        engines: those modelled, overrides applied.
        config: of the run.
        simulator: of the run.
        faults: what went wrong in it, and does with fixed sizes.
        search: whether to search for them; None does up to ``MOST_REQUESTS`` requests.

    Raises:
        InputError: there are prices, and none for this GPU.
    """
    price = gpu_hour_price(simulator, engines)
    [run] = document.runs
    own = choice_of(run)
    searched = len(trace) <= MOST_REQUESTS if search is None else search
    fixed = cheapest_fixed(trace, engines, config, simulator, faults) if searched else None
    if config.policy == "static" and not searched:
        fixed = own
    scaled = None if config.policy == "static" else own
    why = "" if searched else "--fixed-sizes does"
    what = answer(
        config, config.target_attainment, fixed, scaled,
        price=price, not_searched=why, itl_statistic=simulator.itl_statistic,
    )  # fmt: skip
    return dataclasses.replace(document, gpu_hour_price=price, answer=what)
