"""The options that say what is run on which engines: the same in every command that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sagescale.cli.complete import keys, profiles, traces

__all__ = ["ConfigOption", "FaultsOption", "ProfileOption", "SetOption", "TraceArgument"]

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
