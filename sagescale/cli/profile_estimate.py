"""``sagescale profile estimate``: a profile from a model's shape and a GPU's data sheet."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sagescale.cli.options import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagescale.perf.catalogue import Gpu, ModelShape
    from sagescale.perf.profile import Profile
    from sagescale.perf.roofline import Assumptions


def estimate(
    out: Annotated[Path, typer.Option("--out", metavar="FILE.yaml", help="Where to write the profile.")],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A public model, or any name with its numbers.")
    ] = "",
    gpu: Annotated[str, typer.Option(metavar="NAME", help="A GPU, or any name with its numbers.")] = "",
    aggregated_from: Annotated[
        Optional[str],
        typer.Option(
            metavar="PROFILE",
            help="Instead of a model and a GPU: this profile, and what its engine would do aggregated.",
        ),
    ] = None,
    tp: Annotated[int, typer.Option(min=1, help="GPUs an instance, tensor parallel.")] = 1,
    precision: Annotated[str, typer.Option(help="Of the weights: bf16 or fp8.")] = "bf16",
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Slots of a decode instance.")] = 256,
    name: Annotated[
        Optional[str], typer.Option(help="The profile's name; made of the above by default.")
    ] = None,
    assume: Annotated[
        Optional[list[str]],
        typer.Option(metavar="KEY=VALUE", help="Change an assumption, e.g. compute_efficiency=0.6."),
    ] = None,
    against: Annotated[
        Optional[str],
        typer.Option(
            metavar="PROFILE", help="Report the estimate's error at this profile's measured points."
        ),
    ] = None,
    parameters: Annotated[Optional[float], typer.Option(help="In 10^9, all of them.")] = None,
    active_parameters: Annotated[Optional[float], typer.Option(help="In 10^9, that one token meets.")] = None,
    layers: Annotated[Optional[int], typer.Option(min=1)] = None,
    hidden: Annotated[Optional[int], typer.Option(min=1)] = None,
    heads: Annotated[Optional[int], typer.Option(min=1)] = None,
    kv_heads: Annotated[Optional[int], typer.Option(min=1)] = None,
    head_dim: Annotated[Optional[int], typer.Option(min=1)] = None,
    vocab: Annotated[Optional[int], typer.Option(min=0, help="Words; 128256 if not given.")] = None,
    memory_gib: Annotated[Optional[float], typer.Option(help="Memory.")] = None,
    bandwidth_gb_s: Annotated[Optional[float], typer.Option(help="Memory bandwidth.")] = None,
    bf16_tflops: Annotated[Optional[float], typer.Option(help="Dense peak.")] = None,
    fp8_tflops: Annotated[Optional[float], typer.Option(help="Dense peak, if it has any.")] = None,
    link_gb_s: Annotated[
        Optional[float],
        typer.Option(help="To the other GPUs, one direction; 32 if not given."),
    ] = None,
) -> None:
    """Estimate a profile by roofline arithmetic, or aggregated serving from a profile of separate pools.

    Numbers given replace those of a known model or GPU. The profile says that it is an estimate, and its
    assumptions.
    """
    from sagescale.cli.output import error_spread
    from sagescale.errors import InputError
    from sagescale.files import check_writable
    from sagescale.perf import DEFAULT_MAX_NUM_SEQS, ProfileModel, load_profile
    from sagescale.perf.roofline import estimate_profile
    from sagescale.perf.validate import decode_error, prefill_error, steps_error

    check_writable(out)
    if aggregated_from is not None:
        if model or gpu:
            given = "--model" if model else "--gpu"
            raise InputError(
                f"--aggregated-from {aggregated_from}: the profile says its engine (leave out {given})"
            )
        _aggregated(aggregated_from, out, name)
        return
    for option, value in (("--model", model), ("--gpu", gpu)):
        if not value:
            raise InputError(f"{option}: missing (expected --model and --gpu, or --aggregated-from PROFILE)")
    numbers = {
        "parameters": parameters,
        "active_parameters": active_parameters,
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "vocab": vocab,
    }
    peaks = {
        "memory_gib": memory_gib,
        "bandwidth_gb_s": bandwidth_gb_s,
        "bf16_tflops": bf16_tflops,
        "fp8_tflops": fp8_tflops,
        "link_gb_s": link_gb_s,
    }
    profile = estimate_profile(
        _shape(model, numbers),
        _card(gpu, peaks),
        precision=precision,
        tensor_parallel=tp,
        max_num_seqs=max_num_seqs,
        assumptions=_assumptions(assume or []),
        name=name or "",
        command=command_line(
            "profile estimate",
            [],
            (
                ("--model", model),
                ("--gpu", gpu),
                ("--tp", tp if tp > 1 else None),
                ("--precision", precision),
                ("--max-num-seqs", max_num_seqs if max_num_seqs != DEFAULT_MAX_NUM_SEQS else None),
                ("--name", name),
                *((f"--{key.replace('_', '-')}", value) for key, value in (numbers | peaks).items()),
                *(("--assume", word) for word in assume or ()),
                ("--out", out.name),
            ),
        ),
    )
    _write(profile, out)
    if against is not None:
        other, estimated = load_profile(against), ProfileModel(profile)
        for pool, error in (
            ("prefill", prefill_error(estimated, other)),
            ("decode", decode_error(estimated, other)),
            ("steps with chunks", steps_error(estimated, other)),
        ):
            if error is None:
                continue
            points = f"{error.n} points measured for {other.name}"
            print(f"{pool} error at {points}: {error_spread(error, 1)}")


def _aggregated(source: str, out: Path, name: str | None) -> None:
    """Write a profile with an aggregated section that is estimated from its two pools."""
    from dataclasses import replace

    from sagescale.cli.options import profile_name
    from sagescale.errors import InputError
    from sagescale.perf import estimate_aggregated, load_profile

    pools = load_profile(source)
    if pools.aggregated is not None and not pools.aggregated.estimated:
        raise InputError(f"--aggregated-from {source}: has a measured aggregated section (use it as it is)")
    name = profile_name(name, out)
    command = command_line(
        "profile estimate", [], (("--aggregated-from", source), ("--name", name), ("--out", out.name))
    )
    profile = replace(
        pools,
        name=name,
        aggregated=estimate_aggregated(pools),
        source=replace(pools.source, command=command),
        notes=(*pools.notes, "aggregated: estimated from prefill and decode, not measured"),
    )
    _write(profile, out)


def _write(profile: Profile, out: Path) -> None:
    """Write a profile, and say what is assumed in it."""
    from sagescale.perf import write_profile

    write_profile(profile, out)
    print(f"{out}: {profile.name}")
    for note in (*profile.notes, *(f"assumed limit: {limit}" for limit in profile.assumed)):
        print(note)


def _shape(name: str, given: Mapping[str, float | None]) -> ModelShape:
    from dataclasses import replace

    from sagescale.errors import InputError
    from sagescale.perf.catalogue import ModelShape, find_model

    numbers = {
        key: value * 1e9 if key in ("parameters", "active_parameters") else value
        for key, value in given.items()
        if value is not None
    }
    needed = {"parameters", "layers", "hidden", "heads", "kv_heads", "head_dim"}
    if not needed <= numbers.keys():
        known = find_model(name)
        if not numbers:
            return known
        if known.active_parameters == known.parameters and "parameters" in numbers:
            numbers = {"active_parameters": numbers["parameters"], **numbers}  # a token meets all of them
        shape = replace(known, **numbers, source="numbers given")  # type: ignore[arg-type]  # typed by the options
    else:
        numbers = {"vocab": 128256, "active_parameters": numbers["parameters"], **numbers}
        shape = ModelShape(name=name, **numbers)  # type: ignore[arg-type]  # typed by the options
    active, whole = shape.active_parameters / 1e9, shape.parameters / 1e9
    if not shape.table_parameters / 1e9 < active <= whole < math.inf:
        raise InputError(
            f"--active-parameters {active:g} of --parameters {whole:g} (expected more than "
            f"the {shape.table_parameters / 1e9:.3g} of the vocabulary's tables, at most --parameters)"
        )
    return shape


def _card(name: str, given: Mapping[str, float | None]) -> Gpu:
    from dataclasses import replace

    from sagescale.errors import InputError
    from sagescale.perf.catalogue import Gpu, find_gpu

    numbers = {key: value for key, value in given.items() if value is not None}
    for key, value in numbers.items():
        if not value > 0:
            raise InputError(f"--{key.replace('_', '-')} {value:g} (expected a number > 0)")
    if not {"memory_gib", "bandwidth_gb_s", "bf16_tflops"} <= numbers.keys():
        known = find_gpu(name)
        return replace(known, **numbers, source="numbers given") if numbers else known  # type: ignore[arg-type]  # floats
    return Gpu(name=name, **{"fp8_tflops": None, "link_gb_s": 32.0, **numbers})  # type: ignore[arg-type]  # all floats


def _assumptions(words: list[str]) -> Assumptions:
    from dataclasses import fields

    from sagescale.errors import InputError, did_you_mean
    from sagescale.perf.roofline import Assumptions

    known = [item.name for item in fields(Assumptions)]
    values: dict[str, float] = {}
    for word in words:
        key, _, text = word.partition("=")
        if key not in known:
            hint = did_you_mean(key, known)
            raise InputError(f"--assume {word}: unknown (expected one of: {', '.join(known)}){hint}")
        try:
            values[key] = float(text)
        except ValueError as error:
            raise InputError(f"--assume {word}: '{text}' (expected a number)") from error
        if not 0.0 <= values[key] < 1e6:
            raise InputError(f"--assume {word}: '{text}' (expected a number >= 0)")
    return Assumptions(**values)
