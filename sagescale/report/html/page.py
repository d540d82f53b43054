"""Pages: one file each, filled from a template, with the data and the scripts that draw its pictures."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup

from sagescale.files import write_whole
from sagescale.report import facts, formats
from sagescale.report.figures import DARK, LIGHT, as_data
from sagescale.report.formats import MARK, Poor, above, count, duration, known, plain, plural
from sagescale.report.html.comparison import (
    comparison_figure,
    comparison_notes,
    comparison_table,
    pareto_front,
)
from sagescale.report.html.run import run_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sagescale.document import ResultDocument, RunDocument
    from sagescale.report.figures import Figure

_MISS_WORDS = {"forecast": "forecasts", "whole_instances": "whole instances"}


def write_html(path: Path, document: ResultDocument) -> None:
    """Write a result document as one page.

    Raises:
        InputError: the file cannot be written.
    """
    write_whole(path, render_html(document).encode())


def render_html(document: ResultDocument) -> str:
    """Render a result document, of a run or of a comparison, as one page of about 5 MB.

    No document, however odd its values, raises.
    """
    runs, trace = document.runs, document.trace
    alone = len(runs) == 1 and document.comparison is None
    requests, length_s = known(trace.requests), known(trace.duration_s)
    runs_drawn = [run_figure(document, run) for run in runs]
    compared = None if alone else comparison_figure(document)
    figures = {f"run-data-{place}": figure for place, figure in enumerate(runs_drawn)}
    return _page(
        "report.html",
        title=f"sagescale: {plain(trace.path) or 'report'}",
        version=document.sagescale,
        figures=figures if compared is None else {"comparison-data": compared, **figures},
        compared=compared,
        runs_drawn=runs_drawn,
        document=document,
        began=facts.began_parts(trace),
        alone=alone,
        rate=requests / length_s if requests is not None and length_s else None,
        table=comparison_table(document),
        front=pareto_front(runs),
    )


def render_plots(
    figure: Figure,
    *,
    title: str,
    version: str,
    texts: Sequence[str],
    head: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
) -> str:
    """Render a figure as a page of its own, below a heading, sentences and perhaps a table."""
    return _page(
        "plots.html",
        title=title,
        version=version,
        figures={"plots-data": figure},
        figure=figure,
        texts=texts,
        head=head,
        rows=rows,
    )


def _page(template: str, *, title: str, version: str, figures: Mapping[str, Figure], **values: object) -> str:
    """Fill a template that extends ``page.html``.

    It opens without a network: plotly.js is in it, and its content security policy lets nothing else run or
    be loaded. Whatever it is filled with is text, and is escaped.

    Args:
        template: its name.
        title: of the window.
        version: of sagescale, which made what is shown.
        figures: what the page's scripts paint, by the id of its element.
        values: what else the template shows.
    """
    run, hashes = _scripts()
    return (
        _templates()
        .get_template(template)
        .render(
            title=title,
            version=version,
            # plotly.js sets styles as it draws.
            policy=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:",
            light=_properties(LIGHT),
            dark=_properties(DARK),
            styles=Markup(_shipped("page.css")),  # noqa: S704  # shipped
            data={"palette": {"light": LIGHT, "dark": DARK}, **figures},
            scripts=[Markup(text) for text in run],  # noqa: S704  # shipped
            **values,
        )
    )


def _facts(document: ResultDocument, run: RunDocument) -> list[tuple[str, Sequence[str]]]:
    """Return the lines under a run's headline: label and parts."""
    timing = run.timing
    return [
        ("planner", facts.planner(document, run)),
        ("engines", facts.engines(run)),
        ("requests", facts.requests(run)),
        ("sessions", facts.sessions(document, run)),
        ("scaling", facts.scaling(run)),
        ("why", facts.why(document, run)),
        ("forecast", facts.forecast(document, run, covered=True)),
        ("misses", _misses(run)),
        ("faults", [part for line in facts.fault_costs(run) for part in line]),
        (
            "simulated",
            (
                f"{duration(run.horizon_s)} in {duration(timing.simulate_s)}",
                f"{count(timing.requests_per_s)} requests/s",
            ),
        ),
    ]


def _misses(run: RunDocument) -> list[str]:
    misses = run.misses
    if misses is None:
        return []
    by_cause = ", ".join(
        f"{_MISS_WORDS.get(cause, cause)} {count(number := getattr(misses, cause) or 0)}"
        + (" (helped)" if number < 0 else "")
        for cause in facts.CAUSES
        if cause != "faults" or getattr(misses, cause)
    )
    return [f"{plural(misses.total, 'request')}: {by_cause}"]


@functools.cache
def _scripts() -> tuple[tuple[str, ...], str]:
    """What every page runs, five megabytes, and the hashes that its content security policy names."""
    # A script's text must not end its element.
    library = _plotly().replace("\r\n", "\n").replace("</script", "<\\/script")
    run = (library, _shipped("painter.js") + _shipped("page.js"))
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in run
    )
    return run, hashes


@functools.cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("sagescale.report.html"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else plain(value),
    )
    made.policies["json.dumps_kwargs"] = {
        "allow_nan": False,
        "default": as_data,
        "separators": (",", ":"),
    }
    written = ("cost", "count", "duration", "figure", "given", "known", "plural", "share")
    made.filters |= {name: getattr(formats, name) for name in written}
    made.tests |= {"above": above, "bad_news": lambda part: isinstance(part, Poor)}
    shown = (
        "GOOD_ATTAINMENT",
        "PERCENTILES",
        "SURFACE_COLUMNS",
        "gpu_hours_by_pool",
        "latencies",
        "number",
        "p99_tiles",
        "surface_rows",
        "why_missed",
    )
    made.globals |= {name: getattr(facts, name) for name in shown}
    made.globals |= {
        "MARK": MARK,
        "comparison_notes": comparison_notes,
        "facts": _facts,
    }
    return made


def _properties(colours: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def _shipped(name: str) -> str:
    return files("sagescale.report.html").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
