"""The options that change a trace before it is used: the same in every command that has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sagescale.trace import TransformSpec

__all__ = [
    "JitterOption",
    "RateScaleOption",
    "SeedOption",
    "SliceOption",
    "SpeedupOption",
    "TileOption",
    "transform_spec",
]

SliceOption = Annotated[
    str | None,
    typer.Option(
        "--slice",
        metavar="A:B",
        help="Keep arrivals from A to before B, in seconds; either may be left out.",
    ),
]
RateScaleOption = Annotated[
    float,
    typer.Option(
        "--rate-scale",
        metavar="X",
        help="Multiply the requests and keep the duration: thinned below 1, jittered copies above.",
    ),
]
SpeedupOption = Annotated[
    float,
    typer.Option("--speedup", metavar="X", help="Divide arrival times by X."),
]
TileOption = Annotated[
    int,
    typer.Option("--tile", metavar="N", help="Repeat N times, one mean gap between."),
]
JitterOption = Annotated[
    float,
    typer.Option(
        "--jitter-s",
        metavar="S",
        help="How far --rate-scale moves a copy, at most.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of all randomness.")]


def transform_spec(
    *, slice_text: str | None, rate_scale: float, speedup: float, tile: int, seed: int, jitter_s: float
) -> TransformSpec:
    """Turn the options' values into what ``apply_transforms`` takes.

    Raises:
        InputError: ``--slice`` is not ``A:B``.
    """
    from sagescale.trace import TransformSpec, parse_slice

    return TransformSpec(
        slice=None if slice_text is None else parse_slice(slice_text),
        rate_scale=rate_scale,
        speedup=speedup,
        tile=tile,
        seed=seed,
        jitter_s=jitter_s,
    )
