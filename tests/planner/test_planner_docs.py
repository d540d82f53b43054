"""docs/planner.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from sagescale.declare import declared
from sagescale.planner import AutoscalerConfig, ReasonCode
from sagescale.planner.describe import yaml_text

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "planner.md").read_text()


def test_the_table_lists_every_key_with_default_and_unit_in_order():
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \| (.*?) \| .* \| (.*) \|$", TEXT, flags=re.MULTILINE)
    keys = declared(AutoscalerConfig).values()
    assert [row[:3] for row in rows] == [(key.name, yaml_text(key.default), key.unit) for key in keys]
    assert [row[3] for row in rows] == [key.doc for key in keys]


def test_every_reason_is_explained():
    table = TEXT.partition("## Reasons")[2].partition("## Configuration")[0]
    assert [code for code in ReasonCode if f"`{code}`" not in table] == []


def test_the_example_runs():
    code = TEXT.partition("```python\n")[2].partition("```")[0]
    scope: dict[str, object] = {}
    exec(compile(code, "docs/planner.md", "exec"), scope)
    assert min(scope["decision"].targets) >= 1
