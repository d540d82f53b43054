"""``sagescale compare-predictors``: which predictor, policy and configuration, and what each would cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sagescale.cli.complete import keys, policies, predictors
from sagescale.cli.options import (
    GIVEN,
    AddressOption,
    AttainmentOption,
    BackendOption,
    ConcurrentOption,
    FaultsOption,
    GivenTrace,
    JobsOption,
    JsonOption,
    ProfileOption,
    Transforms,
    session_keys,
    takes_trace,
    takes_transforms,
)
from sagescale.setup import check_counts, check_share, choose, choose_policies, load_comparison


@takes_trace
@takes_transforms
def compare_predictors(
    trace: GivenTrace,
    predictors: Annotated[
        str,
        typer.Option("--predictors", metavar="A,B|all", help="Predictors to try.", autocompletion=predictors),
    ] = "all",
    policies: Annotated[
        str | None,
        typer.Option(
            "--policies",
            metavar="A,B|all",
            help="Policies to try; the configured one if not given.",
            autocompletion=policies,
        ),
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option("--config", metavar="FILE", help="YAML configuration; several are alternatives."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=V1,V2",
            help="Values to try of any configuration key; repeatable.",
            autocompletion=keys,
        ),
    ] = None,
    open_loop: Annotated[
        str | None,
        typer.Option(
            "--open-loop",
            metavar="true|false|both",
            help="Turns of sessions arrive as recorded, answered or not; both ways side by side.",
        ),
    ] = None,
    concurrent_sessions: ConcurrentOption = None,
    profile: ProfileOption = None,
    faults_file: FaultsOption = None,
    attainment: AttainmentOption = 0.99,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", metavar="N", help="Repeat on N copies with moved arrivals: confidence intervals."
        ),
    ] = 1,
    jobs: JobsOption = None,
    backend: BackendOption = "processes",
    address: AddressOption = None,
    transforms: Transforms = GIVEN,
    json_out: JsonOption = None,
    html_out: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="OUT.html",
            help="The comparison in pictures, one file.",
        ),
    ] = None,
    csv_out: Annotated[
        Path | None,
        typer.Option("--csv", metavar="OUT.csv", help="The table, a row a run."),
    ] = None,
) -> None:
    """Compare predictors, policies and configurations on a trace, and say which to take.

    Always beside them: reactive (a Kubernetes HPA), fixed pools at the peak and the cheapest that hold, the
    policies fed the true load (oracle), a schedule made with the future known (clairvoyant), and the lower
    bound.
    """
    from sagescale.cli.output import stdout_console, write_json
    from sagescale.cli.progress import task_progress
    from sagescale.experiment.compare import Comparison, compare
    from sagescale.experiment.execute import START_S, default_jobs, open_backend
    from sagescale.experiment.grid import combinations
    from sagescale.files import check_writable
    from sagescale.planner.forecast import predictor_names
    from sagescale.report.comparison import print_comparison
    from sagescale.report.comparison_csv import comparison_csv
    from sagescale.sim.faults import read_faults
    from sagescale.trace.sessions import refuse_without_turns

    check_writable(json_out, csv_out, html_out)
    check_share("--attainment", attainment)
    check_counts(("--seeds", seeds, 1), ("--jobs", jobs, 1))
    faults = None if faults_file is None else read_faults(faults_file)
    tried = choose("--predictors", predictors, predictor_names())
    tried_with = combinations(
        config or [], [*(overrides or []), *session_keys(open_loop, concurrent_sessions)]
    )
    workload, variants = load_comparison(
        trace, profile, [(files, chosen, {}) for files, chosen in tried_with], transforms
    )
    if workload.recorded.turns is None and len({variant.simulator.open_loop for variant in variants}) > 1:
        refuse_without_turns("open_loop false,true", workload.recorded)
    used = choose_policies("--policies", policies, variants)
    comparison = Comparison(variants, used, tried, attainment, seeds, faults)
    with (
        open_backend(backend, jobs or default_jobs(), address, start_s=START_S) as where,
        task_progress("comparing") as progress,
    ):
        document = compare(workload, comparison, where, progress=progress)
    if json_out is not None:
        write_json(json_out, document)
    if html_out is not None:
        from sagescale.report.html import write_html

        write_html(html_out, document)
    if csv_out is not None:
        comparison_csv(csv_out, document)
    print_comparison(document, stdout_console())
    assert document.comparison is not None  # made just now
    if document.comparison.interrupted:
        raise typer.Exit(130)
    if document.comparison.failed:
        raise typer.Exit(1)
