"""``sagescale forecast``: back-test predictors alone, without a simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sagescale.cli.options import GIVEN, GivenTrace, Transforms, takes_trace, takes_transforms
from sagescale.setup import choose

_MOST_WINDOWS = 1_000_000


@takes_trace
@takes_transforms
def forecast(
    trace: GivenTrace,
    predictors: Annotated[
        str, typer.Option("--predictors", metavar="A,B|all", help="Predictors to test.")
    ] = "all",
    horizon: Annotated[int, typer.Option("--horizon", metavar="N", help="Windows ahead to score.")] = 1,
    interval: Annotated[float, typer.Option("--interval", metavar="S", help="Length of a window, s.")] = 60.0,
    season_s: Annotated[
        float | None,
        typer.Option("--season-s", metavar="S", help="Period of the load; found by itself if not given."),
    ] = None,
    window_size: Annotated[
        int | None,
        typer.Option(
            "--window-size", metavar="N", help="History in windows; each predictor's own if not given."
        ),
    ] = None,
    transforms: Transforms = GIVEN,
    csv_out: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="OUT.csv",
            help="Every forecast: a row a series, predictor, cutoff and step.",
        ),
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="The scores.")] = None,
) -> None:
    """Back-test predictors on a trace: observe each window, forecast, score against what came.

    Shows MAPE, WAPE, bias, pinball loss and coverage of requests, ISL and OSL, and which predictor wins and
    why.
    """
    from sagescale.cli.output import stdout_console, write_json
    from sagescale.cli.progress import task_progress
    from sagescale.errors import InputError
    from sagescale.experiment.backtest import back_test, backtest_document, long_table
    from sagescale.files import check_writable, written_whole
    from sagescale.planner.forecast import predictor_names
    from sagescale.report.forecast import print_backtest
    from sagescale.trace import apply_transforms

    check_writable(json_out, csv_out)
    if horizon < 1:
        raise InputError(f"--horizon {horizon}: expected a whole number of windows, 1 or more")
    if not 0.0 < interval < float("inf"):
        raise InputError(f"--interval {interval:g}: expected a number of seconds above 0")
    if season_s is not None and not 2 * interval <= season_s < float("inf"):
        raise InputError(f"--season-s {season_s:g}: expected at least two windows, {2 * interval:g} s")
    if window_size is not None and window_size < 1:
        raise InputError(f"--window-size {window_size}: expected a whole number of windows, 1 or more")
    names = choose("--predictors", predictors, predictor_names())
    requests = apply_transforms(trace.read(), transforms)
    if requests.duration_s < (horizon + 2) * interval:
        raise InputError(
            f"{trace}: lasts {requests.duration_s:g} s; expected at least horizon + 2 windows of "
            f"{interval:g} s"
        )
    if requests.duration_s > _MOST_WINDOWS * interval:
        raise InputError(
            f"--interval {interval:g}: makes over {_MOST_WINDOWS:,} windows of {requests.duration_s:g} s; "
            f"expected {requests.duration_s / _MOST_WINDOWS:.2g} s or more"
        )
    with task_progress("forecasting") as progress:
        test = back_test(
            requests,
            names,
            interval_s=interval,
            horizon=horizon,
            season_s=season_s,
            window_size=window_size,
            progress=progress,
        )
    document = backtest_document(requests, test)
    if csv_out is not None:
        import pandas as pd

        with written_whole(csv_out) as stream:
            pd.DataFrame(long_table(test)).to_csv(stream, index=False, float_format="%.10g")
    if json_out is not None:
        write_json(json_out, document)
    print_backtest(document, stdout_console())
