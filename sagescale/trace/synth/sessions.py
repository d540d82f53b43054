"""Made-up sessions: turns that wait for answers, prompts that grow by what was said, thinking between."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sagescale.errors import InputError, did_you_mean
from sagescale.trace.prefixes import MOST_NODES, Prefixes
from sagescale.trace.readers.answers import ANSWER_S_PER_TOKEN
from sagescale.trace.readers.fields import MAX_MADE_IDS
from sagescale.trace.sessions import Turns
from sagescale.trace.synth.lengths import log_normal_of
from sagescale.trace.synth.shared import BLOCK_TOKENS, check_room
from sagescale.trace.trace import MAX_SPAN_S, Trace, numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.trace.synth.lengths import Lengths

_KINDS: dict[str, tuple[str, ...]] = {
    "--turns": ("constant", "geometric", "lognormal"),
    "--think": ("constant", "exponential", "lognormal"),
}
_EXAMPLES = {
    "--turns": "geometric:8, constant:8 or lognormal:mean=8,p99=60",
    "--think": "exponential:30, constant:30 or lognormal:median=10,p99=600, in seconds",
}


_MOST_TURNS = 1 << 26
"""About 8 GB while they are made."""

_LONGEST_PROMPT = MAX_MADE_IDS * BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class Quantity:
    """A distribution of numbers above 0.

    Attributes:
        kind: ``constant``, ``exponential``, ``geometric`` (from 1) or ``lognormal``.
        mean: of the first three; of a lognormal's logarithm.
        sigma: of a lognormal's logarithm.
    """

    kind: str
    mean: float
    sigma: float = 0.0

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw so many."""
        match self.kind:
            case "constant":
                return np.full(count, self.mean)
            case "exponential":
                return rng.exponential(self.mean, count)
            case "geometric":
                return rng.geometric(1 / self.mean, count).astype(np.float64)
            case _:
                return rng.lognormal(self.mean, self.sigma, count)


def parse_quantity(option: Literal["--turns", "--think"], text: str) -> Quantity:
    """Read turns of a session, or seconds of thinking.

    Raises:
        InputError: it is no such distribution.
    """
    kind, _, rest = text.partition(":")
    if kind not in _KINDS[option] or not rest:
        near = did_you_mean(kind, _KINDS[option])
        raise InputError(f"{option} {text}: expected {_EXAMPLES[option]}{near}")
    if kind == "lognormal":
        return Quantity(kind, *log_normal_of(f"{option} {text}", rest))
    least = 1.0 if option == "--turns" else 0.0
    try:
        mean = float(rest)
    except ValueError:
        mean = math.nan
    if not least <= mean < math.inf:
        raise InputError(
            f"{option} {text}: '{rest}' is no number of at least {least:g}; expected {_EXAMPLES[option]}"
        )
    return Quantity(kind, mean)


@dataclass(frozen=True, slots=True)
class Conversations:
    """What happens in a session.

    Attributes:
        turns: requests of a session, rounded, at least 1.
        think_s: from an answer to the next request, s.
        growth: tokens that a later turn adds to what was said before it.
        max_prompt: a session ends before a prompt of more tokens than this; None for no such end.
    """

    turns: Quantity
    think_s: Quantity
    growth: Lengths
    max_prompt: int | None = None


def converse(
    start_s: NDArray[np.float64],
    first: NDArray[np.int32],
    osl: Lengths,
    made: Conversations,
    rng: np.random.Generator,
    shared: tuple[NDArray[np.int64], int],
) -> Trace:
    """Make a session of each start.

    A prompt is the one before it, its answer, and what the turn adds. Prompts have prefix ids of blocks of
    16: those of the beginning that sessions share, then the session's own. Nominal arrivals have 20 ms a
    token of an answer.

    Args:
        start_s: float64[sessions], ascending.
        first: int32[sessions], tokens of each one's first prompt.
        osl: of each answer.
        made: what happens in a session.
        rng: of all that is drawn here.
        shared: which beginning each session has, int64[sessions], and its tokens.

    Raises:
        InputError: too many requests or blocks, or a prompt of more tokens than readers make ids for.
    """
    drawn = made.turns.draw(len(start_s), rng)
    if drawn.sum() > _MOST_TURNS:
        raise InputError(f"--turns: makes {drawn.sum():.3g} requests; expected at most {_MOST_TURNS:,}")
    counts = np.maximum(np.rint(drawn), 1).astype(np.int64)
    if made.max_prompt is None:
        _check_longest(int(counts.max() - 1) * (_least(made.growth) + _least(osl)) + int(first.min()))
    elif made.max_prompt > _LONGEST_PROMPT:
        raise InputError(f"--max-prompt {made.max_prompt:,}: expected at most {_LONGEST_PROMPT:,} tokens")
    ends = np.cumsum(counts)
    total = int(ends[-1])
    begins = ends - counts
    session = np.repeat(np.arange(len(start_s)), counts)
    is_first = np.zeros(total, bool)
    is_first[begins] = True
    answers = osl.from_normal(rng.standard_normal(total))
    growth = made.growth.from_normal(rng.standard_normal(total)).astype(np.int64)
    think_s = np.round(made.think_s.draw(total, rng), 6)
    think_s[is_first] = 0.0

    if made.max_prompt is not None:
        first = np.minimum(first, np.int32(made.max_prompt))
    added = np.where(is_first, first[session], growth)
    added[1:] += np.where(is_first[1:], 0, answers[:-1])
    isl = _sums(added, begins, counts)
    if made.max_prompt is not None:
        kept = is_first | (isl <= made.max_prompt)
    else:
        _check_longest(int(isl.max()))
        kept = np.ones(total, bool)
    waited_s = think_s.copy()
    waited_s[1:] += np.where(is_first[1:], 0.0, answers[:-1] * ANSWER_S_PER_TOKEN)
    # Rounded as starts are; sums never fall within a session, so neither do these.
    arrival_s = np.round(start_s[session] + _sums(waited_s, begins, counts), 6)
    if arrival_s.max() > MAX_SPAN_S:
        raise InputError(
            f"--think: the last turn would come at {arrival_s.max():.6g} s; expected at most "
            f"{MAX_SPAN_S:.0f} s, a year, with shorter thinking or fewer --turns"
        )

    rows = np.flatnonzero(kept)
    order = rows[np.argsort(arrival_s[rows], kind="stable")]
    new = np.full(total, -1, np.int32)
    new[order] = np.arange(len(order), dtype=np.int32)
    waits = ~is_first[order]
    turns = Turns(
        np.concatenate([[0], np.cumsum(waits)]).astype(np.int64), new[order[waits] - 1], think_s[order]
    )
    return Trace(
        arrival_s=arrival_s[order] - arrival_s[order[0]],
        isl=isl[order].astype(np.int32),
        osl=answers[order],
        path="<synth>",
        prefixes=_prefixes(isl[order], session[order], *shared),
        session_id=numbered(session[order]),
        turns=turns,
    )


def _least(lengths: Lengths) -> int:
    """The fewest tokens that are ever drawn."""
    return int(lengths.from_normal(np.array([-40.0]))[0])


def _check_longest(tokens: int) -> None:
    if tokens > _LONGEST_PROMPT:
        raise InputError(
            f"--growth: a prompt has {tokens:,} tokens or more; expected at most {_LONGEST_PROMPT:,}: "
            "shorter --isl, fewer --turns, or --max-prompt N to end sessions before"
        )


def _sums(values: NDArray[Any], begins: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[Any]:
    """Return running sums that begin anew with each session."""
    whole = np.cumsum(values)
    sums: NDArray[Any] = whole - np.repeat(whole[begins] - values[begins], counts)
    return sums


def _prefixes(
    isl: NDArray[np.int64], session: NDArray[np.int64], beginning: NDArray[np.int64], tokens: int
) -> Prefixes | None:
    """Return ids of the full blocks of all prompts: a beginning's own, and behind it the session's."""
    common = tokens // BLOCK_TOKENS
    groups = int(beginning.max()) + 1 if common else 0
    if common:
        check_room(isl, tokens)
    held = isl // BLOCK_TOKENS
    most = np.zeros(len(beginning), np.int64)
    np.maximum.at(most, session, held)
    own = np.maximum(most - common, 0)
    if groups * common + own.sum() > MOST_NODES:
        raise InputError(
            f"--turns: prompts have {groups * common + own.sum():,} blocks of {BLOCK_TOKENS} tokens; "
            f"expected at most {MOST_NODES:,}"
        )
    if not held.any():
        return None
    base = groups * common + np.cumsum(own) - own
    node = np.arange(groups * common + int(own.sum()), dtype=np.int32)
    depth = np.empty_like(node)  # columns of 32 bits throughout: there may be hundreds of millions
    depth[: groups * common] = np.tile(np.arange(1, common + 1, dtype=np.int32), groups)
    depth[groups * common :] = node[groups * common :] - np.repeat((base - common - 1).astype(np.int32), own)
    parent = np.where(depth == 1, np.int32(-1), node - 1)
    if common:
        parent[base[own > 0]] = beginning[own > 0] * common + common - 1
    leaf = np.where(
        held > common,
        base[session] + held - common - 1,
        beginning[session] * common + np.minimum(held, common) - 1,
    )
    leaf[held == 0] = -1
    tree = Prefixes(BLOCK_TOKENS, leaf.astype(np.int32), parent, node, depth, node.astype(np.int64))
    return tree.with_leaf(tree.leaf)
