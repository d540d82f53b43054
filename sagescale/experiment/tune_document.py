"""What tuning found, as the document that everything is rendered from."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from sagescale.document import (
    SCHEMA_VERSION,
    ComparisonTiming,
    TuneDocument,
    TunePoint,
    TuneRow,
    TuneScore,
)
from sagescale.experiment.tune import LEVELS
from sagescale.experiment.tune_trials import TUNED_KEYS, with_candidate
from sagescale.experiment.verdict import percent
from sagescale.sim.result import trace_info
from sagescale.version import __version__

if TYPE_CHECKING:
    from sagescale.experiment.tune import Goal, Judged, Tuned
    from sagescale.experiment.tune_trials import Trial, Trials
    from sagescale.planner import AutoscalerConfig

__all__ = ["tune_document"]


def tune_document(
    tuned: Tuned, goal: Goal, earlier: Trials, later: Trials, validation: str, wall_s: float
) -> TuneDocument:
    """Put together what was found.

    Args:
        tuned: the finding.
        goal: what was asked.
        earlier: what it was chosen on.
        later: what it was judged on.
        validation: what that is, in words.
        wall_s: how long it took.
    """
    trace, config = earlier.workload.recorded, earlier.config
    whole = dataclasses.replace(earlier.workload, until_s=math.inf)

    def row(judged: Judged | None) -> TuneRow | None:
        return None if judged is None else _row(config, judged.earlier, judged.later)

    chosen = row(tuned.chosen)
    failures = list(dict.fromkeys((*earlier.failures, *later.failures)))
    return TuneDocument(
        schema_version=SCHEMA_VERSION,
        sagescale=__version__,
        trace=dataclasses.replace(trace_info(trace), transform=list(whole.trace().transforms)),
        validation=validation,
        profile=earlier.workload.profile.name,
        attainment_asked=goal.attainment,
        replicates=goal.replicates,
        simulations=earlier.simulated + later.simulated,
        chosen=chosen,
        configured=row(tuned.configured),
        others=[_row(config, other.earlier, other.later) for other in tuned.others],
        holds=None if chosen is None or chosen.later is None else chosen.later.attainment >= goal.attainment,
        verdict=_verdict(tuned, chosen, goal.attainment),
        curve=[
            TunePoint(attainment=level, reached=None if trial is None else _row(config, trial, None))
            for level, trial in zip(LEVELS, tuned.curve, strict=True)
        ],
        tried=[(trial.candidate.name, trial.attainment, trial.gpu_hours) for trial in tuned.tried],
        warnings=[*trace.warnings, *(f"not tried: {failure}" for failure in failures)],
        interrupted=tuned.interrupted,
        timing=ComparisonTiming(wall_s=wall_s),
    )


def _row(config: AutoscalerConfig, earlier: Trial, later: Trial | None) -> TuneRow:
    resolved = with_candidate(config, earlier.candidate)
    keys = {name: getattr(resolved, name) for name in TUNED_KEYS}
    return TuneRow(
        name=earlier.candidate.name,
        config={name: value for name, value in keys.items() if value is not None},
        earlier=_score(earlier),
        later=None if later is None else _score(later),
    )


def _score(trial: Trial) -> TuneScore:
    return TuneScore(
        attainment=trial.attainment,
        gpu_hours=trial.gpu_hours,
        worst_5_min_attainment=trial.worst_attainment,
    )


def _verdict(tuned: Tuned, chosen: TuneRow | None, asked: float) -> str:
    if chosen is None:
        return "Nothing was tried to the end."
    earlier, later = chosen.earlier, chosen.later
    if earlier.attainment < asked:
        return (
            f"Nothing tried reaches {percent(asked)} on the earlier part; {chosen.name} comes nearest "
            f"with {percent(earlier.attainment)}: wider limits, a looser target, a faster startup or a "
            "larger budget would have to help."
        )
    if later is None:
        return f"{chosen.name} holds on the earlier part at the least GPU-hours; it was not judged further."
    if later.attainment < asked:
        text = (
            f"{chosen.name} does NOT hold on the later part: {percent(later.attainment)} of "
            f"{percent(asked)} asked. The earlier part is too short or too calm to tell: tune on a longer "
            "trace, or for a higher --attainment."
        )
        holding = [
            other for other in tuned.others if other.later is not None and other.later.attainment >= asked
        ]
        if holding:
            other = holding[0]
            assert other.later is not None  # as just looked for
            text += f" {other.earlier.candidate.name} holds there, at {other.later.gpu_hours:.2f} GPU-hours."
        return text
    return f"{chosen.name} holds on the later part: {percent(later.attainment)}{_saving(tuned)}."


def _saving(tuned: Tuned) -> str:
    """Against the configuration as it was given, on the later part."""
    chosen, own = tuned.chosen, tuned.configured
    if chosen is None or own is None or own.later is None or chosen.later is None:
        return ""
    if own.earlier.candidate == chosen.earlier.candidate:
        return ", as configured"
    hours = f"{chosen.later.gpu_hours:.2f} GPU-hours; as configured {own.later.gpu_hours:.2f}"
    return f", at {hours} and {percent(own.later.attainment)}"
