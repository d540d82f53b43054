"""The colours, in light and dark: Okabe and Ito's, which every eye tells apart.

Nothing is told by colour alone: lines differ in dashes, areas in patterns, marks in shape.
"""

from __future__ import annotations

__all__ = ["DARK", "LIGHT", "stylesheet"]

LIGHT = {
    "paper": "#ffffff",
    "raised": "#f6f7f8",
    "ink": "#1b1f24",
    "muted": "#59636e",
    "rule": "#d5dade",
    "grid": "#e9ecef",
    "blue": "#0072B2",
    "sky": "#56B4E9",
    "orange": "#E69F00",
    "green": "#007E5B",
    "vermillion": "#C04F00",
    "purple": "#B25A8C",
    "grey": "#8a949e",
    "poor": "#A84600",
}
"""Green, vermillion and purple a little darker than theirs, for thin lines on white."""

DARK = {
    "paper": "#14171b",
    "raised": "#1c2026",
    "ink": "#e6e9ec",
    "muted": "#9aa4ae",
    "rule": "#353c44",
    "grid": "#262b32",
    "blue": "#56B4E9",
    "sky": "#9AD3F5",
    "orange": "#E69F00",
    "green": "#1FBF93",
    "vermillion": "#F07A2A",
    "purple": "#CC79A7",
    "grey": "#7d8791",
    "poor": "#F0A030",
}


def stylesheet() -> str:
    """Return the rules that make the colours custom properties; print is light."""
    return (
        f":root{{color-scheme:light dark;{_properties(LIGHT)}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{_properties(DARK)}}}}}\n"
    )


def _properties(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())
