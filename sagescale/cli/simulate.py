"""``sagescale simulate``: replay a trace through modelled pools under the planner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sagescale.cli.complete import policies, predictors, profiles
from sagescale.cli.options import (
    GIVEN,
    ConcurrentOption,
    ConfigOption,
    FaultsOption,
    GivenTrace,
    JsonOption,
    OpenLoopOption,
    ProfileOption,
    SetOption,
    Transforms,
    takes_trace,
    takes_transforms,
)


@takes_trace
@takes_transforms
def simulate(
    trace: GivenTrace,
    profile: ProfileOption = None,
    actual_profile: Annotated[
        str | None,
        typer.Option(
            "--actual-profile",
            metavar="NAME|FILE",
            help="Engines as they really are; the planner assumes --profile, without it an estimate.",
            autocompletion=profiles,
        ),
    ] = None,
    # The option's former name: scripts have it.
    world: Annotated[str | None, typer.Option("--world", hidden=True)] = None,
    config: ConfigOption = None,
    predictor: Annotated[
        str | None,
        typer.Option(
            "--predictor",
            metavar="P",
            help="Short for --set load_predictor_type=P.",
            autocompletion=predictors,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="Q", help="Short for --set policy=Q.", autocompletion=policies),
    ] = None,
    overrides: SetOption = None,
    until_s: Annotated[
        float | None, typer.Option("--until-s", metavar="S", help="Short for --set until_s=S.")
    ] = None,
    open_loop: OpenLoopOption = False,
    concurrent_sessions: ConcurrentOption = None,
    faults_file: FaultsOption = None,
    transforms: Transforms = GIVEN,
    json_out: JsonOption = None,
    html_out: Annotated[
        Path | None,
        typer.Option("--html", metavar="OUT.html", help="The run in pictures, one file."),
    ] = None,
    timeline_out: Annotated[
        Path | None,
        typer.Option("--timeline", metavar="OUT.csv", help="The run tick by tick."),
    ] = None,
    requests_out: Annotated[
        Path | None,
        typer.Option("--requests", metavar="OUT.parquet", help="Every request's latencies."),
    ] = None,
    fixed_sizes: Annotated[
        bool | None,
        typer.Option(
            "--fixed-sizes/--no-fixed-sizes",
            help="Search the cheapest fixed sizes to compare with; unless said, up to 300,000 requests.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log every decision, in the guide's words.")
    ] = False,
) -> None:
    """Replay a trace through modelled prefill and decode pools under the planner, and report.

    Shows attainment against the SLA, latencies, GPU-hours and how the pools moved.
    """
    from sagescale.cli.output import log_to_stderr, stdout_console, write_json
    from sagescale.cli.progress import simulation_progress
    from sagescale.errors import InputError
    from sagescale.files import check_writable
    from sagescale.report.terminal import print_run
    from sagescale.setup import load_setup
    from sagescale.sim.export import write_requests, write_timeline
    from sagescale.sim.faults import read_faults

    # Everything that can be refused is refused before the work begins.
    check_writable(json_out, html_out, timeline_out, requests_out)
    if requests_out is not None and requests_out.suffix in {".csv", ".gz", ".json", ".jsonl"}:
        raise InputError(f"--requests {requests_out}: would hold Parquet; expected a name ending in .parquet")
    if actual_profile is not None and world is not None:
        raise InputError("--world is the former name of --actual-profile: expected only one of the two")
    shorts: dict[str, tuple[str, object]] = {
        "--predictor": ("load_predictor_type", predictor),
        "--policy": ("policy", policy),
        "--until-s": ("until_s", until_s),
        "--open-loop": ("open_loop", open_loop or None),
        "--concurrent-sessions": ("concurrent_sessions", concurrent_sessions),
    }
    options = {option: given for option, given in shorts.items() if given[1] is not None}
    faults = None if faults_file is None else read_faults(faults_file)
    actual = actual_profile or world
    setup = load_setup(trace, profile, config or [], overrides or [], transforms, options, actual)
    if verbose:
        log_to_stderr()
    with simulation_progress(setup.trace.duration_s) as progress:
        runs = setup.simulate(faults, progress)
    document = setup.document(runs, faults, search=fixed_sizes)
    if json_out is not None:
        write_json(json_out, document)
    if html_out is not None:
        from sagescale.report.html import write_html

        write_html(html_out, document)
    if timeline_out is not None:
        write_timeline(timeline_out, document.runs[0].timeline, document.trace.started_at)
    if requests_out is not None:
        write_requests(requests_out, runs[0])
    print_run(document, stdout_console())
