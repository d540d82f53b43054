"""docs/guide.md leaves nothing of the guide out, and the places it names are there."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from guide_document import read_guide

REPO = Path(__file__).resolve().parents[2]
TEXT = (REPO / "docs" / "guide.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, str]:
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (.+?) \| (.+) \|$", section, flags=re.MULTILINE)
    return {name.strip("`"): place for name, place in lines[1:]}


HEADINGS, PARTS = rows("Every heading"), rows("Every part of the architecture")
PARAMETERS = rows("Every parameter")
PLACES = sorted(
    {
        place
        for table in (HEADINGS, PARTS, PARAMETERS)
        for cell in table.values()
        for place in re.findall(r"`([^`]+)`", cell)
    }
    - {"None"}
)


@pytest.fixture(scope="module")
def guide(shared):
    return read_guide(shared)


def test_every_heading_is_in_the_table_in_the_guides_order(guide):
    assert list(HEADINGS) == list(guide.headings)


def test_every_parameter_is_in_the_table(guide):
    assert set(PARAMETERS) == guide.parameters()


def test_every_part_of_the_drawing_is_in_the_table(guide):
    drawn = set(re.findall(r"[A-Z][a-z]+[A-Za-z]*|PD", guide.blocks["架构"].text)) - {"SLA"}
    assert drawn == {word for part in PARTS for word in part.split()}


def test_every_predictor_is_in_the_table(guide):
    named = PARAMETERS["load_predictor_type"]
    assert [name for name in guide.predictors() if name not in named] == []


def test_every_row_names_a_place():
    assert [name for name, cell in HEADINGS.items() if "`" not in cell] == ["架构"]
    assert all("`" in cell for cell in (*PARTS.values(), *PARAMETERS.values()))


@pytest.mark.parametrize("place", PLACES)
def test_the_places_are_there(place):
    if "/" in place or place.endswith(".md"):
        assert (REPO / place).exists()
        return
    name, argument, key = re.fullmatch(r"([\w.]+)(?:\((\w+)\))?(?:\[(\w+)\])?", place).groups()
    found = resolve(name)
    if argument:
        assert argument in inspect.signature(found).parameters
    if key:
        assert key in found.__annotations__


def resolve(dotted: str) -> object:
    words = dotted.split(".")
    for length in range(len(words), 0, -1):
        try:
            found = import_module(".".join(words[:length]))
        except ModuleNotFoundError:
            continue
        for word in words[length:]:
            found = getattr(found, word)
        return found
    raise AssertionError(dotted)


def test_the_code_on_the_page_runs():
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    scope: dict[str, object] = {}
    exec(compile(block, "docs/guide.md", "exec"), scope)
    (instance,) = scope["manager"].get_instances()
    assert instance.instance_id == "prefill-0"
    assert scope["manager"].get_autoscaler_status()["enabled"]
