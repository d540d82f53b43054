"""What tuning is made of, from the command line's words, and the file it writes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.live.setup import configured

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.document import TuneDocument, TuneScore
    from sagescale.experiment.workload import Workload
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.loading import Settings
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.part import Part
    from sagescale.trace import GivenTrace, TransformSpec

_WARM_UP_S, _WARM_UP_SHARE = 600.0, 0.1
_LEAST_WINDOWS = 5


@dataclass(frozen=True, slots=True)
class TuneSetup:
    """Both parts with what they are parts of, and the configuration to start from."""

    settings: Settings
    config: AutoscalerConfig
    simulator: SimulatorConfig
    earlier: tuple[Workload, Part]
    later: tuple[Workload, Part]
    validation: str


def load_tuning(
    trace: GivenTrace,
    validate: str,
    profile: str | None,
    files: Sequence[Path],
    overrides: Sequence[str],
    transforms: TransformSpec,
    attainment: float,
) -> TuneSetup:
    """Read and check everything tuning needs.

    What is to be kept is also what the slo policy sizes for, unless the configuration says otherwise.

    Raises:
        InputError: something is wrong with it; the message says what and where.
    """
    from sagescale.errors import InputError
    from sagescale.experiment.workload import Workload
    from sagescale.sim.part import Part
    from sagescale.sim.turns import clock_s

    share = _share(validate)
    found = configured(profile, files, overrides)
    settings, config, simulator = found.settings, found.config, found.simulator
    if "target_attainment" not in settings.explicit and 0.5 <= attainment < 1.0:
        config = dataclasses.replace(config, target_attainment=attainment)
    if simulator.concurrent_sessions is not None:
        raise InputError(
            f"concurrent_sessions is {simulator.concurrent_sessions}; expected null: in a closed population "
            "no part of the time is later than another whatever the configuration"
        )
    whole = Workload(trace.read(), transforms, found.engines)
    duration_s = clock_s(whole.trace(), simulator)
    cut_s = math.inf if share is None else (1.0 - share) * duration_s
    used_s = min(cut_s, duration_s)
    least_s = float(_LEAST_WINDOWS * config.adjustment_interval_sec)
    if min(used_s, duration_s - cut_s if share is not None else math.inf) < least_s:
        closed = duration_s < whole.trace().duration_s
        spans = f"sessions begin within {duration_s:g} s, which" if closed else f"{duration_s:g} s"
        raise InputError(
            f"{trace}: {spans} with --validate {validate} leaves a part shorter than {least_s:g} s; "
            f"expected at least {_LEAST_WINDOWS} intervals of {config.adjustment_interval_sec} s in each"
        )
    warm_up_s = _warm_up(used_s)
    earlier = dataclasses.replace(whole, until_s=cut_s), Part(warm_up_s)
    if share is not None:
        words = f"the last {100 * share:g} % of the trace, from {cut_s:.0f} s on"
        return TuneSetup(settings, config, simulator, earlier, (whole, Part(cut_s)), words)
    other = Workload(trace.beside(validate).read(), transforms, found.engines)
    other_s = clock_s(other.trace(), simulator)
    if other_s < least_s:
        raise InputError(
            f"--validate {validate}: lasts {other_s:g} s; expected at least {_LEAST_WINDOWS} intervals of "
            f"{config.adjustment_interval_sec} s"
        )
    later = other, Part(_warm_up(other_s))
    return TuneSetup(settings, config, simulator, earlier, later, f"another trace, {validate}")


def _warm_up(duration_s: float) -> float:
    """What is not measured at the beginning: pools start at the right size, and forecasters know nothing."""
    return min(_WARM_UP_S, _WARM_UP_SHARE * duration_s)


def _share(validate: str) -> float | None:
    """A share of the trace, or None where the text is another trace."""
    from sagescale.errors import InputError

    try:
        share = float(validate)
    except ValueError:
        return None
    if not 0.0 < share < 1.0:
        raise InputError(f"--validate {validate}: expected a share of the trace between 0 and 1, or a trace")
    return share


def read_intervals(text: str | None, configured: int) -> tuple[int, ...]:
    """Read ``30,60``: whole seconds; the configured interval comes first, whether given or not.

    Raises:
        InputError: a part is no whole number of seconds of at least 1.
    """
    from sagescale.errors import InputError

    if text is None:
        return (configured,)
    seconds = []
    for part in text.split(","):
        if not part.strip().isdecimal() or int(part) < 1:
            raise InputError(f"--intervals {text}: '{part.strip()}' is no whole number of seconds, 1 or more")
        seconds.append(int(part))
    return tuple(dict.fromkeys((configured, *seconds)))


def tuned_yaml(document: TuneDocument, settings: Settings, command: str) -> str:
    """Write the chosen configuration as a file for ``plan``: the keys tuned, then those that were given."""
    from sagescale.planner.describe import yaml_text

    chosen = document.chosen
    assert chosen is not None  # the caller has looked
    lines = [
        f"# {command}",
        f"# Asked: {100 * document.attainment_asked:g} % at the least GPU-hours.",
        f"# Engines: --profile {document.profile}, unless profile_data_dir is given below.",
        f"# {document.verdict}",
        f"# Earlier part: {_scored(chosen.earlier)}.",
        *(
            []
            if chosen.later is None
            else [f"# Later part ({document.validation}): {_scored(chosen.later)}."]
        ),
        "",
        *(f"{name}: {yaml_text(value)}" for name, value in chosen.config.items()),
    ]
    given = {
        name: item.value
        for keys in settings.given.values()
        for name, item in keys.items()
        if name not in chosen.config
    }
    if given:
        lines += ["", "# As given."]
        lines += [f"{name}: {yaml_text(value)}" for name, value in given.items()]
    return "\n".join(line.replace("\n", " ") for line in lines) + "\n"


def _scored(score: TuneScore) -> str:
    return f"attainment {100 * score.attainment:.2f} %, {score.gpu_hours:.3f} GPU-hours"
