"""Options that several commands have, read the same in each."""

from __future__ import annotations

import functools
import inspect
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from sagescale.cli.complete import keys, profiles, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sagescale.trace import GivenTrace
    from sagescale.trace import TransformSpec as Transforms

    TraceOption = GivenTrace | None
else:
    GivenTrace = object
    Transforms = object
    TraceOption = Annotated[
        str | None,
        typer.Option(
            "--trace",
            metavar="TRACE",
            help="Traffic that the profile is to be used for.",
            autocompletion=traces,
        ),
    ]

__all__ = [
    "GIVEN",
    "AddressOption",
    "AttainmentOption",
    "BackendOption",
    "ConcurrentOption",
    "ConfigOption",
    "FaultsOption",
    "GivenTrace",
    "JobsOption",
    "JsonOption",
    "OpenLoopOption",
    "ProfileOption",
    "SeedOption",
    "SetOption",
    "TraceOption",
    "Transforms",
    "command_line",
    "profile_name",
    "session_keys",
    "takes_trace",
    "takes_transforms",
]

ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME|FILE",
        help="Engines to model; see `sagescale profile list`.",
        autocompletion=profiles,
    ),
]
ConfigOption = Annotated[
    list[Path] | None, typer.Option("--config", metavar="FILE", help="YAML configuration; repeatable.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of `sagescale config show`; repeatable.",
        autocompletion=keys,
    ),
]
FaultsOption = Annotated[
    Path | None,
    typer.Option("--faults", metavar="FILE.yaml", help="What goes wrong: a script, or seeded rates."),
]
JsonOption = Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Result document.")]
OpenLoopOption = Annotated[
    bool,
    typer.Option(
        "--open-loop", help="Turns of sessions arrive as recorded, answered or not: --set open_loop=true."
    ),
]
ConcurrentOption = Annotated[
    int | None,
    typer.Option(
        "--concurrent-sessions",
        metavar="N",
        help="N sessions at a time, the next as one ends: short for --set concurrent_sessions=N.",
    ),
]
AttainmentOption = Annotated[
    float,
    typer.Option("--attainment", metavar="SHARE", help="Share of requests that must meet both targets."),
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", metavar="N", help="Runs at once; every core if not given.")
]
BackendOption = Annotated[
    str, typer.Option("--backend", metavar="processes|dask", help="Local, or a cluster.")
]
AddressOption = Annotated[
    str | None, typer.Option("--address", metavar="tcp://HOST:PORT", help="Of the Dask scheduler.")
]


def session_keys(open_loop: str | None, concurrent_sessions: int | None) -> list[str]:
    """What ``--open-loop true|false|both`` and ``--concurrent-sessions`` are short for, as ``--set`` has it.

    Raises:
        InputError: ``--open-loop`` is something else.
    """
    from sagescale.errors import InputError

    ways = {None: None, "true": "true", "false": "false", "both": "false,true"}
    if open_loop not in ways:
        raise InputError(f"--open-loop {open_loop}: expected true, false or both")
    keys = {"open_loop": ways[open_loop], "concurrent_sessions": concurrent_sessions}
    return [f"{key}={value}" for key, value in keys.items() if value is not None]


_Slice = Annotated[
    str | None,
    typer.Option(
        "--slice",
        metavar="A:B",
        help="Keep arrivals from A to before B, in seconds; either may be left out. "
        "Sessions that begin then stay whole.",
    ),
]
_RateScale = Annotated[
    float,
    typer.Option(
        "--rate-scale",
        metavar="X",
        help="Multiply the requests and keep the duration: thinned below 1, jittered copies above.",
    ),
]
_Speedup = Annotated[
    float,
    typer.Option("--speedup", metavar="X", help="Divide arrival times by X."),
]
_Tile = Annotated[
    int,
    typer.Option("--tile", metavar="N", help="Repeat N times, one mean gap between."),
]
_Jitter = Annotated[
    float,
    typer.Option(
        "--jitter-s",
        metavar="S",
        help="How far --rate-scale moves a copy, at most.",
    ),
]
_SharedIds = Annotated[
    str | None,
    typer.Option(
        "--shared-ids",
        metavar="A:B|FILE",
        help="Prefix ids that copies share, from A to before B or as listed; others are each copy's own.",
    ),
]
_Sessions = Annotated[
    str | None,
    typer.Option(
        "--sessions",
        metavar="poisson:R|gamma:R,CV|diurnal:R|trace:FILE",
        help="Draw when sessions begin: R in sessions/s, or as 60/h; like FILE's arrivals; seeded by --seed.",
    ),
]
_MaxThink = Annotated[
    float | None,
    typer.Option("--max-think-s", metavar="S", help="No longer thinking than this before a turn."),
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of all randomness.")]

_SpreadStamps = Annotated[
    bool,
    typer.Option(
        "--spread-stamps", help="Draw arrivals apart that are stamped to whole seconds; seeded by --seed."
    ),
]

_TRANSFORMS: dict[str, tuple[object, object]] = {
    "spread_stamps": (_SpreadStamps, False),
    "slice_text": (_Slice, None),
    "rate_scale": (_RateScale, 1.0),
    "speedup": (_Speedup, 1.0),
    "tile": (_Tile, 1),
    "jitter_s": (_Jitter, 30.0),
    "shared_ids_text": (_SharedIds, None),
    "sessions_text": (_Sessions, None),
    "max_think_s": (_MaxThink, None),
    "seed": (SeedOption, 0),
}

_Files = Annotated[
    list[str],
    typer.Argument(
        metavar="TRACE...",
        help="Trace files, patterns like 'log-*.csv.gz', - for standard input, or a shipped trace's name.",
        autocompletion=traces,
    ),
]
_Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        metavar="OURS=THEIRS,...",
        help="Columns of a log: arrival, isl, osl; also priority, session (turns wait), session_id, "
        "cached_tokens, hash_ids, ttft, done.",
    ),
]
_Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="COLUMN=VALUE",
        help="Only rows where it holds, or with != does not; repeatable, all must hold.",
    ),
]
_TimeZone = Annotated[
    str,
    typer.Option(
        "--time-zone",
        metavar="ZONE",
        help="Of times that state none, and to show times in: Europe/Berlin, +02:00.",
    ),
]
_TimeUnit = Annotated[
    str,
    typer.Option(
        "--time-unit", metavar="s|ms|us|ns", help="Of arrivals that are numbers, where size does not tell."
    ),
]
_Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse the first row of a log that cannot be used; else it is left out."),
]
_MaxDropped = Annotated[
    float,
    typer.Option(
        "--max-dropped", metavar="SHARE", help="Most rows of a log that may be left out as unusable."
    ),
]
_HashBlockTokens = Annotated[
    int | None,
    typer.Option(
        "--hash-block-tokens",
        metavar="N",
        help="Tokens that a prefix id covers, where the trace does not say it or usual ones are wrong.",
    ),
]

_Format = Annotated[
    str | None,
    typer.Option("--format", metavar="F", help="The trace's format, where its content does not decide."),
]
_TraceFormat = Annotated[
    str | None,
    typer.Option(
        "--trace-format", metavar="F", help="The trace's format, where its content does not decide."
    ),
]

_READING: dict[str, tuple[object, object]] = {
    "trace_format": (_Format, None),
    "columns": (_Columns, None),
    "where": (_Where, None),
    "time_zone": (_TimeZone, ""),
    "time_unit": (_TimeUnit, ""),
    "strict": (_Strict, False),
    "max_dropped": (_MaxDropped, 0.05),
    "hash_block_tokens": (_HashBlockTokens, None),
}
GIVEN: Any = None
"""Stands as the default of a parameter that ``takes_trace`` or ``takes_transforms`` always fills."""


def takes_trace(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command trace files, and the options that say how to read them, in place of its ``trace``.

    A ``trace`` that comes by an option stays one file, which may be left out.

    Raises:
        InputError: when called, if ``--columns``, ``--where`` or a number cannot be understood.
    """
    own, hints = inspect.signature(command).parameters, get_type_hints(command, include_extras=True)
    by_option = hints["trace"] is not GivenTrace
    reading = {**_READING, "trace_format": (_TraceFormat, None)} if by_option else _READING

    @functools.wraps(command)
    def called(**values: Any) -> None:  # noqa: ANN401  # whatever the options hold
        from sagescale.trace import GivenTrace, LogSpec, parse_columns, parse_where

        given = {name: values.pop(name) for name in _READING}
        trace_format = given.pop("trace_format")
        log = LogSpec(
            parse_columns(given.pop("columns") or []), parse_where(given.pop("where") or []), **given
        )
        files = values.pop("trace")
        if isinstance(files, str):
            files = [files]
        trace = None if files is None else GivenTrace(tuple(files), trace_format, log)
        command(**values, trace=trace)

    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        if name == "trace" and not by_option:
            parameters.append(parameter.replace(annotation=_Files))
        else:
            parameters.append(parameter.replace(annotation=hints[name]))
        if name == "trace":
            parameters += _as_parameters(reading, inspect.Parameter.KEYWORD_ONLY)
    return _with_parameters(called, _positional_first(parameters))


def takes_transforms(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that change a trace before it is used, in place of its ``transforms``.

    The command may have a ``seed`` of its own besides, which then gets the same value.

    Raises:
        InputError: when called, if ``--slice``, ``--sessions`` or ``--shared-ids`` cannot be understood.
    """
    own = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)

    @functools.wraps(command)
    def called(**values: Any) -> None:  # noqa: ANN401  # whatever the options hold
        from sagescale.trace import TransformSpec, parse_sessions, parse_shared_ids, parse_slice

        given = {name: values.pop(name) for name in _TRANSFORMS}
        text = given.pop("slice_text")
        shared = given.pop("shared_ids_text")
        sessions = given.pop("sessions_text")
        spec = TransformSpec(
            sessions=None if sessions is None else parse_sessions(sessions),
            slice=None if text is None else parse_slice(text),
            shared_ids=() if shared is None else parse_shared_ids(shared),
            **given,
        )
        if "seed" in own:
            values["seed"] = given["seed"]
        command(**values, transforms=spec)

    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        if name == "transforms":
            parameters += _as_parameters(_TRANSFORMS, parameter.kind)
        elif name != "seed":
            parameters.append(parameter.replace(annotation=hints[name]))
    return _with_parameters(called, parameters)


def _as_parameters(options: Mapping[str, tuple[object, object]], kind: Any) -> list[inspect.Parameter]:  # noqa: ANN401
    return [
        inspect.Parameter(name, kind, default=default, annotation=hint)
        for name, (hint, default) in options.items()
    ]


def _positional_first(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Order parameters as a signature must have them."""
    return sorted(parameters, key=lambda parameter: parameter.kind)


def _with_parameters(
    called: Callable[..., None], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """Let typer see the parameters as the function's own."""
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def command_line(command: str, first: Sequence[str], options: Iterable[tuple[str, object]]) -> str:
    """Write a command as it can be given again, without options that were not given (None, False, empty)."""
    words = ["sagescale", *command.split(), *first]
    for option, value in options:
        if value is True:
            words.append(option)
        elif value is not None and value is not False and value != "":
            words += [option, str(value)]
    return shlex.join(words)


def profile_name(name: str | None, out: Path) -> str:
    """Return the name of a profile that is written: as given, else the file's."""
    return name or out.name.removesuffix(".yaml").removesuffix(".yml")
