"""When sessions begin, where no file says it or another load is asked for: ``--sessions``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError, did_you_mean
from sagescale.trace.read import read_trace
from sagescale.trace.sessions import NO_STARTS, beginnings, begun_at, refuse_without_turns
from sagescale.trace.synth.arrivals import Bursty, Diurnal, Steady
from sagescale.trace.trace import MAX_SPAN_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.trace.trace import Trace

_PER_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86_400.0}
_EXPECTED = (
    "poisson:R, gamma:R,CV, diurnal:R or trace:FILE, with R in sessions/s or as 60/h (/s, /min, /h, /day), "
    "e.g. poisson:60/h"
)
_DIURNAL = ("amplitude", "peak_hour", "weekend_factor")


@dataclass(frozen=True, slots=True)
class _Like:
    """Starts spread as another trace's: so many of its own, drawn from all of them.

    Attributes:
        sha256: of the trace.
        start_s: float64[m], its arrivals, or starts of its sessions, in order.
    """

    sha256: str
    start_s: NDArray[np.float64] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SessionStarts:
    """How sessions begin; equal ones draw equal starts.

    Attributes:
        text: as given.
        like: the process that starts come from.
    """

    text: str
    like: Steady | Bursty | Diurnal | _Like

    def started(self, trace: Trace, seed: int) -> Trace:
        """Return the trace with every session begun at a drawn time; which begins when is drawn, too.

        Raises:
            InputError: the trace has no turns, or starts do not fit a year or the file they come from.
        """
        if trace.turns is None or trace.session_id is None:
            refuse_without_turns("--sessions", trace)
        rng = np.random.default_rng([seed, 0x5E55])
        count = int(trace.session_id.max()) + 1
        drawn = rng.permutation(self._drawn(count, rng))
        if drawn.max() > MAX_SPAN_S:
            raise InputError(
                f"--sessions {self.text}: the last of {count:,} sessions would begin at {drawn.max():.6g} s; "
                f"expected at most {MAX_SPAN_S:.0f} s (a year), with a higher rate"
            )
        made = begun_at(trace, drawn, f"sessions {self.text} (seed {seed})")
        known = NO_STARTS.partition(":")[0]
        warnings = tuple(line for line in made.warnings if not line.startswith(known))
        return replace(made, warnings=warnings, started_at=None)

    def _drawn(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw so many starts, s, ascending: of a process its first ones."""
        like = self.like
        if isinstance(like, _Like):
            if len(like.start_s) < count:
                raise InputError(
                    f"--sessions {self.text}: has {len(like.start_s):,} arrivals for {count:,} sessions; "
                    f"expected at least as many; thin the sessions with --rate-scale"
                )
            return like.start_s[np.sort(rng.choice(len(like.start_s), count, replace=False, shuffle=False))]
        duration_s = 1.1 * (count + 10) / like.rps
        while len(found := like.arrivals(duration_s, rng)) < count:
            duration_s *= 2
            if duration_s > 2 * MAX_SPAN_S:
                return np.array([np.inf])
        return found[:count]


def parse_sessions(text: str) -> SessionStarts:
    """Read ``poisson:R``, ``gamma:R,CV``, ``diurnal:R`` or ``trace:FILE``.

    Behind a diurnal rate may follow ``amplitude=``, ``peak_hour=`` and ``weekend_factor=``, as of
    :class:`sagescale.trace.synth.Diurnal`; a file is read as any trace.

    Raises:
        InputError: it is none of them, or a number of it is out of range, or the file cannot be read.
    """
    kind, colon, rest = text.partition(":")
    kinds = ("poisson", "gamma", "diurnal", "trace")
    if not colon or kind not in kinds or not rest:
        near = did_you_mean(kind, kinds)
        raise InputError(f"--sessions {text}: expected {_EXPECTED}{near}")
    if kind == "trace":
        trace = read_trace(rest)
        return SessionStarts(text, _Like(trace.sha256, beginnings(trace)))
    words = [word.strip() for word in rest.split(",")]
    rps = _rate(text, words[0])
    if kind == "poisson":
        if len(words) > 1:
            raise InputError(f"--sessions {text}: found '{words[1]}' behind the rate; expected poisson:R")
        return SessionStarts(text, Steady(rps))
    if kind == "gamma":
        if len(words) != 2:
            raise InputError(f"--sessions {text}: expected gamma:R,CV, e.g. gamma:60/h,2")
        cv = _number(text, words[1].removeprefix("cv="))
        if not 0.05 <= cv <= 20:
            raise InputError(f"--sessions {text}: cv is {cv:g}; expected a number from 0.05 to 20")
        return SessionStarts(text, Bursty(rps, cv))
    given: dict[str, float] = {}
    for word in words[1:]:
        name, _, value = word.partition("=")
        if name not in _DIURNAL:
            known = ", ".join(f"{name}=" for name in _DIURNAL)
            raise InputError(f"--sessions {text}: '{word}' is none of {known}{did_you_mean(name, _DIURNAL)}")
        given[name] = _number(text, value)
    try:
        return SessionStarts(text, Diurnal(rps, **given))
    except InputError as error:
        raise InputError(f"--sessions {text}: {str(error).removeprefix('--')}") from None


def _rate(text: str, word: str) -> float:
    """Return a rate in sessions/s."""
    found = re.fullmatch(r"([^/]+)(?:/(s|min|h|day))?", word)
    if found is None:
        raise InputError(f"--sessions {text}: '{word}' is no rate; expected {_EXPECTED}")
    rps = _number(text, found[1]) / _PER_S[found[2] or "s"]
    if not 0 < rps < np.inf:
        raise InputError(f"--sessions {text}: '{word}' is no rate above 0; expected {_EXPECTED}")
    return rps


def _number(text: str, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise InputError(f"--sessions {text}: '{word}' is no number; expected {_EXPECTED}") from None
