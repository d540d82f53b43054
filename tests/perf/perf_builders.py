"""Profiles and points that tests build from formulas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st
from sagescale.perf import DecodeProfile, ImportOptions, PrefillProfile, Profile, build_profile
from sagescale.perf.measurement import DecodePoint, KvPoint, Measurement, PrefillPoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def built(
    ttft: Callable[[int], float],
    itl: Callable[[float, float], float],
    *,
    isl: Sequence[int] = (100, 900, 2000, 7000),
    points: Sequence[tuple[float, float]] = tuple((n, c) for n in (1, 8, 40, 128) for c in (300, 1000, 4000)),
    options: ImportOptions | None = None,
    kv: Sequence[tuple[int, float]] = (),
) -> Profile:
    """Measure the formulas where told and build a profile from that."""
    measurement = Measurement(
        origin="formula",
        format="measurement",
        files=(),
        prefill=tuple(PrefillPoint(n, 1, ttft(n)) for n in isl),
        decode=tuple(DecodePoint(float(n), float(c), itl(n, c)) for n, c in points),
        kv_transfer=tuple(KvPoint(tokens, ms) for tokens, ms in kv),
    )
    return build_profile([measurement], options or ImportOptions(name="formula"))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Any valid profile: knots anywhere, surfaces that never fall."""
    isl = sorted(draw(st.sets(st.integers(1, 20_000), min_size=2, max_size=8)))
    loads = sorted(draw(st.sets(st.integers(1, 300), min_size=2, max_size=6)))
    contexts = sorted(draw(st.sets(st.integers(1, 20_000), min_size=2, max_size=6)))
    rise = st.floats(0.0, 20.0)
    ttft, total = [], draw(st.floats(0.1, 50.0))
    for _ in isl:
        ttft.append(total)
        total += draw(rise)
    grid: list[list[float]] = []
    for i in range(len(loads)):
        row: list[float] = []
        for j in range(len(contexts)):
            below = grid[i - 1][j] if i else draw(st.floats(0.5, 20.0))
            before = row[j - 1] if j else 0.0
            row.append(max(below, before) + draw(rise))
        grid.append(row)
    return Profile(
        name="any",
        prefill=PrefillProfile(gpus_per_instance=1, isl_tokens=tuple(map(float, isl)), ttft_ms=tuple(ttft)),
        decode=DecodeProfile(
            gpus_per_instance=draw(st.integers(1, 8)),
            concurrency=tuple(map(float, loads)),
            context_tokens=tuple(map(float, contexts)),
            itl_ms=tuple(map(tuple, grid)),
            max_num_seqs=draw(st.integers(1, 300)),
            max_kv_tokens=draw(st.none() | st.integers(1, 1_000_000)),
        ),
    )
