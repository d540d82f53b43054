"""What pictures show, as plain data: panels of series with units, axes, targets and colours by name.

Painters (``html/painter.js``, ``text_plots``, ``picture``) draw these and decide nothing but looks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Okabe and Ito's colours, which colour-blind readers can distinguish. Nothing is said by colour alone: lines
# differ in dashes, areas in patterns, marks in shape.
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

HUES = ("blue", "orange", "green", "purple", "sky", "vermillion", "grey", "ink")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon", "star")
"""Of series beside each other, in order; ``-open`` after a symbol makes it hollow."""
DASHES = ("", "5px,2px", "1.5px,2.5px")
LARGEST = 1e300
"""Beyond it, room beside a value could not be written as a number."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points joined by a line or, where ``mark`` names a symbol, marked one by one.

    Attributes:
        name: what the legend calls it.
        x: values, or the name of one of the figure's columns.
        y: the same, or one value for all; an unknown one is a gap.
        at: the places of x and y to draw; None is all of them.
        first: what y is before its column begins, on the x called ``edges``.
        colour: by its name in the palettes.
        steps: a value holds until the next.
        fill: of the area under a line, down to ``zero``, the ``previous`` series, or on a ``stack``.
        pattern: that an area is hatched with: ``/``, ``.`` or ``x``.
        outline: colour of the edge of a full mark.
        texts: for each point the lines shown while it is pointed at; its coordinates where there are none.
        links: for each point the part of the page that a click leads to.
        error_x: half the width of each point's interval.
        error_y: how far each point's interval goes up and down.
        group: series of one group share the legend entry of the first of them, which has its name.
        listed: whether the legend has it at all.
        silent: nothing is shown on pointing at it.
        percent: its values are written as percentages.
    """

    name: str
    x: str | Sequence[float | None]
    y: str | float | Sequence[float | None]
    _: dataclasses.KW_ONLY
    at: Sequence[int] | None = None
    first: float | None = None
    colour: str = "ink"
    opacity: float = 1.0
    dash: str = ""
    width: float = 1.6
    steps: bool = False
    fill: str = ""
    fill_colour: str = ""
    pattern: str = ""
    mark: str | Sequence[str] = ""
    size: float | Sequence[float] = 7.0
    edge: float | Sequence[float] = 0.0
    outline: str | Sequence[str] = "paper"
    texts: Sequence[Sequence[str]] = ()
    links: Sequence[str] = ()
    error_x: Sequence[float | None] = ()
    error_y: tuple[Sequence[float | None], Sequence[float | None]] | None = None
    group: str = ""
    listed: bool = True
    silent: bool = False
    percent: bool = False

    def points(self) -> list[tuple[float | None, float | None]]:
        """Return (x, y) of a series that holds its values itself, as those outside of a clock do."""
        x, y = self.x, self.y
        if isinstance(x, str) or isinstance(y, str | int | float):
            raise TypeError(f"series {self.name} has its values in columns")
        return list(zip(x, y, strict=True))


@dataclass(frozen=True, slots=True)
class Level:
    """A value to compare with, as a line across: a target, a budget, a bound. ``axis`` is its own, y or x."""

    value: float
    words: str
    colour: str = "vermillion"
    _: dataclasses.KW_ONLY
    axis: str = "y"
    dash: str = "6px,3px"
    below: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis. Without a ``range`` it shows what there is, from ``zero`` if asked.

    ``format`` is d3's of its numbers; ``ticks`` are values and their words; ``inside`` is for long ones.
    """

    title: str = ""
    range: tuple[float, float] | None = None
    log: bool = False
    zero: bool = False
    format: str = ""
    step: float | None = None
    ticks: Sequence[tuple[float, str]] = ()
    grid: bool = True
    inside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Words beside a point, where there is room; the first of a panel's are placed first."""

    x: float
    y: float
    text: str
    group: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Series over one pair of axes. ``explained``: pointing at it also tells what the clock has to say."""

    name: str
    title: str
    unit: str
    series: Sequence[Series]
    _: dataclasses.KW_ONLY
    levels: Sequence[Level] = ()
    labels: Sequence[Label] = ()
    x: Axis = field(default=Axis())
    y: Axis = field(default=Axis())
    note: str = ""
    explained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time in which something held, in ms from the start."""

    begin_ms: float
    end_ms: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened near a tick: ``before``, its time of the clock if it has one, ``after``."""

    tick: int
    before: str
    time_ms: float | None = None
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The time axis that all panels of a figure share, with what is told at each tick.

    Attributes:
        start_ms: what columns and series count from: ms since 1970 on the trace's own clock, 0 if unknown.
        step_ms: from one tick to the next.
        texts: each different text once; a line is words and names of columns in turn.
        text_at: for each tick the place of its text.
    """

    start_ms: float
    step_ms: float
    spans: Sequence[Span] = ()
    events: Sequence[Event] = ()
    texts: Sequence[Sequence[Sequence[str]]] = ()
    text_at: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Panels that are drawn together.

    With a ``clock`` they zoom together and share a cursor. ``columns`` then has ``t``, the ticks in ms from
    the start, and lists as long, or one value for all ticks; a series may also be over ``next``, the tick
    after each, or ``edges``: the start and the ticks, whose columns have one entry more.
    """

    panels: Sequence[Panel]
    columns: Mapping[str, Any] = field(default_factory=dict)
    clock: Clock | None = None
    height: float = 158.0


def as_data(part: object) -> dict[str, Any]:
    """Return the fields of one of these types that say something: for ``json.dumps`` as its ``default``."""
    if not dataclasses.is_dataclass(part):
        raise TypeError(f"{part!r} is no part of a figure")
    return {
        each.name: value
        for each in dataclasses.fields(part)
        if (value := getattr(part, each.name)) != each.default
    }
