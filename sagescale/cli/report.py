"""``sagescale report``: a stored result document once more, on the terminal and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    document: Annotated[
        Path,
        typer.Argument(
            metavar="DOC.json", help="What simulate or compare-predictors wrote with --json, of any version."
        ),
    ],
    html_out: Annotated[
        Path | None, typer.Option("--html", metavar="OUT.html", help="The result in pictures, one file.")
    ] = None,
) -> None:
    """Print the report of a result that was stored, and draw it; nothing is simulated again."""
    from sagescale.cli.output import stdout_console
    from sagescale.document import read_result
    from sagescale.files import check_writable
    from sagescale.report.comparison import print_comparison
    from sagescale.report.html import write_html
    from sagescale.report.terminal import print_run

    check_writable(html_out)
    found = read_result(document)
    if html_out is not None:
        write_html(html_out, found)
    if found.comparison is None:
        print_run(found, stdout_console())
    else:
        print_comparison(found, stdout_console())
