"""Bring the documentation up to date: ``python docs/refresh.py [--made | PAGE ...]``.

Writes the reference pages, the tables made from code, and what the examples print; copies the examples
into the Chinese edition. With ``--made`` no example is run, with pages named only theirs. Wall times, and
what a page leaves out, stay ``...``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent / "tools"), str(Path(__file__).resolve().parents[1])]

from sagescale.threads import ONE_THREAD  # noqa: E402

os.environ |= ONE_THREAD

from console import REPO, Page, rewritten  # noqa: E402
from editions import EDITIONS, with_blocks_of  # noqa: E402
from generated import PAGES  # noqa: E402
from pages import EXECUTED, one_at_a_time, with_tables  # noqa: E402


def refresh_examples(name: str) -> None:
    """Run a page's examples and write what they print."""
    page = Page.read(REPO / name)
    text = page.text
    with tempfile.TemporaryDirectory() as folder, one_at_a_time(page):
        done = list(page.replay(Path(folder) / "page"))
    bodies: dict[int, tuple[int, list[str]]] = {}
    for block, example, printed in done:
        lines = bodies.setdefault(block.start, (block.end, []))[1]
        lines += [f"$ {example.command}", *rewritten(example.shown, printed)]
    for start, (end, lines) in sorted(bodies.items(), reverse=True):
        text = text[:start] + "".join(f"{line}\n" for line in lines) + text[end:]
    write(name, text)


def write(name: str, text: str) -> None:
    """Write a page, and say so if it changed."""
    path = REPO / name
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"changed {name}")


def main(names: list[str]) -> None:
    """Refresh what is named, or everything."""
    made = names == ["--made"]
    if made or not names:
        for name, make in PAGES.items():
            write(name, make())
        for name, text in with_tables():
            write(name, text)
    for name in () if made else names or EXECUTED:
        print(f"running {name}")
        refresh_examples(name)
    for original, translation in EDITIONS:
        write(translation, with_blocks_of((REPO / translation).read_text(), (REPO / original).read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
