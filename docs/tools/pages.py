"""Which pages have examples that run, and which hold tables made from code."""

from __future__ import annotations

import fcntl
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from console import REPO, blocks
from generated import dynamo_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from console import Page

EXECUTED = (
    "README.md",
    "docs/tutorial.md",
    "docs/migration.md",
    *sorted(str(path.relative_to(REPO)) for path in (REPO / "docs" / "howto").glob("*.md")),
)
"""Pages whose examples are run, from the repository's root."""

TABLES: dict[str, Callable[[], str]] = {"docs/migration.md": dynamo_table}
"""Page -> what makes the table between its two marks."""

_MARKED = re.compile(r"(<!-- made: begin -->\n).*?(<!-- made: end -->)", re.DOTALL)


def with_tables() -> Iterator[tuple[str, str]]:
    """Yield the pages that hold a made table, with the table as it should be."""
    for name, make in TABLES.items():
        table = make()
        yield (
            name,
            _MARKED.sub(lambda marks, table=table: marks[1] + table + marks[2], (REPO / name).read_text()),
        )


@contextmanager
def one_at_a_time(page: Page) -> Iterator[None]:
    """Hold other runs of a page off where it serves something: it names a port, which only one can have."""
    if not any(example.background for block in blocks(page.text) for example in block.examples):
        yield
        return
    with (Path(tempfile.gettempdir()) / "sagescale-docs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
