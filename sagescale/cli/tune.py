"""``sagescale tune``: the configuration that holds at the least GPU-hours, judged on data it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sagescale.cli.options import (
    GIVEN,
    AddressOption,
    AttainmentOption,
    BackendOption,
    ConfigOption,
    GivenTrace,
    JobsOption,
    OpenLoopOption,
    ProfileOption,
    SeedOption,
    SetOption,
    Transforms,
    session_keys,
    takes_trace,
    takes_transforms,
)
from sagescale.setup import check_counts, check_share, choose


@takes_trace
@takes_transforms
def tune(
    trace: GivenTrace,
    attainment: AttainmentOption = 0.99,
    validate: Annotated[
        str,
        typer.Option(
            "--validate", metavar="SHARE|TRACE", help="The last part of the trace, or another, to judge on."
        ),
    ] = "0.4",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Configuration to write, for `plan`.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Write --out even where the chosen configuration was seen to fail."),
    ] = False,
    policies: Annotated[str, typer.Option("--policies", metavar="A,B|all", help="Policies to try.")] = "all",
    predictors: Annotated[
        str, typer.Option("--predictors", metavar="A,B|all", help="Predictors to try.")
    ] = "all",
    intervals: Annotated[
        str | None,
        typer.Option(
            "--intervals", metavar="S,S", help="Intervals to try beside the configured one, in seconds."
        ),
    ] = None,
    refinements: Annotated[
        int,
        typer.Option(
            "--refinements", metavar="N", help="Configurations tried in the last round, all keys together."
        ),
    ] = 80,
    config: ConfigOption = None,
    overrides: SetOption = None,
    open_loop: OpenLoopOption = False,
    profile: ProfileOption = None,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", metavar="N", help="Copies of the trace, arrivals moved, that it must hold on."
        ),
    ] = 3,
    jobs: JobsOption = None,
    backend: BackendOption = "processes",
    address: AddressOption = None,
    transforms: Transforms = GIVEN,
    seed: SeedOption = 0,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="All of it.")] = None,
    html_out: Annotated[
        Path | None, typer.Option("--html", metavar="OUT.html", help="The trade-off as a picture.")
    ] = None,
) -> None:
    """Find the policy, predictor, interval, headroom, floors and stabilisation that hold at least GPU-hours.

    Chosen on the earlier part of the trace, judged on the later part. What fails on either is not
    written (exit code 1) unless you say --force. Ctrl-C keeps the best found by then.
    """
    import shlex
    import sys

    from rich.console import Console

    from sagescale.cli.output import write_json
    from sagescale.cli.progress import task_progress
    from sagescale.cli.tune_setup import load_tuning, read_intervals, tuned_yaml
    from sagescale.experiment.answer import gpu_hour_price
    from sagescale.experiment.execute import START_S, default_jobs, open_backend
    from sagescale.experiment.tune import Goal, expected_simulations, failure
    from sagescale.experiment.tune import tune as search
    from sagescale.experiment.tune_trials import Space, Trials
    from sagescale.files import check_writable, write_whole
    from sagescale.planner.forecast import predictor_names
    from sagescale.planner.policy import policy_names
    from sagescale.report.tune import print_tuning

    check_writable(out, json_out, html_out)
    check_share("--attainment", attainment)
    check_counts(("--seeds", seeds, 1), ("--refinements", refinements, 0), ("--jobs", jobs, 1))
    tried_policies = choose("--policies", policies, policy_names())
    tried_predictors = choose("--predictors", predictors, predictor_names())
    chosen = [*(overrides or []), *session_keys("true" if open_loop else None, None)]
    setup = load_tuning(trace, validate, profile, config or [], chosen, transforms, attainment)
    gpu_hour_price(setup.simulator, setup.earlier[0].profile)
    base = setup.config
    space = Space(
        tried_policies,
        tried_predictors,
        read_intervals(intervals, base.adjustment_interval_sec),
        tuple(dict.fromkeys((base.scale_down_stabilization_window_sec, 0, 120, 300, 600))),
        tuple(pool.least for pool in base.pools),
    )
    goal = Goal(attainment, seeds, refinements, seed)
    with (
        open_backend(backend, jobs or default_jobs(), address, start_s=START_S) as where,
        task_progress("tuning") as progress,
    ):
        expected = expected_simulations(space, goal)

        def count(done: int) -> None:
            if progress is not None:
                progress(done, max(done, expected))

        earlier = Trials(*setup.earlier, base, setup.simulator, where, count)
        later = Trials(*setup.later, base, setup.simulator, where)
        document = search(earlier, later, space, goal, setup.validation)
    failed = failure(document)
    written = out is not None and document.chosen is not None and (failed is None or force)
    if out is not None and written:
        command = shlex.join(["sagescale", *sys.argv[1:]])
        write_whole(out, tuned_yaml(document, setup.settings, command).encode())
    if json_out is not None:
        write_json(json_out, document)
    if html_out is not None:
        from sagescale.report.html.tune import write_tune_html

        write_tune_html(html_out, document)
    print_tuning(document, Console())
    if written:
        print(f"wrote {out}")
    if failed is not None:
        what = "" if out is None else f"wrote {out} all the same; " if written else f"{out} not written; "
        print(f"{what}{failed}" + ("" if written or out is None else ": --force writes it"), file=sys.stderr)
    if document.interrupted:
        raise typer.Exit(130)
    if failed is not None and not written:
        raise typer.Exit(1)
