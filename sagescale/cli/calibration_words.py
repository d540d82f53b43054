"""Words of ``sagescale profile calibrate``: its options parsed, its result put as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError

if TYPE_CHECKING:
    from sagescale.experiment.calibrate import Calibration, PercentileError
    from sagescale.experiment.served import ServedLog
    from sagescale.perf import Profile
    from sagescale.report.calibration import CalibrationPage, CalibrationRow

__all__ = ["calibration_page", "fit_shares", "mapped_columns", "padded_sizes"]


def fit_shares(text: str) -> tuple[float, float]:
    """Parse ``A:B``; raises InputError unless 0 <= A < B <= 1."""
    first, colon, last = text.partition(":")
    try:
        shares = float(first), float(last)
    except ValueError:
        shares = (1.0, 0.0)
    if not (colon and 0 <= shares[0] < shares[1] <= 1):
        raise InputError(f"--fit {text}: expected two shares A:B with 0 <= A < B <= 1, e.g. 0:0.5")
    return shares


def padded_sizes(text: str) -> tuple[tuple[int, ...], ...] | None:
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


def mapped_columns(texts: list[str]) -> dict[str, str]:
    """Parse ``ours=theirs`` pairs, separated by commas; raises InputError for anything else."""
    named: dict[str, str] = {}
    for pair in (pair for text in texts for pair in text.split(",")):
        ours, equals, theirs = pair.partition("=")
        if not equals or not ours.strip() or not theirs.strip():
            raise InputError(f"--columns {pair}: expected NAME=COLUMN, e.g. arrival_s=t_in")
        named[ours.strip()] = theirs.strip()
    return named


def calibration_page(result: Calibration, base: Profile, log: ServedLog, out: str) -> CalibrationPage:
    """Put a calibration as a page for the terminal."""
    from sagescale.experiment.calibrate import SERVICE_SHIFT
    from sagescale.experiment.provenance import factor_lines
    from sagescale.report.calibration import CalibrationPage

    notes = [
        f"{kind}: costs {more:.1f} more than the fit chosen (a quantile off by its tolerance costs about 1)"
        for kind, more in result.runner_up
    ]
    notes += [
        f"{name} ended at its bound: the log asks for more than is plausible" for name in result.at_bounds
    ]
    sensitive = [_label(error) for error in result.errors if error.good and not error.within_limit]
    if sensitive:
        notes.append(
            f"{', '.join(sensitive)}: outside the limit, but {SERVICE_SHIFT:.0%} of service time moves it "
            "further than it is off: near saturation no profile predicts it better"
        )
    off = [_label(error) for error in result.errors if not error.good]
    if result.good:
        conclusion = f"good: written to {out}"
    elif off:
        conclusion = f"not good: {', '.join(off)} off"
    else:
        conclusion = "not good: a factor ended at its bound"
    return CalibrationPage(
        title=f"{base.name} on {result.fitted} of {len(log)} requests of {log.path} "
        f"({result.evaluations} simulations)",
        scored=f"{result.scored} requests " + ("held out from the fit" if result.held_out else "the fit saw"),
        factors=factor_lines(result),
        rows=[_row(error) for error in result.errors],
        shift=SERVICE_SHIFT,
        notes=notes,
        good=result.good,
        conclusion=conclusion,
    )


def _label(error: PercentileError) -> str:
    return f"{error.latency.upper()} p{error.percentile}"


def _row(error: PercentileError) -> CalibrationRow:
    from sagescale.report.calibration import CalibrationRow

    return CalibrationRow(
        name=_label(error),
        measured_ms=error.measured_ms,
        before_ms=error.before_ms,
        after_ms=error.after_ms,
        before=error.before,
        after=error.after,
        faster_ms=error.faster_ms,
        slower_ms=error.slower_ms,
        limit=error.limit,
        verdict="ok" if error.within_limit else "sensitive" if error.good else "off",
    )
