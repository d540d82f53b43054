"""What ``sagescale forecast`` prints: who wins, the table of scores, and the winner against the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.facts import trace_parts
from sagescale.report.figures import Axis, Panel, Series
from sagescale.report.formats import NOTHING, duration, figure, plain, plural, share, signed
from sagescale.report.layout import DIM, GOOD, STRONG, Page
from sagescale.report.text_plots import downsample, panel_lines, plot_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from sagescale.document import BacktestDocument, BacktestScore

_ROWS = 8
_NAMES = {
    "requests": "requests",
    "isl": "ISL",
    "osl": "OSL",
    "prefill_tokens": "prompt tokens",
    "decode_tokens": "output tokens",
}


def print_backtest(document: BacktestDocument, console: Console) -> None:
    """Print a back-test; fits 80 columns and a pipe."""
    page = Page(console)
    trace, ahead = document.trace, document.horizon
    page.field("trace", *trace_parts(trace))
    page.field(
        "back-test",
        f"{plural(document.windows, 'window')} of {duration(document.interval_s)}",
        f"{plural(ahead, 'window')} ahead ({duration(ahead * document.interval_s)})",
        f"scored after {plural(document.warm_up, 'window')}",
    )
    page.blank()
    page.field("verdict", Text(document.verdict, style=f"{STRONG} {GOOD}"))
    page.blank()
    for series, name in _NAMES.items():
        _print_series(page, document, series, name)
    page.field(
        "",
        Text("MAPE leaves out windows without traffic, WAPE counts them", style=DIM),
        Text("bias and pinball loss at p90 in requests a window and in tokens", style=DIM),
        Text("≤p90 is the share of windows at or under the p90: 90 % is right", style=DIM),
        Text("prompt and output tokens are products of the forecasts: what pools are sized by", style=DIM),
    )
    page.blank()
    winner = document.winner
    page.field(
        "requests",
        Text("⣿ observed", style=GOOD),
        Text(f"+ {plain(winner)}, where it differs", style="#E69F00"),
    )
    shown = document.forecasts["requests"][winner]
    for line in panel_lines(
        _against(document.actual["requests"], shown, page.body_width), page.body_width, _ROWS
    ):
        page.field("", line, separator="")
    _print_cadence(page, document)


def _against(actual: Sequence[float | None], shown: Sequence[float | None], width: int) -> Panel:
    """Return the observed values as a line over a forecast's marks, which show where the line leaves them.

    Half a character is as many windows as it takes to fit all: their mean is drawn.
    """
    size = -(-max(1, len(actual), len(shown)) // (2 * plot_columns(width)))
    forecast, observed = (downsample(values, size, _mean) for values in (shown, actual))
    series = [
        Series("forecast", list(range(len(forecast))), forecast, mark="cross", colour="orange"),
        Series("observed", list(range(len(observed))), observed, colour="sky"),
    ]
    return Panel("requests", "Requests", "", series, y=Axis(zero=True))


def _mean(values: Iterable[float]) -> float:
    given = list(values)
    return sum(given) / len(given)


def _print_series(page: Page, document: BacktestDocument, series: str, name: str) -> None:
    known = {score.predictor: score for score in document.scores if score.series == series}
    ordered = sorted(known.values(), key=_error)
    width = max(len(score.predictor) for score in ordered)
    spread = series not in {"prefill_tokens", "decode_tokens"}
    rows = []
    for place, score in enumerate(ordered):
        style = GOOD if place == 0 else ""
        cells = [
            Text(plain(score.predictor).ljust(width), style=style),
            Text(share(score.mape, 1), style=style),
            Text(share(score.wape, 1), style=style),
            Text(signed(score.bias), style=style),
        ]
        if spread:
            cells += [
                Text(figure(score.pinball_p90), style=style),
                Text(share(score.coverage_p90, 0), style=style),
            ]
        rows.append(("", cells))
    header = ["".ljust(width), "MAPE", "WAPE", "bias", *(("pinball", "≤p90") if spread else ())]
    page.table(name, header, rows)


def _error(score: BacktestScore) -> float:
    return float("inf") if score.wape is None else score.wape


def _print_cadence(page: Page, document: BacktestDocument) -> None:
    fitted = {
        score.predictor: score for score in document.scores if score.series == "requests" and score.refits
    }
    for place, score in enumerate(fitted.values()):
        page.field(
            "refits" if place == 0 else "",
            f"{plain(score.predictor)}: {plural(score.refits, 'fit')} of requests; "
            f"{plain(score.cadence) or NOTHING}",
        )
