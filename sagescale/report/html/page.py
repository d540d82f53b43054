"""The page: its head, the sections, the data and the scripts, in one file."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from sagescale.files import written_whole
from sagescale.report.formats import NOTHING, duration, figure, known, plain, plural
from sagescale.report.html.columns import run_columns
from sagescale.report.html.comparison_section import comparison_points, comparison_section
from sagescale.report.html.markup import Markup, data, element, join
from sagescale.report.html.palette import DARK, LIGHT, stylesheet
from sagescale.report.html.run_section import run_section
from sagescale.report.layout import MARK

if TYPE_CHECKING:
    from pathlib import Path

    from sagescale.document import ProfileInfo, ResultDocument

__all__ = ["render_html", "write_html"]

_SCRIPTS = ("format.js", "panels.js", "run.js", "comparison.js", "main.js")


def write_html(path: Path, document: ResultDocument) -> None:
    """Write a result document as one page.

    Raises:
        InputError: the file cannot be written.
    """
    page = render_html(document)
    with written_whole(path) as stream:
        stream.write(page.encode())


def render_html(document: ResultDocument) -> str:
    """Render a result document, of a run or of a comparison, as one page of about 5 MB.

    It opens without a network: plotly.js is in it, and its content security policy lets nothing else run or
    be loaded. What a document holds is escaped; no document, however odd its values, raises.
    """
    runs = document["runs"]
    alone = len(runs) == 1 and "comparison" not in document
    library = _library()
    own = "".join(files(__package__).joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(library, own)),
        element("meta", name="generator", content=f"sagescale {plain(document['sagescale'])}"),
        element("title", f"sagescale: {plain(document['trace']['path']) or 'report'}"),
        _raw("style", stylesheet() + files(__package__).joinpath("page.css").read_text(encoding="utf-8")),
    )
    sections = [
        element("p", "No run to show.", class_="why") if not runs else None,
        None if alone else comparison_section(document),
        *(run_section(document, run, place, alone=alone) for place, run in enumerate(runs)),
    ]
    datasets = [
        data("palette", {"light": LIGHT, "dark": DARK}),
        data("comparison-data", None if alone else comparison_points(document)),
        *(data(f"run-data-{place}", run_columns(document, run)) for place, run in enumerate(runs)),
    ]
    body = element(
        "body",
        _masthead(document),
        element("noscript", element("p", "The pictures need JavaScript; the figures do not.", class_="why")),
        element("main", *sections),
        _warnings(document),
        *datasets,
        _raw("script", library),
        _raw("script", own),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _masthead(document: ResultDocument) -> Markup:
    trace = document["trace"]
    requests, length_s = known(trace["requests"]), known(trace["duration_s"])
    rate = requests / length_s if requests is not None and length_s else None
    return element(
        "header",
        element("h1", plain(trace["path"]) or NOTHING),
        element(
            "p",
            f"{plural(requests, 'request')} in {duration(length_s)}, {figure(rate)}/s",
            *(_after_gap(step) for step in trace["transform"] or ()),
        ),
        _engines(document["profile"]),
        _engines(document["world"], "in truth: ") if "world" in document else None,
    )


def _engines(profile: ProfileInfo, before: str = "") -> Markup:
    return element(
        "p",
        before,
        element("b", plain(profile["name"])),
        " ",
        " ".join(plain(word) for word in (profile["engine"], profile["gpu"]) if word),
        *(_after_gap(f"assumed: {plain(name)}") for name in profile["assumed"] or ()),
    )


def _after_gap(text: str) -> Markup:
    return element("span", plain(text), class_="further")


def _warnings(document: ResultDocument) -> Markup | None:
    warnings = document["warnings"] or ()
    if not warnings:
        return None
    return element("ul", *(element("li", f"{MARK} {plain(text)}") for text in warnings), class_="warnings")


def _library() -> str:
    """Return plotly.js, which draws the pictures; a script's text must not end its element."""
    from plotly.offline import get_plotlyjs

    text = str(get_plotlyjs())
    return text.replace("\r\n", "\n").replace("</script", "<\\/script")


def _policy(*scripts: str) -> str:
    """Allow these very scripts and nothing from anywhere; plotly.js sets styles as it draws."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


def _raw(name: str, text: str) -> Markup:
    return join(Markup(f"<{name}>{text}</{name}>\n"))
