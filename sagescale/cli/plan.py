"""``sagescale plan``: the planner against real pools."""

from __future__ import annotations

from typing import Annotated

import typer

from sagescale.cli.complete import profiles
from sagescale.cli.options import ConfigOption, SetOption


def plan(
    config: ConfigOption = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME|FILE", help="Engines to size with.", autocompletion=profiles),
    ] = None,
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and explain, never act.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Decide once, now, and say why; then end.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Say which metrics there are, what is missing and what to fix.")
    ] = False,
    standby: Annotated[
        bool, typer.Option("--standby", help="Wait while another planner scales this target, then take over.")
    ] = False,
    ticks: Annotated[int | None, typer.Option(metavar="N", help="End after N ticks.", min=1)] = None,
    log: Annotated[
        str | None, typer.Option(help="screen, plain or json; by default screen on a terminal, else plain.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="The planner's own log too.")] = False,
) -> None:
    """Read metrics, decide and scale, once an interval, until stopped."""
    from sagescale.cli.output import log_to_stderr
    from sagescale.live.run import PlanOptions, run_check, run_plan
    from sagescale.live.setup import configured

    setup = configured(profile, config or [], overrides or [])
    if verbose:
        log_to_stderr()
    if check:
        raise typer.Exit(run_check(setup))
    run_plan(setup, PlanOptions(dry_run=dry_run, once=once, standby=standby, ticks=ticks, log=log))
