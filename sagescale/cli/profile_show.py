"""``sagescale profile show``: a profile as tables and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

__all__ = ["show"]

_WIDTH = 110


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped profile's name, or a YAML file.")],
    target_itl_ms: Annotated[
        float,
        typer.Option(metavar="MS", help="The SLA's time between tokens, whose operating point is marked."),
    ] = 50.0,
    png: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Draw the plots as a PNG too.")] = None,
    html: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Draw the plots as an HTML page too.")
    ] = None,
) -> None:
    """Show a profile: where it comes from, limits, surfaces and how far they are from the measurements.

    Plots show the fitted curves with the measured points beside them.
    """
    from sagescale.cli.pipes import stdout_console
    from sagescale.cli.profile_tables import profile_tables
    from sagescale.cli.profile_terminal import panel_text
    from sagescale.errors import InputError
    from sagescale.files import write_whole
    from sagescale.perf.library import load_profile
    from sagescale.perf.panels import profile_panels

    if not 0.0 < target_itl_ms < float("inf"):
        raise InputError(f"--target-itl-ms {target_itl_ms:g} (expected a number > 0)")
    for option, path in (("--png", png), ("--html", html)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise InputError(f"{option} {path}: expected a file name in a folder that exists")
    profile = load_profile(name)
    panels = profile_panels(profile, target_itl_ms=target_itl_ms)
    console = stdout_console()
    for table in profile_tables(profile):
        console.print(table)
    for panel in panels:
        console.print()
        console.print(panel_text(panel, min(console.width, _WIDTH)), end="")
    title = " · ".join(word for word in (profile.name, profile.gpu, profile.engine) if word)
    if png is not None:
        from sagescale.cli.profile_png import png_picture

        write_whole(png, png_picture(panels, title))
        print(f"{png}: written")
    if html is not None:
        from sagescale.cli.profile_html import html_page

        write_whole(html, html_page(panels, title).encode())
        print(f"{html}: written")
