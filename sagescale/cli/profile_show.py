"""``sagescale profile show``: a profile as tables and plots."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from sagescale.perf.model import ProfileModel
    from sagescale.perf.profile import AggregatedProfile, FitError, Profile

_WIDTH = 110
_MAX_CONTEXTS = 8


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped profile's name, or a YAML file.")],
    target_itl_ms: Annotated[
        float,
        typer.Option(metavar="MS", help="The SLA's time between tokens, whose operating point is marked."),
    ] = 50.0,
    png_out: Annotated[
        Optional[Path], typer.Option("--png", metavar="FILE", help="Draw the plots as a PNG too.")
    ] = None,
    html_out: Annotated[
        Optional[Path], typer.Option("--html", metavar="FILE", help="Draw the plots as an HTML page too.")
    ] = None,
) -> None:
    """Show a profile: where it comes from, limits, surfaces and how far they are from the measurements.

    Plots show the fitted curves with the measured points beside them.
    """
    from sagescale.cli.output import stdout_console
    from sagescale.cli.profile_figure import profile_figure
    from sagescale.errors import InputError
    from sagescale.files import check_writable, write_whole
    from sagescale.perf.document import load_profile
    from sagescale.report.html import render_plots
    from sagescale.report.picture import png_picture
    from sagescale.report.text_plots import panel_text
    from sagescale.version import __version__

    if not 0.0 < target_itl_ms < float("inf"):
        raise InputError(f"--target-itl-ms {target_itl_ms:g} (expected a number > 0)")
    check_writable(png_out, html_out)
    profile = load_profile(name)
    figure = profile_figure(profile, target_itl_ms=target_itl_ms)
    title = " · ".join(word for word in (profile.name, profile.gpu, profile.engine) if word)
    if png_out is not None:
        write_whole(png_out, png_picture(figure, title))
    if html_out is not None:
        texts = ["Lines: fitted, symbols: measured, stars: most tokens within the target."]
        write_whole(html_out, render_plots(figure, title=title, version=__version__, texts=texts).encode())
    console = stdout_console()
    for table in _tables(profile):
        console.print(table)
    for panel in figure.panels:
        console.print()
        console.print(panel_text(panel, min(console.width, _WIDTH)), end="")
    for out in (png_out, html_out):
        if out is not None:
            print(f"{out}: written")


def _tables(profile: Profile) -> Iterator[Table]:
    """Yield identity and limits, TTFT over ISL, ITL over concurrency and context."""
    from sagescale.perf.model import ProfileModel

    model = ProfileModel(profile)
    yield _facts(profile, model)
    yield _prefill(profile, model)
    yield _decode(profile, model)
    if profile.aggregated is not None:
        yield _steps(profile.aggregated, model)


def _facts(profile: Profile, model: ProfileModel) -> Table:
    from rich.table import Table
    from rich.text import Text

    source, decode = profile.source, profile.decode
    unlimited = decode.max_kv_tokens is None
    rows = [
        ("model", profile.model),
        ("GPU", f"{profile.gpu}, tensor parallel {profile.tensor_parallel}".removeprefix(", ")),
        ("engine", f"{profile.engine} {profile.engine_version} {profile.precision}".strip()),
        ("source", f"{source.title} ({source.licence or 'no licence stated'})" if source.title else ""),
        ("", source.description),
        ("measured by", f"{source.tool} {source.tool_version}".strip()),
        *(("file", f"{file.path}  sha256 {file.sha256}") for file in source.files),
        ("built by", source.command),
        ("GPUs an instance", f"prefill {model.prefill_gpus}, decode {model.decode_gpus}"),
        ("slots", f"{decode.max_num_seqs}{_if_assumed('max_num_seqs', profile)}"),
        (
            "KV tokens",
            f"{'unlimited' if unlimited else decode.max_kv_tokens}{_if_assumed('max_kv_tokens', profile)}",
        ),
        (
            "attention",
            f"{model.quadratic_ms:.4g} ms per token squared; floor {model.prefill_floor_ms:.4g} ms",
        ),
        ("KV transfer", _kv_transfer(profile)),
        ("prefill fit error", _error(profile.prefill.fit_error)),
        ("prefill batches", _error(profile.prefill.batch_error)),
        ("decode fit error", _error(decode.fit_error)),
        *(() if profile.aggregated is None else _aggregated(profile.aggregated)),
        *(("note", note) for note in profile.notes),
    ]
    table = Table(title=profile.name, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for word, text in rows:
        if text:
            table.add_row(word, Text(text))
    return table


def _prefill(profile: Profile, model: ProfileModel) -> Table:
    from rich.table import Table

    measured: dict[int, list[float]] = {}
    rows = profile.prefill.measured
    for isl, batch, ttft_ms in zip(rows.isl_tokens, rows.batch, rows.ttft_ms, strict=True):
        if batch == 1:
            measured.setdefault(isl, []).append(ttft_ms)
    table = Table(title="Prefill of one prompt alone")
    for heading in ("ISL tokens", "measured ms", "fitted ms", "error", "tokens/s/GPU"):
        table.add_column(heading, justify="right")
    for isl in sorted({*measured, *(int(knot) for knot in profile.prefill.isl_tokens)}):
        fitted = model.ttft_ms(isl)
        value = statistics.median(measured[isl]) if isl in measured else None
        table.add_row(
            str(isl),
            "" if value is None else f"{value:.2f}",
            f"{fitted:.2f}",
            "" if value is None else f"{fitted / value - 1:+.1%}",
            f"{model.prefill_throughput_per_gpu(isl):.0f}",
        )
    return table


def _decode(profile: Profile, model: ProfileModel) -> Table:
    from rich.table import Table

    from sagescale.cli.profile_figure import fits_kv, spread

    contexts = spread(profile.decode.context_tokens, _MAX_CONTEXTS)
    table = Table(
        title="Decode ITL in ms over concurrency and context tokens",
        caption="fitted; - does not fit the KV memory",
    )
    table.add_column("requests", justify="right")
    for context in contexts:
        table.add_column(f"{context:.0f}", justify="right")
    powers = [2**i for i in range(model.max_num_seqs.bit_length()) if 2**i < model.max_num_seqs]
    for n in [*powers, model.max_num_seqs]:
        cells = [
            f"{model.itl_ms(n, context):.2f}" if fits_kv(model, n, context) else "-" for context in contexts
        ]
        table.add_row(str(n), *cells)
    return table


def _aggregated(section: AggregatedProfile) -> Iterator[tuple[str, str]]:
    """Yield what the section says of an instance that prefills and decodes."""
    how = "estimated from prefill and decode" if section.estimated else "measured"
    yield (
        "aggregated",
        (
            f"{how}; GPUs {section.gpus_per_instance}, slots {section.max_num_seqs}, "
            f"{section.max_batched_tokens} tokens a step"
            f"{' (assumed)' if 'max_batched_tokens' in section.assumed else ''}"
        ),
    )
    yield (
        "step with chunks",
        (
            f"{section.tokens_ms[0]:.4g} to {section.tokens_ms[-1]:.4g} ms for {section.tokens[0]:.0f} to "
            f"{section.tokens[-1]:.0f} tokens; {section.running_ms:.3g} ms a request decoding, "
            f"{section.kv_ms:.3g} a KV token, {section.cross_ms:.3g} and {section.square_ms:.3g} a pair of a "
            f"chunk's token with one before and within it, {section.longest_ms:.3g} a token of the longest "
            "context"
        ),
    )
    for each in section.step_errors:
        yield f"steps: {each.kind}", _error(each.fitted)
        if each.left_out is not None:
            yield "", f"left out of a fit: {_error(each.left_out)}"


def _steps(section: AggregatedProfile, model: ProfileModel) -> Table:
    """Time of steps with one chunk from the start of a prompt beside decodes of the middle context."""
    from rich.table import Table

    steps = model.step_model()
    context = section.context_tokens[len(section.context_tokens) // 2]
    table = Table(
        title=f"Step with a prompt chunk in ms, beside requests of {context:.0f} tokens each",
        caption="fitted; without a chunk: a decode step",
    )
    table.add_column("chunk tokens", justify="right")
    running = [n for n in (0, 1, 8, 32, 64, 128, 256) if n <= section.max_num_seqs]
    for n in running:
        table.add_column(f"{n} decoding", justify="right")
    sizes = [2**i for i in range(5, 13) if 2**i < section.max_batched_tokens]
    for tokens in [0, *sizes, section.max_batched_tokens]:
        chunks = [(tokens, 0)] if tokens else []
        held = [(n, round(n * context), round(context) if n else 0) for n in running]
        cells = [f"{steps.step_ms(*each, chunks):.2f}" if chunks or each[0] else "" for each in held]
        table.add_row(str(tokens) if tokens else "none", *cells)
    return table


def _kv_transfer(profile: Profile) -> str:
    kv = profile.kv_transfer
    words = [f"{kv.latency_ms:.4g} ms + {kv.ms_per_1k_tokens:.4g} ms per 1000 tokens"]
    if kv.decode_steps:
        words.append(f" + {kv.decode_steps:g} decode steps")
    if kv.blocks_prefill:
        words.append(", the prefill instance waits")
    if kv.assumed:
        words.append(" (assumed: nothing was measured)")
    return "".join(words)


def _if_assumed(limit: str, profile: Profile) -> str:
    return " (assumed: the source does not say)" if limit in profile.decode.assumed else ""


def _error(error: FitError | None) -> str:
    from sagescale.cli.output import error_spread

    if error is None:
        return ""
    return f"{error_spread(error)} over {error.n} points"
