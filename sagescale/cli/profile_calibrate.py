"""``sagescale profile calibrate``: fit a profile to a log of the requests an engine served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

__all__ = ["calibrate"]


def calibrate(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A shipped profile's name, or a YAML file.")
    ],
    requests: Annotated[
        Path,
        typer.Option(
            "--requests", metavar="LOG", help="Served requests: CSV with a header, or Parquet; times in s."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="NEW.yaml", help="Where to write the profile.")],
    observations: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="Pool sizes over time: CSV with time_s,prefill,decode."),
    ] = None,
    columns: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="OURS=THEIRS,...",
            help="The names of arrival_s, isl, osl, first_token_s, done_s; prefill_start_s, kv_ready_s.",
        ),
    ] = None,
    prefill: Annotated[int, typer.Option(min=1, help="Prefill instances that served the log.")] = 1,
    decode: Annotated[int, typer.Option(min=1, help="Decode instances that served the log.")] = 1,
    max_num_seqs: Annotated[
        Optional[int], typer.Option(min=1, help="Slots of a decode instance; the profile's by default.")
    ] = None,
    max_kv_tokens: Annotated[
        Optional[int],
        typer.Option(min=1, help="KV tokens a decode instance holds; the profile's by default."),
    ] = None,
    overrides: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A simulator key, e.g. max_batch_tokens=16384, first_token=decode.",
        ),
    ] = None,
    padding: Annotated[
        str,
        typer.Option(
            metavar="auto|none|N,N,...",
            help="Sizes decode batches are padded to; auto tries none and the profile's measured batches.",
        ),
    ] = "auto",
    fit: Annotated[
        str,
        typer.Option(
            metavar="A:B", help="Part of the log to fit to, as shares; the rest is scored. 0:1 is all."
        ),
    ] = "0:0.5",
    score: Annotated[
        Optional[Path],
        typer.Option(metavar="LOG", help="Score another log of the same engine, not the rest of this one."),
    ] = None,
    name: Annotated[
        Optional[str], typer.Option(help="The profile's name; the output's stem by default.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write the profile even if the fit is not good.")
    ] = False,
) -> None:
    """Fit the few physical factors that make the simulator reproduce what an engine served.

    Fits prefill and decode time scale, join cost, the hand-off and batch padding to one part of the log,
    scores the other or another log, and writes the profile only if the fit is good (else exit code 1).
    """
    from sagescale.cli.calibration_words import calibration_page, fit_shares, mapped_columns, padded_sizes
    from sagescale.cli.pipes import stdout_console
    from sagescale.cli.progress import simulation_progress
    from sagescale.errors import InputError, SagescaleError
    from sagescale.experiment.calibrate import calibrate as run_calibration
    from sagescale.experiment.provenance import with_provenance
    from sagescale.experiment.replay import PoolSizes, read_pool_sizes
    from sagescale.experiment.served import read_served
    from sagescale.files import check_writable
    from sagescale.perf import load_profile
    from sagescale.perf.document import write_profile
    from sagescale.planner.loading import load_settings
    from sagescale.report.calibration import print_calibration
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.world import with_overrides

    check_writable(out)
    shares, sizes, named = fit_shares(fit), padded_sizes(padding), mapped_columns(columns or [])
    simulator = load_settings((SimulatorConfig,), [], overrides or []).build(SimulatorConfig)
    base = with_overrides(load_profile(profile), simulator)
    base = base.with_limits(max_num_seqs=max_num_seqs, max_kv_tokens=max_kv_tokens)
    log = read_served(requests, named)
    if score is not None and observations is not None:
        raise InputError("--score: not with --observations, whose pools are those of the first log")
    unseen = None if score is None else read_served(score, named)
    pools = PoolSizes.fixed(prefill, decode)
    if observations is not None:
        pools = read_pool_sizes(observations, log.start_s)
    with simulation_progress(1.0) as progress:
        result = run_calibration(
            base,
            log,
            pools,
            simulator,
            fit_part=shares,
            unseen=unseen,
            paddings=sizes,
            progress=progress,
        )
    print_calibration(calibration_page(result, base, log, out.name), stdout_console())
    if not result.good and not force:
        raise SagescaleError(
            f"{out}: not written: the calibrated profile does not predict the log well enough "
            "(--force writes it all the same)"
        )
    given: list[tuple[str, object]] = [
        *(("--columns", one) for one in columns or []),
        ("--observations", None if observations is None else observations.name),
        ("--prefill", prefill),
        ("--decode", decode),
        ("--max-num-seqs", max_num_seqs),
        ("--max-kv-tokens", max_kv_tokens),
        *(("--set", one) for one in overrides or []),
        ("--padding", padding),
        ("--fit", fit),
        ("--score", None if score is None else score.name),
    ]
    words = ["sagescale", "profile", "calibrate", base.name, "--requests", requests.name]
    words += [word for option, value in given if value is not None for word in (option, str(value))]
    words += ["--force"] if force else []
    words += ["--out", out.name]
    name = name or out.name.removesuffix(".yaml").removesuffix(".yml")
    import shlex

    write_profile(with_provenance(result, base, log, name, shlex.join(words)), out)
