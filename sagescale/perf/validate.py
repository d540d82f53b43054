"""Is a profile fit to plan with: how good it is in itself, and how much of a trace it was measured for.

Also how far one model is from what another profile's engine was measured to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.perf.fit.regression import fit_error
from sagescale.perf.fit.steps import ALL_WITH_CHUNKS, UNEQUAL, mixed_steps_ms
from sagescale.perf.model import ProfileModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sagescale.perf.profile import DecodeProfile, FitError, Profile

_MEDIAN_ERROR, _P90_ERROR, _BATCH_ERROR = 0.05, 0.15, 0.10
_FALL, _FALLING = 0.05, 0.20
_SPREAD = 0.10
_PREFILL_OUTSIDE, _DECODE_OUTSIDE = 0.05, 0.20
_SLOTS_MEASURED = 0.5


class Verdict(StrEnum):
    """``NOTE`` is worth knowing and does not make a profile unfit."""

    OK = "ok"
    NOTE = "note"
    UNFIT = "unfit"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, what is needed, and the verdict."""

    what: str
    found: str
    needed: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Traffic:
    """Lengths of a trace's requests in tokens, one an index.

    ``prompt_tokens`` is what prefill computes: the input less what a prefix cache holds.
    """

    isl_tokens: NDArray[np.int32]
    prompt_tokens: NDArray[np.int32]
    osl_tokens: NDArray[np.int32]


def validate_profile(
    profile: Profile, traffic: Traffic | None = None, *, aggregated: bool | None = None
) -> tuple[Check, ...]:
    """Check a profile in itself and, with traffic, what of it lies outside the measured range.

    ``aggregated`` says for which way of serving; None for the one it was measured for. Pools of their own
    need their prompts and decode steps measured; an aggregated instance its steps, or both of these where its
    steps are estimated from them.
    """
    measured = profile.aggregated is not None and not profile.aggregated.estimated
    if aggregated is None:
        aggregated = measured
    if aggregated and measured:
        return (
            *_steps_in_themselves(profile),
            *(() if traffic is None else _steps_against(profile, traffic)),
        )
    note = Check("steps with chunks", "estimated from prefill and decode", "measured", Verdict.NOTE)
    return (
        *_in_itself(profile),
        *((note,) if aggregated else ()),
        *(_against(profile, traffic) if traffic is not None else ()),
    )


def unfit_warnings(profile: Profile) -> list[str]:
    """What ``profile validate`` holds against engines about to be run, a line each; empty if they are fit.

    An estimate says of itself that nothing was measured, and is asked nothing.
    """
    aggregated = profile.is_aggregated
    if aggregated and profile.aggregated is not None and profile.aggregated.estimated:
        how = "steps of aggregated instances are estimated from its prefill and decode, not measured"
        return [f"profile {profile.name}: {how}"]
    if not aggregated and not profile.prefill.measured.ttft_ms and not profile.decode.measured.itl_ms:
        return []
    return unfit_lines(profile, aggregated=aggregated)


def unfit_lines(profile: Profile, *, aggregated: bool | None = None) -> list[str]:
    """Say in one line, or none, what ``validate_profile`` finds unfit."""
    checks = validate_profile(profile, aggregated=aggregated)
    words = "; ".join(
        f"{check.what}: {check.found} (needed: {check.needed})"
        for check in checks
        if check.verdict is Verdict.UNFIT
    )
    return [f"profile {profile.name} is unfit: {words}; see `sagescale profile validate`"] if words else []


def _steps_in_themselves(profile: Profile) -> Iterator[Check]:
    section = profile.aggregated
    assert section is not None  # else not asked for
    yield from _decode_points(section)
    yield _fit("decode", section.fit_error, measured=bool(section.measured.itl_ms))
    steps = {each.kind: each for each in section.step_errors}
    for what, kind in (("steps with chunks", ALL_WITH_CHUNKS), ("decodes of unequal contexts", UNEQUAL)):
        each = steps.get(kind)
        if each is not None:
            yield _fit(what, each.fitted)
            if each.left_out is not None:
                yield _fit(f"{what}, left out of a", each.left_out)
        elif kind == ALL_WITH_CHUNKS:
            yield _fit(what, None, measured=bool(section.measured_steps.step_ms))
        else:
            yield Check(what, "not measured", "", Verdict.NOTE)
    yield _itl_order(section)
    yield from _slots_and_limits(profile, section)


def _steps_against(profile: Profile, traffic: Traffic) -> Iterator[Check]:
    section = profile.aggregated
    assert section is not None  # else not asked for
    longest = max(section.measured_steps.longest_tokens, default=0.0)
    prompts = traffic.isl_tokens.astype(np.float64)
    computed = traffic.prompt_tokens.astype(np.float64)
    outside = prompts > longest
    tokens, requests = _share(computed[outside].sum(), computed.sum()), _share(outside.sum(), len(prompts))
    yield _check(
        f"prompt tokens of prompts above {longest:.0f} tokens",
        f"{tokens} ({requests} of requests)",
        f"at most {_PREFILL_OUTSIDE:.0%}",
        float(computed[outside].sum()) <= _PREFILL_OUTSIDE * float(computed.sum()),
    )
    yield from _decode_against(section, traffic)


def _decode_rows(decode: DecodeProfile) -> list[tuple[float, float, float]]:
    """Return context, requests and time of what was measured within the slots, in this order."""
    return sorted((c, n, ms) for n, c, ms in decode.measured.points if n <= decode.max_num_seqs)


def _decode_points(decode: DecodeProfile) -> Iterator[Check]:
    rows = _decode_rows(decode)
    contexts, loads = len({c for c, _, _ in rows}), len({n for _, n, _ in rows})
    yield _check(
        "decode points measured",
        f"{loads} concurrencies, {contexts} contexts",
        "at least 2 of each",
        loads >= 2 and contexts >= 2,
    )


def _in_itself(profile: Profile) -> Iterator[Check]:
    prefill, decode = sorted(profile.prefill.measured.alone), _decode_rows(profile.decode)
    lengths = len({isl for isl, _ in prefill})
    yield _check("prompt lengths measured alone", str(lengths), "at least 3", lengths >= 3)
    yield from _decode_points(profile.decode)
    yield _fit("prefill", profile.prefill.fit_error, measured=bool(prefill))
    yield _fit("decode", profile.decode.fit_error, measured=bool(decode))
    batches = profile.prefill.batch_error
    if batches is None:
        yield Check("prefill of several prompts", "not measured", "", Verdict.NOTE)
    else:
        yield _check(
            "prefill of several prompts, formula against measured",
            f"median {batches.median:.1%} over {batches.n}",
            f"at most {_BATCH_ERROR:.0%}",
            batches.median <= _BATCH_ERROR,
        )
    yield _monotone("TTFT over prompt length", [[ms for _, ms in _medians(prefill)]])
    yield _itl_order(profile.decode)
    yield _noise(profile)
    yield from _slots_and_limits(profile, profile.decode)


def _itl_order(decode: DecodeProfile) -> Check:
    columns = [
        [itl for _, itl in _medians([(n, itl) for _, n, itl in rows])]
        for _, rows in groupby(_decode_rows(decode), key=lambda point: point[0])
    ]
    return _monotone("ITL over concurrency", columns)


def _slots_and_limits(profile: Profile, decode: DecodeProfile) -> Iterator[Check]:
    measured_to = max((n for _, n, _ in _decode_rows(decode)), default=0.0)
    yield _check(
        "concurrency measured",
        f"up to {measured_to:.0f} of {decode.max_num_seqs} slots",
        f"at least {_SLOTS_MEASURED:.0%} of them",
        measured_to >= _SLOTS_MEASURED * decode.max_num_seqs,
        otherwise=Verdict.NOTE,
    )
    for words in profile.assumed:
        yield Check("limit assumed", words, "from the source or an option", Verdict.NOTE)


def _against(profile: Profile, traffic: Traffic) -> Iterator[Check]:
    model = ProfileModel(profile)
    isl = traffic.isl_tokens
    first, last = profile.prefill.isl_tokens[0], profile.prefill.isl_tokens[-1]
    prompt = traffic.prompt_tokens
    spent = model.prefill_table_ms(int(prompt.max()))[prompt]
    outside = (prompt < first) | (prompt > last)
    yield _check(
        f"prefill time of prompts outside {first:.0f}..{last:.0f} tokens",
        f"{_share(spent[outside].sum(), spent.sum())} ({_share(outside.sum(), len(isl))} of requests)",
        f"at most {_PREFILL_OUTSIDE:.0%}",
        float(spent[outside].sum()) <= _PREFILL_OUTSIDE * float(spent.sum()),
    )
    yield from _decode_against(profile.decode, traffic)


def _decode_against(decode: DecodeProfile, traffic: Traffic) -> Iterator[Check]:
    isl, osl = traffic.isl_tokens.astype(np.float64), traffic.osl_tokens.astype(np.float64)
    # Output token k of a request is generated at context isl + k.
    low, high = decode.context_tokens[0], decode.context_tokens[-1]
    below = np.clip(low - isl - 1.0, 0.0, osl).sum()
    above = np.clip(isl + osl - high, 0.0, osl).sum()
    yield _check(
        f"output tokens at contexts outside {low:.0f}..{high:.0f}",
        f"{_share(below, osl.sum())} below, {_share(above, osl.sum())} above",
        f"at most {_DECODE_OUTSIDE:.0%}",
        below + above <= _DECODE_OUTSIDE * osl.sum(),
    )
    mean = float((osl * (isl + (osl + 1.0) / 2.0)).sum() / osl.sum())
    yield _check(
        "context of the average output token", f"{mean:.0f}", f"{low:.0f}..{high:.0f}", low <= mean <= high
    )
    if decode.max_kv_tokens is not None:
        longest = float((isl + osl).max())
        yield _check(
            "KV tokens of the longest request",
            f"{longest:.0f}",
            f"at most {decode.max_kv_tokens}",
            longest <= decode.max_kv_tokens,
        )


def _fit(pool: str, error: FitError | None, *, measured: bool = True) -> Check:
    needed = f"median at most {_MEDIAN_ERROR:.0%}, p90 at most {_P90_ERROR:.0%}"
    if error is None and measured:
        return Check(f"{pool} fit error", "not of these times: calibrated since", needed, Verdict.NOTE)
    if error is None:
        return Check(f"{pool} fit error", "not known: nothing was measured", needed, Verdict.UNFIT)
    found = f"median {error.median:.1%}, p90 {error.p90:.1%}, max {error.max:.1%} over {error.n}"
    return _check(
        f"{pool} fit error", found, needed, error.median <= _MEDIAN_ERROR and error.p90 <= _P90_ERROR
    )


def _monotone(what: str, columns: Sequence[Sequence[float]]) -> Check:
    """Compare each measurement with the next under more load; noise makes some fall."""
    falls = [1.0 - later / earlier for column in columns for earlier, later in pairwise(column)]
    needed = f"at most {_FALLING:.0%} fall by more than {_FALL:.0%}"
    if not falls:
        return Check(f"{what} never falls", "not measured", needed, Verdict.NOTE)
    deep = sum(fall > _FALL for fall in falls)
    return _check(
        f"{what} never falls",
        f"{deep} of {len(falls)} steps fall by more than {_FALL:.0%} (most: {max(0.0, *falls):.1%})",
        needed,
        deep <= _FALLING * len(falls),
    )


def _noise(profile: Profile) -> Check:
    prefill, decode = profile.prefill.measured, profile.decode.measured
    repeats: dict[tuple[str, float, float], list[float]] = {}
    for isl, batch, ms in zip(prefill.isl_tokens, prefill.batch, prefill.ttft_ms, strict=True):
        repeats.setdefault(("prefill", isl, batch), []).append(ms)
    for n, context, ms in decode.points:
        repeats.setdefault(("decode", n, context), []).append(ms)
    spreads = [(max(t) - min(t)) / float(np.median(t)) for t in repeats.values() if len(t) > 1]
    needed = f"at most {_SPREAD:.0%} of the median"
    if not spreads:
        return Check("spread of repeated points", "no point was repeated", needed, Verdict.NOTE)
    found = f"median {float(np.median(spreads)):.1%}, max {max(spreads):.1%} over {len(spreads)} points"
    return _check("spread of repeated points", found, needed, float(np.median(spreads)) <= _SPREAD)


def _check(
    what: str, found: str, needed: str, passed: object, *, otherwise: Verdict = Verdict.UNFIT
) -> Check:
    return Check(what, found, needed, Verdict.OK if passed else otherwise)


def _medians(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [
        (load, float(np.median([ms for _, ms in same])))
        for load, same in ((load, list(group)) for load, group in groupby(points, key=lambda p: p[0]))
    ]


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}"


def prefill_error(model: ProfileModel, measured: Profile) -> FitError:
    """Return the model's relative error at the prompts ``measured`` holds, each measured alone.

    Raises InputError when it holds none.
    """
    lone = measured.prefill.measured.alone
    if not lone:
        raise InputError(f"profile '{measured.name}': no measured prefill points to compare with")
    return fit_error(np.array([model.ttft_ms(n) for n, _ in lone]), np.array([ms for _, ms in lone]))


def decode_error(model: ProfileModel, measured: Profile) -> FitError:
    """Return the model's relative error at the decode points ``measured`` holds, within the model's slots.

    Raises InputError when it holds none.
    """
    points = [point for point in measured.decode.measured.points if point[0] <= model.max_num_seqs]
    if not points:
        raise InputError(f"profile '{measured.name}': no measured decode points to compare with")
    fitted = np.array([model.itl_ms(n, context) for n, context, _ in points])
    return fit_error(fitted, np.array([ms for _, _, ms in points]))


def steps_error(model: ProfileModel, measured: Profile) -> FitError | None:
    """Return the model's relative error at the steps with chunks that ``measured`` holds, within its slots.

    None where it holds none.
    """
    section = measured.aggregated
    if section is None or not section.measured_steps.step_ms:
        return None
    steps = model.step_model()
    inside = np.array(section.measured_steps.requests) <= steps.max_num_seqs
    return fit_error(
        mixed_steps_ms(steps, section.measured_steps)[inside],
        np.array(section.measured_steps.step_ms)[inside],
    )
