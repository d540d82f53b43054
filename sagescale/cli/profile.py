"""``sagescale profile``: import, estimate, calibrate, list, show and validate profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sagescale.cli.examples import epilog
from sagescale.cli.options import (
    GIVEN,
    TraceOption,
    Transforms,
    command_line,
    profile_name,
    takes_trace,
    takes_transforms,
)
from sagescale.cli.profile_calibrate import calibrate
from sagescale.cli.profile_estimate import estimate
from sagescale.cli.profile_show import show

profile_app = typer.Typer(
    name="profile",
    help="Performance profiles: what one prefill and one decode instance can do.",
    no_args_is_help=True,
)


@profile_app.command("import", epilog=epilog("profile import"))
def import_profile(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SRC...", help="File or folder to import; several are joined.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.yaml", help="Where to write the profile.")],
    format_name: Annotated[
        Optional[str],
        typer.Option("--format", help="The sources' format; by content when not given."),
    ] = None,
    name: Annotated[
        Optional[str], typer.Option(help="The profile's name; the output's stem by default.")
    ] = None,
    role: Annotated[
        Optional[list[str]],
        typer.Option(help="Keep only prefill or decode; once, or once for each SRC in order."),
    ] = None,
    tp: Annotated[
        Optional[int],
        typer.Option(min=1, help="Tensor parallelism; chooses among a source's configurations."),
    ] = None,
    max_num_seqs: Annotated[Optional[int], typer.Option(min=1, help="Slots of a decode instance.")] = None,
    max_kv_tokens: Annotated[
        Optional[int], typer.Option(min=1, help="KV tokens a decode instance holds.")
    ] = None,
    max_batched_tokens: Annotated[
        Optional[int], typer.Option(min=1, help="Tokens of a step that mixes prompts with decoding.")
    ] = None,
    prefill_gpus: Annotated[Optional[int], typer.Option(min=1, help="GPUs of a prefill instance.")] = None,
    decode_gpus: Annotated[Optional[int], typer.Option(min=1, help="GPUs of a decode instance.")] = None,
    kv_decode_steps: Annotated[
        float, typer.Option(min=0.0, help="Decode steps a KV hand-off waits at the receiver.")
    ] = 0.0,
    kv_blocks_prefill: Annotated[
        bool, typer.Option("--kv-blocks-prefill", help="The prefill instance waits for KV copies.")
    ] = False,
    model: Annotated[str, typer.Option(help="Model name; chooses where a source has several models.")] = "",
    gpu: Annotated[str, typer.Option(help="GPU type; chooses where a source has several.")] = "",
    config: Annotated[
        str, typer.Option(help="Part of the words that tell a source's configurations apart.")
    ] = "",
    engine: Annotated[str, typer.Option(help="Serving engine.")] = "",
    engine_version: Annotated[str, typer.Option(help="Its version.")] = "",
    precision: Annotated[str, typer.Option(help="Weights' precision, e.g. fp8.")] = "",
    title: Annotated[str, typer.Option(help="Title of the source.")] = "",
    description: Annotated[str, typer.Option(help="What the source is, in a sentence.")] = "",
    licence: Annotated[str, typer.Option(help="The source's licence, e.g. Apache-2.0.")] = "",
    tool: Annotated[str, typer.Option(help="What measured it.")] = "",
    tool_version: Annotated[str, typer.Option(help="Its version.")] = "",
) -> None:
    """Build a profile from measurements and report how far the fit is from them.

    The profile records the sources' sha256 and this command.
    """
    from sagescale.cli.output import error_spread
    from sagescale.files import check_writable
    from sagescale.perf.build import ImportOptions, build_profile, read_sources
    from sagescale.perf.document import write_profile
    from sagescale.perf.measurement import Wanted
    from sagescale.perf.validate import unfit_lines

    check_writable(out)
    roles = tuple(role or ())
    name = profile_name(name, out)
    measurements = read_sources(
        sources,
        format_name=format_name,
        roles=roles,
        wanted=Wanted(model=model, gpu=gpu, tensor_parallel=tp, config=config),
    )
    profile = build_profile(
        measurements,
        ImportOptions(
            name=name,
            model=model,
            gpu=gpu,
            engine=engine,
            engine_version=engine_version,
            precision=precision,
            tensor_parallel=tp,
            prefill_gpus=prefill_gpus,
            decode_gpus=decode_gpus,
            max_num_seqs=max_num_seqs,
            max_kv_tokens=max_kv_tokens,
            max_batched_tokens=max_batched_tokens,
            kv_decode_steps=kv_decode_steps,
            blocks_prefill=kv_blocks_prefill,
            title=title,
            description=description,
            licence=licence,
            tool=tool,
            tool_version=tool_version,
            command=command_line(
                "profile import",
                [path.resolve().name for path in sources],
                (
                    ("--format", format_name),
                    ("--name", name),
                    *(("--role", one) for one in roles),
                    ("--tp", tp),
                    ("--max-num-seqs", max_num_seqs),
                    ("--max-kv-tokens", max_kv_tokens),
                    ("--max-batched-tokens", max_batched_tokens),
                    ("--prefill-gpus", prefill_gpus),
                    ("--decode-gpus", decode_gpus),
                    ("--kv-decode-steps", kv_decode_steps or None),
                    ("--model", model),
                    ("--gpu", gpu),
                    ("--config", config),
                    ("--engine", engine),
                    ("--engine-version", engine_version),
                    ("--precision", precision),
                    ("--title", title),
                    ("--description", description),
                    ("--licence", licence),
                    ("--tool", tool),
                    ("--tool-version", tool_version),
                    ("--out", out.name),
                    ("--kv-blocks-prefill", kv_blocks_prefill),
                ),
            ),
        ),
    )
    write_profile(profile, out)
    print(f"{out}: {profile.name}")
    errors = [
        ("prefill fit", profile.prefill.fit_error, ""),
        ("prefill batches fit", profile.prefill.batch_error, ""),
        ("decode fit", profile.decode.fit_error, ""),
    ]
    for each in profile.aggregated.step_errors if profile.aggregated is not None else ():
        steps = f"steps ({each.kind})"
        errors += [(steps, each.fitted, ""), (steps, each.left_out, " left out of a fit")]
    for what, error, points in errors:
        if error is not None:
            print(f"{what} error over {error.n} points{points}: {error_spread(error)}")
    for words_assumed in profile.assumed:
        print(f"assumed: {words_assumed}")
    for note in profile.notes:
        print(f"note: {note}")
    for warning in unfit_lines(profile):
        print(f"warning: {warning}")


@profile_app.command("list", epilog=epilog("profile list"))
def list_command() -> None:
    """List the shipped profiles."""
    from rich.table import Table

    from sagescale.cli.output import stdout_console
    from sagescale.perf.document import DEFAULT_PROFILE, list_profiles, load_profile

    table = Table(
        title="Shipped profiles",
        caption=f"P/D: GPUs of a prefill and a decode instance. Default: {DEFAULT_PROFILE}",
    )
    table.add_column("name", no_wrap=True)
    table.add_column("GPU", no_wrap=True)
    table.add_column("engine", overflow="fold")
    for heading in ("P/D", "slots", "KV tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in list_profiles():
        profile = load_profile(name)
        decode = profile.decode
        table.add_row(
            name,
            profile.gpu,
            f"{profile.engine} {profile.engine_version}".strip(),
            f"{profile.prefill.gpus_per_instance}/{decode.gpus_per_instance}",
            str(decode.max_num_seqs),
            "unlimited" if decode.max_kv_tokens is None else str(decode.max_kv_tokens),
        )
    stdout_console().print(table)


profile_app.command("show", epilog=epilog("profile show"))(show)


@profile_app.command(epilog=epilog("profile validate"))
@takes_trace
@takes_transforms
def validate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped profile's name, or a YAML file.")],
    trace: TraceOption = None,
    transforms: Transforms = GIVEN,
    serving: Annotated[
        Optional[str],
        typer.Option(
            metavar="WAY", help="disaggregated or aggregated; what it was measured for where not given."
        ),
    ] = None,
) -> None:
    """Check a profile's fit, order, noise and limits and, with --trace, how much of it was measured for that.

    The exit code is 0 when it is fit and 1 when it is not.
    """
    from rich.table import Table

    from sagescale.cli.output import stdout_console
    from sagescale.errors import InputError
    from sagescale.perf import load_profile
    from sagescale.perf.validate import Traffic, Verdict, validate_profile

    if serving not in {None, "aggregated", "disaggregated"}:
        raise InputError(f"--serving '{serving}' (expected aggregated or disaggregated)")
    profile = load_profile(name)
    traffic = None
    if trace is not None:
        from sagescale.trace import apply_transforms

        loaded = apply_transforms(trace.read(), transforms)
        cached = loaded.cached_tokens
        traffic = Traffic(loaded.isl, loaded.isl if cached is None else loaded.isl - cached, loaded.osl)
    aggregated = None if serving is None else serving == "aggregated"
    checks = validate_profile(profile, traffic, aggregated=aggregated)
    colours = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.UNFIT: "bold red"}
    table = Table(title=f"{profile.name}{f' for {trace}' if trace else ''}")
    for heading in ("checked", "found", "needed"):
        table.add_column(heading, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for check in checks:
        verdict = f"[{colours[check.verdict]}]{check.verdict}[/]"
        table.add_row(check.what, check.found, check.needed, verdict)
    stdout_console().print(table)
    unfit = sum(check.verdict is Verdict.UNFIT for check in checks)
    if unfit:
        print(f"unfit: {unfit} of {len(checks)} checks failed")
        raise typer.Exit(1)
    print(f"fit: {len(checks)} checks")


profile_app.command("estimate", epilog=epilog("profile estimate"))(estimate)
profile_app.command("calibrate", epilog=epilog("profile calibrate"))(calibrate)
