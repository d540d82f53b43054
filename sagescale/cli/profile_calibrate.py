"""``sagescale profile calibrate``: fit a profile to a log of the requests an engine served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sagescale.cli.options import command_line, profile_name
from sagescale.errors import InputError, SagescaleError

if TYPE_CHECKING:
    from rich.text import Text

    from sagescale.experiment.calibrate import Calibration, PercentileError
    from sagescale.experiment.served import ServedLog
    from sagescale.perf import Profile


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
            help=(
                "The names of arrival_s, isl, osl, first_token_s, done_s; prefill_start_s, kv_ready_s, "
                "admitted_s, gap_p99_ms, gap_max_ms."
            ),
        ),
    ] = None,
    prefill: Annotated[
        Optional[int], typer.Option(min=1, help="Prefill instances that served the log; 1 by default.")
    ] = None,
    decode: Annotated[
        Optional[int], typer.Option(min=1, help="Decode instances that served the log; 1 by default.")
    ] = None,
    serving: Annotated[
        Optional[str],
        typer.Option(
            metavar="WAY",
            help="How it was served: disaggregated or aggregated; by default as the profile was measured.",
        ),
    ] = None,
    instances: Annotated[
        Optional[int], typer.Option(min=1, help="Aggregated instances that served the log; 1 by default.")
    ] = None,
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
        Optional[str],
        typer.Option(
            metavar="A:B",
            help="Part of the log to fit to, as shares; the rest is scored. 0:0.5, with --score all.",
        ),
    ] = None,
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

    Of separate pools: prefill and decode time scale, unequal contexts, join cost, the hand-off and batch
    padding; of aggregated instances the scales of steps with prompt chunks, of decode steps and of unequal
    contexts, and padding. Fits one part of the log, scores the other or another log, and writes the profile
    only if the fit is good (else exit code 1).
    """
    import dataclasses

    from sagescale.cli.progress import simulation_progress
    from sagescale.experiment.calibrate import calibrate as run_calibration
    from sagescale.experiment.calibrate import with_provenance
    from sagescale.experiment.replay import PoolSizes, read_pool_sizes
    from sagescale.experiment.served import read_served
    from sagescale.files import check_writable
    from sagescale.perf import estimate_aggregated, load_profile
    from sagescale.perf.document import write_profile
    from sagescale.planner.loading import load_settings
    from sagescale.sim.config import SimulatorConfig, with_overrides

    check_writable(out)
    fit = fit or ("0:0.5" if score is None else "0:1")
    shares, sizes, named = _fit_shares(fit), _padded_sizes(padding), _mapped_columns(columns or [])
    base = load_profile(profile)
    keys = [text for text in overrides or [] if not text.startswith("serving=")]
    aggregated = _is_aggregated(
        [text.removeprefix("serving=") for text in overrides or [] if text not in keys],
        serving,
        base,
        [("--prefill", prefill), ("--decode", decode), ("--observations", observations)],
        instances,
    )
    settings = load_settings((SimulatorConfig,), [], keys)
    if aggregated:
        base = dataclasses.replace(base, aggregated=base.aggregated or estimate_aggregated(base))
        assert base.aggregated is not None  # made above
        simulator = settings.build(SimulatorConfig, max_batched_tokens=base.aggregated.max_batched_tokens)
        base = base.with_limits(max_num_seqs=simulator.max_num_seqs, max_kv_tokens=simulator.max_kv_tokens)
    else:
        simulator = settings.build(SimulatorConfig)
        base = with_overrides(base, simulator)
    base = base.with_limits(max_num_seqs=max_num_seqs, max_kv_tokens=max_kv_tokens)
    log = read_served(requests, named)
    if score is not None and observations is not None:
        raise InputError("--score: not with --observations, whose pools are those of the first log")
    unseen = None if score is None else read_served(score, named)
    pools = (
        PoolSizes.of_aggregated(instances or 1) if aggregated else PoolSizes.fixed(prefill or 1, decode or 1)
    )
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
    _print_calibration(result, base, log, out.name)
    if not result.good and not force:
        raise SagescaleError(
            f"{out}: not written: the calibrated profile does not predict the log well enough "
            "(--force writes it all the same)"
        )
    command = command_line(
        "profile calibrate",
        [base.name],
        (
            ("--requests", requests.name),
            *(("--columns", one) for one in columns or []),
            ("--observations", observations and observations.name),
            ("--prefill", prefill),
            ("--decode", decode),
            ("--serving", "aggregated" if aggregated else None),
            ("--instances", instances),
            ("--max-num-seqs", max_num_seqs),
            ("--max-kv-tokens", max_kv_tokens),
            *(("--set", one) for one in keys),
            ("--padding", padding),
            ("--fit", fit),
            ("--score", score and score.name),
            ("--force", force),
            ("--out", out.name),
        ),
    )
    write_profile(with_provenance(result, base, log, profile_name(name, out), command), out)


def _is_aggregated(
    given: list[str],
    serving: str | None,
    base: Profile,
    of_pools: list[tuple[str, object]],
    instances: int | None,
) -> bool:
    """Whether aggregated instances served the log: as said, else as the profile was measured.

    Raises InputError for another way, or an option of the other way.
    """
    words = [("--set serving", word) for word in given] + ([("--serving", serving)] if serving else [])
    for option, word in words:
        if word not in {"aggregated", "disaggregated"}:
            raise InputError(f"{option} '{word}' (expected aggregated or disaggregated)")
    pools = [option for option, value in of_pools if value is not None]
    if words:
        aggregated = words[-1][1] == "aggregated"
    elif instances is not None or pools:
        aggregated = instances is not None
    else:
        aggregated = base.aggregated is not None and not base.aggregated.estimated
    if aggregated and pools:
        raise InputError(
            f"{pools[0]}: is of separate pools (expected --instances where serving is aggregated)"
        )
    if not aggregated and instances is not None:
        raise InputError("--instances: is of aggregated serving (expected --prefill and --decode)")
    return aggregated


def _fit_shares(text: str) -> tuple[float, float]:
    """Parse ``A:B``; raises InputError unless 0 <= A < B <= 1."""
    first, colon, last = text.partition(":")
    try:
        shares = float(first), float(last)
    except ValueError:
        shares = (1.0, 0.0)
    if not (colon and 0 <= shares[0] < shares[1] <= 1):
        raise InputError(f"--fit {text}: expected two shares A:B with 0 <= A < B <= 1, e.g. 0:0.5")
    return shares


def _padded_sizes(text: str) -> tuple[tuple[int, ...], ...] | None:
    """Parse ``auto`` (None), ``none`` or sizes; raises InputError unless they increase."""
    if text == "auto":
        return None
    if text == "none":
        return ((),)
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
        raise InputError(
            f"--padding {text}: expected auto, none, or batch sizes that increase, e.g. 1,2,4,8,16"
        )
    return (sizes,)


def _mapped_columns(texts: list[str]) -> dict[str, str]:
    """Parse ``ours=theirs`` pairs, separated by commas; raises InputError for anything else."""
    named: dict[str, str] = {}
    for pair in (pair for text in texts for pair in text.split(",")):
        ours, equals, theirs = pair.partition("=")
        if not equals or not ours.strip() or not theirs.strip():
            raise InputError(f"--columns {pair}: expected NAME=COLUMN, e.g. arrival_s=t_in")
        named[ours.strip()] = theirs.strip()
    return named


def _print_calibration(result: Calibration, base: Profile, log: ServedLog, out: str) -> None:
    """Print each percentile before and after, what is to know of them, and whether the fit is good."""
    from rich.text import Text

    from sagescale.cli.output import stdout_console
    from sagescale.experiment.calibrate import SERVICE_SHIFT
    from sagescale.report.formats import MARK
    from sagescale.report.layout import GOOD, POOR, Page

    page = Page(stdout_console())
    simulations = f"({result.evaluations} simulations)"
    page.field(
        "calibrated", f"{base.name} on {result.fitted} of {len(log)} requests of {log.path} {simulations}"
    )
    page.field(
        "scored on",
        f"{result.scored} requests " + ("held out from the fit" if result.held_out else "the fit saw"),
    )
    for place, (name, value) in enumerate(result.factor_lines):
        page.field("" if place else "factors", f"{name} {value}")
    page.blank()
    shift = f"{SERVICE_SHIFT:.0%}"
    header = ("measured", "before", "error", "after", "error", f"service -{shift}", f"+{shift}", "limit", "")
    page.table("ms", header, [(error.name, _cells(error)) for error in result.errors])
    page.blank()
    notes = [
        f"{kind}: costs {more:.1f} more than the fit chosen (a quantile off by its tolerance costs about 1)"
        for kind, more in result.runner_up
    ]
    notes += [
        f"{name} ended at its bound: the log asks for more than is plausible" for name in result.at_bounds
    ]
    sensitive = [error.name for error in result.errors if error.good and not error.within_limit]
    if sensitive:
        notes.append(
            f"{', '.join(sensitive)}: outside the limit, but {shift} of service time moves it further than "
            "it is off: near saturation no profile predicts it better"
        )
    for note in notes:
        page.field("note", note)
    off = [error.name for error in result.errors if not error.good]
    if result.good:
        conclusion = f"good: written to {out}"
    elif off:
        conclusion = f"{MARK} not good: {', '.join(off)} off"
    else:
        conclusion = f"{MARK} not good: a factor ended at its bound"
    page.field("verdict", Text(conclusion, style=GOOD if result.good else POOR))


def _cells(error: PercentileError) -> list[Text]:
    from rich.text import Text

    from sagescale.report.formats import MARK
    from sagescale.report.layout import DIM, GOOD, POOR

    verdict = "ok" if error.within_limit else "sensitive" if error.good else f"{MARK} off"
    style = GOOD if error.within_limit or error.good else POOR
    return [
        Text(f"{error.measured_ms:.1f}"),
        Text(f"{error.before_ms:.1f}"),
        Text(f"{error.before:+.1%}"),
        Text(f"{error.after_ms:.1f}"),
        Text(f"{error.after:+.1%}", style=style),
        Text(f"{error.faster_ms:.1f}", style=DIM),
        Text(f"{error.slower_ms:.1f}", style=DIM),
        Text(f"{error.limit:.0%}", style=DIM),
        Text(verdict, style=style),
    ]
