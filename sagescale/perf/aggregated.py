"""An aggregated section where none was measured: from a prefill curve and a decode surface of the same GPUs.

A step with prompt chunks is taken apart as prefill is: causal attention of c tokens that follow p others
reads ``c p + c^2 / 2`` pairs, and a lone prompt's ``b S^2`` are its ``S^2 / 2``, so a pair costs 2 b wherever
it is. What is left of TTFT is the matrix work of so many tokens, never less than a decode step without KV;
each KV token of the decoding requests costs what it adds to a decode step, and a request what it adds beyond
its one token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.perf.profile import (
    DEFAULT_MAX_BATCHED_TOKENS,
    AggregatedProfile,
    PrefillProfile,
)
from sagescale.perf.steps import compile_steps
from sagescale.perf.surfaces import PrefillCurve, compile_decode

if TYPE_CHECKING:
    from sagescale.perf.profile import Profile


def estimate_aggregated(profile: Profile) -> AggregatedProfile:
    """Return the section, marked ``estimated``: slots, KV memory and GPUs of the decode instance.

    Raises:
        InputError: prefill and decode instances have different GPUs, so neither says what the other's work
        takes.
    """
    from sagescale.perf.fit.regression import relative_nnls, round_digits

    prefill, decode = profile.prefill, profile.decode
    if prefill.gpus_per_instance != decode.gpus_per_instance:
        raise InputError(
            f"profile {profile.name}: prefill instances have {prefill.gpus_per_instance} GPUs and decode "
            f"ones {decode.gpus_per_instance}; expected the same, to estimate aggregated serving from both "
            "(or a profile with an aggregated section)"
        )
    curve, table = PrefillCurve(prefill), compile_decode(decode)
    loads, contexts = np.meshgrid(decode.concurrency, decode.context_tokens, indexing="ij")
    n, held = loads.ravel(), (loads * contexts).ravel()
    _, per_request, per_token = relative_nnls((np.ones_like(n), n, held), np.ravel(decode.itl_ms)).tolist()

    slots = decode.max_num_seqs
    knots = sorted({1.0, float(slots), *(float(isl) for isl in prefill.isl_tokens)})
    knots = [tokens for tokens in knots if tokens <= prefill.isl_tokens[-1]]
    if len(knots) < 2:
        knots = [1.0, float(prefill.isl_tokens[-1])]
    emptiest = [table.base_ms[min(int(tokens), slots), 0] for tokens in knots]
    matrix = [curve.ttft_ms(tokens) - curve.quadratic_ms * tokens * tokens for tokens in knots]
    times = np.maximum.accumulate(np.maximum(matrix, emptiest))
    slope = float((times[-1] - times[0]) / (knots[-1] - knots[0]))
    return AggregatedProfile(
        **decode.but_assumed(),
        assumed=(*decode.assumed, "max_batched_tokens"),
        max_batched_tokens=DEFAULT_MAX_BATCHED_TOKENS,
        tokens=tuple(knots),
        tokens_ms=tuple(round_digits(ms) for ms in times.tolist()),
        running_ms=round_digits(max(0.0, per_request - slope)),
        kv_ms=round_digits(per_token),
        cross_ms=round_digits(2.0 * curve.quadratic_ms),
        square_ms=round_digits(2.0 * curve.quadratic_ms),
        estimated=True,
    )


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
    times = [steps.step_ms(0, 0, 0, [(isl, 0)]) for isl in lengths]
    done, spent_ms = max_batched_tokens, times[-1]
    while len(lengths) < 2 or lengths[-1] < _LONGEST:
        lengths.append(2 * lengths[-1])
        while done < lengths[-1]:
            spent_ms += steps.step_ms(0, 0, 0, [(max_batched_tokens, done)])
            done += max_batched_tokens
        times.append(spent_ms)
    prefill = PrefillProfile(
        gpus_per_instance=section.gpus_per_instance,
        isl_tokens=tuple(map(float, lengths)),
        ttft_ms=tuple(times),
        floor_ms=times[0],
    )
    return replace(profile, prefill=prefill, decode=section, aggregated=section)
