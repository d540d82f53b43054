"""``sagescale explain``: why it did, or did not, scale."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def explain(
    journal: Annotated[
        Path, typer.Argument(metavar="JOURNAL", help="The journal that `sagescale plan` wrote.")
    ],
    at: Annotated[
        str | None,
        typer.Option(metavar="T", help="Explain the tick at this time: ISO 8601, or -10m before the last."),
    ] = None,
    json_out: Annotated[
        bool, typer.Option("--json", help="Print the tick (or all of them) as JSON.")
    ] = False,
) -> None:
    """Answer from a decision journal why the pools were scaled, or were not."""
    import json

    from sagescale.errors import InputError
    from sagescale.live.explain import explain_all, explain_tick, parse_time, tick_at
    from sagescale.live.journal import left_out, read_journal

    broken: list[str] = []
    found, events = read_journal(journal, broken)
    ticks = list(found)
    if broken:
        print(f"{journal}: {left_out(broken)}", file=sys.stderr)
    if not ticks:
        raise InputError(f"{journal}: no decision in it " + ("that can be read" if broken else "yet"))
    if at is not None:
        ticks = [ticks[tick_at(ticks, parse_time(at, ticks[-1].time_s))]]
    if json_out:
        for tick in ticks:
            print(json.dumps({"id": tick.id, "time_s": tick.time_s, "goal": tick.goal.as_dict(),
                              "acted": tick.acted, **json.loads(tick.to_json())}))  # fmt: skip
    elif at is not None:
        print(explain_tick(ticks[0], events), end="")
    else:
        print(explain_all(ticks, events), end="")
