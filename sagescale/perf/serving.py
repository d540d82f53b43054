"""Engines as they are served: an aggregated instance as the one engine that does both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sagescale.perf.aggregated import estimate_aggregated
from sagescale.perf.profile import PrefillProfile
from sagescale.perf.steps import compile_steps

if TYPE_CHECKING:
    from sagescale.perf.profile import Profile
    from sagescale.perf.steps import StepModel

_LONGEST = 1 << 17
"""The time of a lone prompt has knots up to so many tokens, or a step's budget, and is straight beyond."""

_PARTS = (1 / 128, 1 / 32, 1 / 8, 1 / 4, 1 / 2)
"""Of a step's budget: knots for prompts that one step computes; longer ones have them at its doubles."""


def aggregated_engines(profile: Profile, max_batched_tokens: int) -> Profile:
    """Return the profile of aggregated instances: prefill and decode are those of its aggregated section.

    A lone prompt takes the steps that it needs, ``max_batched_tokens`` tokens each; a decode step without
    prompts is the section's own. A profile without a section gets an estimated one. What is one already is
    returned as it is.

    Raises:
        InputError: there is no section and none can be estimated.
    """
    section = profile.aggregated
    if section is None:
        section = estimate_aggregated(profile)
    if profile.decode == section:
        return profile
    steps = compile_steps(section)
    lengths = sorted({max(1, round(part * max_batched_tokens)) for part in _PARTS} | {max_batched_tokens})
    while len(lengths) < 2 or lengths[-1] < _LONGEST:
        lengths.append(2 * lengths[-1])
    times = [_lone_prompt_ms(steps, isl, max_batched_tokens) for isl in lengths]
    prefill = PrefillProfile(
        gpus_per_instance=section.gpus_per_instance,
        isl_tokens=tuple(map(float, lengths)),
        ttft_ms=tuple(times),
        floor_ms=times[0],
    )
    return replace(profile, prefill=prefill, decode=section, aggregated=section)


def are_aggregated(profile: Profile) -> bool:
    """Say whether a profile's engines are aggregated instances, as :func:`aggregated_engines` makes them."""
    return profile.aggregated is not None and profile.decode == profile.aggregated


def _lone_prompt_ms(steps: StepModel, isl: int, budget: int) -> float:
    chunks = [(min(budget, isl - done), done) for done in range(0, isl, budget)]
    return sum(steps.step_ms(0, 0, 0, [chunk]) for chunk in chunks)
