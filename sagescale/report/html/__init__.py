"""One self-contained HTML page from a result document; it opens without a network."""

from __future__ import annotations

from sagescale.report.html.page import render_html, render_plots, write_html

__all__ = ["render_html", "render_plots", "write_html"]
