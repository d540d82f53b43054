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
    from collections.abc import Callable, Iterable, Sequence

    from sagescale.trace import TransformSpec as Transforms
else:
    Transforms = object

__all__ = [
    "GIVEN",
    "AddressOption",
    "AttainmentOption",
    "BackendOption",
    "ConfigOption",
    "FaultsOption",
    "JobsOption",
    "JsonOption",
    "ProfileOption",
    "SeedOption",
    "SetOption",
    "TraceArgument",
    "Transforms",
    "check_counts",
    "check_share",
    "choose",
    "command_line",
    "profile_name",
    "takes_transforms",
]

TraceArgument = Annotated[
    str, typer.Argument(help="Trace file, or the name of a shipped trace.", autocompletion=traces)
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

_Slice = Annotated[
    str | None,
    typer.Option(
        "--slice",
        metavar="A:B",
        help="Keep arrivals from A to before B, in seconds; either may be left out.",
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
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of all randomness.")]

_TRANSFORMS: dict[str, tuple[object, object]] = {
    "slice_text": (_Slice, None),
    "rate_scale": (_RateScale, 1.0),
    "speedup": (_Speedup, 1.0),
    "tile": (_Tile, 1),
    "jitter_s": (_Jitter, 30.0),
    "seed": (SeedOption, 0),
}
GIVEN: Any = None
"""Stands as the default of a ``transforms`` parameter, which ``takes_transforms`` always fills."""


def takes_transforms(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that change a trace before it is used, in place of its ``transforms``.

    The command may have a ``seed`` of its own besides, which then gets the same value.

    Raises:
        InputError: when called, if ``--slice`` is not ``A:B``.
    """
    own = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)

    @functools.wraps(command)
    def called(**values: Any) -> None:  # noqa: ANN401  # whatever the options hold
        from sagescale.trace import TransformSpec, parse_slice

        given = {name: values.pop(name) for name in _TRANSFORMS}
        text = given.pop("slice_text")
        spec = TransformSpec(slice=None if text is None else parse_slice(text), **given)
        if "seed" in own:
            values["seed"] = given["seed"]
        command(**values, transforms=spec)

    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        if name == "transforms":
            parameters += [
                inspect.Parameter(option, parameter.kind, default=default, annotation=hint)
                for option, (hint, default) in _TRANSFORMS.items()
            ]
        elif name != "seed":
            parameters.append(parameter.replace(annotation=hints[name]))
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def choose(option: str, text: str, names: Sequence[str]) -> tuple[str, ...]:
    """Read ``a,b`` or ``all``, each name once and in the order given.

    Raises:
        InputError: a name is none of ``names``.
    """
    from sagescale.errors import InputError, did_you_mean

    if text.strip() == "all":
        return tuple(names)
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in chosen:
        if name not in names:
            raise InputError(
                f"{option} {text}: '{name}' is none of {', '.join(names)} or all{did_you_mean(name, names)}"
            )
    return chosen


def check_share(option: str, share: float) -> None:
    """Refuse what is no share of requests.

    Raises:
        InputError: it is not above 0 and at most 1.
    """
    from sagescale.errors import InputError

    if not 0.0 < share <= 1.0:
        raise InputError(f"{option} {share:g}: expected a share above 0 and at most 1")


def check_counts(*counts: tuple[str, int | None, int]) -> None:
    """Refuse counts, as option, number and least; what is not given is fine.

    Raises:
        InputError: one is below its least.
    """
    from sagescale.errors import InputError

    for option, count, least in counts:
        if count is not None and count < least:
            raise InputError(f"{option} {count}: expected a whole number, {least} or more")


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
