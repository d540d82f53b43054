"""What the pages show is what their commands print; and the pages made from code are what the code says."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest
from sagescale.cli.examples import EXAMPLES

from console import REPO, Page, blocks, matches
from editions import EDITIONS, with_blocks_of
from generated import PAGES, command_contexts
from pages import EXECUTED, one_at_a_time, with_tables

STALE = "run `python docs/refresh.py` and commit what it changes"
STALE_CODE = "run `python docs/refresh.py --made` (a second) and commit what it changes"
NEEDS = {"docs/howto/prometheus.md": "prometheus"}
DOCUMENTS = sorted(
    str(path.relative_to(REPO))
    for path in (*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md"), REPO / "traces/README.md")
)


@pytest.mark.parametrize("name", EXECUTED)
def test_a_page_shows_what_its_commands_print(name, tmp_path):
    program = NEEDS.get(name)
    if program and not shutil.which(program):
        pytest.skip(f"{name} needs {program}, which is not installed")
    page = Page.read(REPO / name)
    with one_at_a_time(page):
        for _, example, printed in page.replay(tmp_path / "page"):
            shown, got = "\n".join(example.shown), "\n".join(printed)
            assert matches(example.shown, printed), (
                f"{name}: $ {example.command}\n--- shown\n{shown}\n--- printed\n{got}\n--- {STALE}"
            )


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_what_the_code_says(name):
    assert (REPO / name).read_text() == PAGES[name](), STALE_CODE


def test_tables_made_from_code_are_up_to_date():
    for name, text in with_tables():
        assert (REPO / name).read_text() == text, f"{name}: {STALE_CODE}"


@pytest.mark.parametrize(("original", "translation"), EDITIONS)
def test_the_chinese_edition_has_the_same_examples_and_headings(original, translation):
    ours, theirs = (REPO / translation).read_text(), (REPO / original).read_text()
    assert ours == with_blocks_of(ours, theirs), STALE
    headings = [
        [len(line.split()[0]) for line in without_blocks(text).splitlines() if line.startswith("#")]
        for text in (ours, theirs)
    ]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("name", EXECUTED)
def test_what_is_not_run_says_why(name):
    silent = [
        block.body
        for block in blocks((REPO / name).read_text())
        if block.language in {"sh", "bash", ""} and not block.not_run
    ]
    assert silent == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    page = REPO / name
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page.read_text())):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there.read_text())):
            missing.append(target)
    assert missing == []


def test_every_command_has_examples_and_they_parse():
    seen = set()
    for words, context in command_contexts():
        if hasattr(context.command, "commands"):
            continue
        name = " ".join(words[1:])
        seen.add(name)
        for about, line in EXAMPLES[name]:
            context.command.make_context(f"{name}: {about}", shlex.split(line.partition(">")[0])).close()
    assert seen == set(EXAMPLES)


def without_blocks(text):
    for block in reversed(list(blocks(text))):
        text = text[: block.start] + text[block.end :]
    return text


def anchors(text):
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
