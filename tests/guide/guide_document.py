"""The guide, taken apart: headings, code blocks, and the parameters it names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PLACE = "spec/autoscaling-guide.zh.md"


@dataclass(frozen=True)
class Block:
    """A fenced block: the heading it stands under (none has two), its language and its text."""

    heading: str
    language: str
    text: str

    def as_ours(self) -> str:
        """The code as it stands, but for the package it imports from."""
        return self.text.replace("from control_plane import", "from sagescale import")


@dataclass(frozen=True)
class Guide:
    headings: tuple[str, ...]
    blocks: dict[str, Block]
    text: str

    def parameters(self) -> set[str]:
        """Every name the guide gives a value to: configuration keys, arguments, keys of the status."""
        python = "\n".join(block.text for block in self.blocks.values() if block.language == "python")
        annotated = re.findall(r"^(\w+): \w", python, flags=re.MULTILINE)
        arguments = re.findall(r"^\s*(\w+)=", python, flags=re.MULTILINE)
        inline = re.findall(r"`(m\w+_instances)`", self.text)
        status = re.findall(r'^#\s+"(\w+)":', python, flags=re.MULTILINE)
        return {*annotated, *arguments, *inline, *status}

    def predictors(self) -> list[str]:
        return re.findall(r'^#   - "(\w+)"', self.text, flags=re.MULTILINE)


def read_guide(folder: Path) -> Guide:
    text = (folder / PLACE).read_text(encoding="utf-8")
    headings: list[str] = []
    blocks: dict[str, Block] = {}
    block: list[str] | None = None
    language = ""
    for line in text.splitlines():
        if line.startswith("```"):
            if block is None:
                block, language = [], line.removeprefix("```").strip()
            else:
                assert headings[-1] not in blocks, f"two blocks under {headings[-1]}"
                blocks[headings[-1]] = Block(headings[-1], language, "\n".join(block) + "\n")
                block = None
        elif block is not None:
            block.append(line)
        elif line.startswith("#"):
            headings.append(line.lstrip("#").strip())
    assert block is None, "a block that does not end"
    return Guide(tuple(headings), blocks, text)
