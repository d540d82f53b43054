"""``sagescale trace synth``: make a trace from an arrival pattern and distributions of lengths."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagescale.cli.options import SeedOption
from sagescale.cli.trace_output import OutOption, save

if TYPE_CHECKING:
    from pathlib import Path

    from sagescale.trace.synth import Conversations, Pattern


class PatternName(StrEnum):
    """The arrival patterns ``trace synth`` knows."""

    STEADY = "steady"
    RAMP = "ramp"
    STEP = "step"
    DIURNAL = "diurnal"
    BURSTY = "bursty"
    SPIKES = "spikes"


def synth(
    pattern: Annotated[PatternName, typer.Option("--pattern", help="How requests arrive.")],
    duration_s: Annotated[float, typer.Option("--duration-s", metavar="S", help="For how long.")],
    rps: Annotated[
        float,
        typer.Option(
            "--rps", metavar="R", help="Requests/s: the mean; at the start of a ramp or step; between spikes."
        ),
    ],
    isl: Annotated[
        str,
        typer.Option(
            "--isl",
            metavar="DIST",
            help="Prompt tokens: lognormal:mean=1024,p99=8000 (or any two of mean, median, sigma, p99; "
            "also min, max), constant:512, or empirical:TRACE.",
        ),
    ],
    osl: Annotated[str, typer.Option("--osl", metavar="DIST", help="Generated tokens, likewise.")],
    out: OutOption,
    correlation: Annotated[
        str,
        typer.Option(
            "--correlation",
            metavar="R|pairs",
            help="Of ISL and OSL: a number from -1 to 1, or pairs to draw whole rows of one empirical trace.",
        ),
    ] = "0",
    seed: SeedOption = 0,
    end_rps: Annotated[
        float | None, typer.Option("--end-rps", metavar="R", help="ramp, step: requests/s at the end.")
    ] = None,
    at_s: Annotated[
        float | None, typer.Option("--at-s", metavar="S", help="step: when; half way by default.")
    ] = None,
    amplitude: Annotated[
        float | None,
        typer.Option("--amplitude", metavar="A", help="diurnal: swing about the mean, 0 to 1 (0.5)."),
    ] = None,
    peak_hour: Annotated[
        float | None, typer.Option("--peak-hour", metavar="H", help="diurnal: hour of the peak (14).")
    ] = None,
    weekend_factor: Annotated[
        float | None,
        typer.Option(
            "--weekend-factor", metavar="F", help="diurnal: days 6 and 7 of each week times this (1)."
        ),
    ] = None,
    cv: Annotated[
        float | None,
        typer.Option("--cv", metavar="C", help="bursty: coefficient of variation of the gaps (2)."),
    ] = None,
    family: Annotated[
        str | None, typer.Option("--family", metavar="gamma|weibull", help="bursty: of the gaps (gamma).")
    ] = None,
    spike_rps: Annotated[
        float | None, typer.Option("--spike-rps", metavar="R", help="spikes: requests/s in a spike.")
    ] = None,
    every_s: Annotated[
        float | None, typer.Option("--every-s", metavar="S", help="spikes: from one to the next (600).")
    ] = None,
    spike_s: Annotated[
        float | None, typer.Option("--spike-s", metavar="S", help="spikes: how long each lasts (60).")
    ] = None,
    prefix_groups: Annotated[
        int | None,
        typer.Option(
            "--prefix-groups",
            metavar="N",
            help="Each prompt begins with one of N beginnings; needs --prefix-tokens and --out FILE.parquet.",
        ),
    ] = None,
    prefix_tokens: Annotated[
        int | None,
        typer.Option("--prefix-tokens", metavar="T", help="How long each beginning is, part of --isl."),
    ] = None,
    sessions: Annotated[
        bool,
        typer.Option(
            "--sessions",
            help="Sessions arrive, and turns wait for answers: --rps in sessions/s, --isl of first prompts.",
        ),
    ] = False,
    turns: Annotated[
        str | None,
        typer.Option(
            "--turns",
            metavar="DIST",
            help="Turns of a session: geometric:8, constant:8, lognormal:mean=8,p99=60.",
        ),
    ] = None,
    think: Annotated[
        str | None,
        typer.Option(
            "--think",
            metavar="DIST",
            help="Seconds from an answer to the next turn: exponential:30, constant:30, "
            "lognormal:median=10,p99=600.",
        ),
    ] = None,
    growth: Annotated[
        str | None,
        typer.Option(
            "--growth",
            metavar="DIST",
            help="Tokens that a turn adds to the prompt and answer before it; as --isl.",
        ),
    ] = None,
    max_prompt: Annotated[
        int | None,
        typer.Option("--max-prompt", metavar="N", help="Sessions end before a prompt of more tokens."),
    ] = None,
) -> None:
    """Make a trace from an arrival pattern and length distributions; same options, same bytes.

    With --sessions the pattern is of sessions; a prompt is the one before it, its answer and what the turn
    adds.
    """
    from sagescale.trace import check_destination
    from sagescale.trace.synth import parse_correlation, parse_lengths, synthesise

    check_destination(out)
    prefixes = _beginnings(prefix_groups, prefix_tokens, None if sessions else out)
    conversations = _conversations(
        {"--turns": turns, "--think": think, "--growth": growth}, max_prompt, given=sessions
    )
    chosen = _pattern(
        pattern,
        duration_s,
        rps,
        {
            "--end-rps": end_rps,
            "--at-s": at_s,
            "--amplitude": amplitude,
            "--peak-hour": peak_hour,
            "--weekend-factor": weekend_factor,
            "--cv": cv,
            "--spike-rps": spike_rps,
            "--every-s": every_s,
            "--spike-s": spike_s,
        },
        family,
    )
    made = synthesise(
        chosen,
        duration_s,
        parse_lengths("--isl", isl),
        parse_lengths("--osl", osl),
        correlation=parse_correlation(correlation),
        seed=seed,
        prefixes=prefixes,
        conversations=conversations,
    )
    save(made, out)


# Options of each pattern with their defaults; None has none and must be given.
_PATTERN_OPTIONS: dict[PatternName, dict[str, float | None]] = {
    PatternName.STEADY: {},
    PatternName.RAMP: {"--end-rps": None},
    PatternName.STEP: {"--end-rps": None, "--at-s": None},
    PatternName.DIURNAL: {"--amplitude": 0.5, "--peak-hour": 14.0, "--weekend-factor": 1.0},
    PatternName.BURSTY: {"--cv": 2.0},
    PatternName.SPIKES: {"--spike-rps": None, "--every-s": 600.0, "--spike-s": 60.0},
}


def _pattern(
    name: PatternName, duration_s: float, rps: float, given: dict[str, float | None], family: str | None
) -> Pattern:
    """Build the pattern; refuse options that it does not have, and the lack of those that it needs."""
    from sagescale.errors import InputError
    from sagescale.trace.synth import Bursty, Diurnal, Ramp, Spikes, Steady, Step

    known = dict(_PATTERN_OPTIONS[name])
    if name is PatternName.STEP:
        known["--at-s"] = duration_s / 2
    values: dict[str, float] = {}
    for option, value in given.items():
        if option not in known and value is not None:
            fitting = ", ".join(known) or "none"
            raise InputError(
                f"{option} {value:g}: has no effect on --pattern {name}; its options are: {fitting}"
            )
        if option in known:
            chosen = known[option] if value is None else value
            if chosen is None:
                raise InputError(f"{option}: --pattern {name} needs it")
            values[option] = chosen
    if family is not None and name is not PatternName.BURSTY:
        raise InputError(f"--family {family}: has no effect on --pattern {name}; it goes with bursty")
    match name:
        case PatternName.STEADY:
            return Steady(rps)
        case PatternName.RAMP:
            return Ramp(rps, values["--end-rps"])
        case PatternName.STEP:
            return Step(rps, values["--end-rps"], values["--at-s"])
        case PatternName.DIURNAL:
            return Diurnal(rps, values["--amplitude"], values["--peak-hour"], values["--weekend-factor"])
        case PatternName.SPIKES:
            return Spikes(rps, values["--spike-rps"], values["--every-s"], values["--spike-s"])
        case PatternName.BURSTY:
            return Bursty(rps, values["--cv"], _family(family))


def _conversations(
    texts: dict[str, str | None], max_prompt: int | None, *, given: bool
) -> Conversations | None:
    """Put the options of sessions together; refuse them without ``--sessions``, and it without them."""
    from sagescale.errors import InputError
    from sagescale.trace.synth import Conversations, parse_lengths, parse_quantity

    there = {option: text for option, text in texts.items() if text is not None}
    if not given:
        alone = [*there, *(() if max_prompt is None else ("--max-prompt",))]
        if alone:
            raise InputError(f"{alone[0]}: goes with --sessions; add it, or leave this out")
        return None
    lacking = [option for option in texts if option not in there]
    if lacking:
        raise InputError(
            f"--sessions: needs {lacking[0]} as well; e.g. --turns geometric:8 --think exponential:30 "
            "--growth lognormal:mean=300,p99=3000"
        )
    if max_prompt is not None and max_prompt < 1:
        raise InputError(f"--max-prompt {max_prompt}: expected a whole number of tokens, 1 or more")
    return Conversations(
        parse_quantity("--turns", there["--turns"]),
        parse_quantity("--think", there["--think"]),
        parse_lengths("--growth", there["--growth"]),
        max_prompt,
    )


def _beginnings(groups: int | None, tokens: int | None, out: Path | None) -> tuple[int, int] | None:
    """Put the options of shared beginnings together; refuse one alone, and a file without room for them.

    Sessions have ids in any case: no file is given for them, and writing says what CSV leaves out.
    """
    from sagescale.errors import InputError

    if groups is None and tokens is None:
        return None
    if groups is None or tokens is None:
        there, lacking = (
            ("--prefix-tokens", "--prefix-groups")
            if groups is None
            else ("--prefix-groups", "--prefix-tokens")
        )
        raise InputError(f"{there}: needs {lacking} as well")
    if out is not None and out.suffix != ".parquet":
        raise InputError(f"--out {out}: has no room for --prefix-groups; expected a name ending in .parquet")
    return groups, tokens


def _family(text: str | None) -> Literal["gamma", "weibull"]:
    from sagescale.errors import InputError

    match text:
        case None | "gamma":
            return "gamma"
        case "weibull":
            return "weibull"
        case _:
            raise InputError(f"--family {text}: expected gamma or weibull")
