"""Conversations as AIPerf replays them: a line a turn (``mooncake_trace``), or a session (``multi_turn``).

From github.com/ai-dynamo/aiperf, ``dataset/loader/models.py``. A turn has its own tokens: what was said
before is put in front when it is sent, so a prompt is all turns and answers before it and the turn's own
``input_length``. ``delay`` is from the answer before to the turn, in ms; ``timestamp`` is on the clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.errors import InputError
from sagescale.trace.readers.answers import ANSWER_S_PER_TOKEN
from sagescale.trace.readers.fields import MAX_MADE_IDS, MAX_TOKENS, MS
from sagescale.trace.readers.format import NestedFormat, Rows
from sagescale.trace.readers.json_rows import amount, objects, refuse, whole
from sagescale.trace.sessions import Turns, session_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sagescale.trace.prefix_builder import PrefixBuilder
    from sagescale.trace.source import Head, Source

_LETTERS_A_TOKEN = 4
_BLOCK_TOKENS = 16
_LONGEST_PROMPT = _BLOCK_TOKENS * MAX_MADE_IDS

_NOTES = {
    "history": "prompts hold the turns and answers before them: input_length is what a turn adds",
    "letters": f"of turns that are texts, tokens are taken as a {_LETTERS_A_TOKEN}th of their letters",
    "hash_ids": "hash_ids are not used: prompts share with others what their own conversation said before",
    "gap": "turns with a timestamp wait for the one before: thinking is the gap less "
    f"{ANSWER_S_PER_TOKEN * 1000:g} ms for each token of its answer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AiperfConversations(NestedFormat):
    """The format, a line a turn or a session; ``keys`` are those of turns."""

    @property
    def shape(self) -> str:
        """Container, keys and unit of time, for messages."""
        return "JSONL session_id,input_length,output_length,timestamp or delay, or session_id,turns; time: ms"

    def recognise(self, head: Head) -> bool:
        """Tell from container and keys alone whether this may be the format."""
        keys = set(head.columns)
        lines = "session_id" in keys and bool(keys & {"input_length", "text_input"})
        return head.container in self.containers and (lines or "turns" in keys)

    def has_ids(self, head: Head) -> bool:
        """Tell that it may have prefix ids: they follow from what was said before, in blocks of any size."""
        del head
        return True

    def _rows(self, source: Source, head: Head, builder: PrefixBuilder | None) -> Rows:
        del head
        reading = _Reading(source)
        for place, name, turn in reading.turns():
            reading.add(place, name, turn)
        return reading.rows(builder)


AIPERF = AiperfConversations(
    name="aiperf",
    containers=("jsonl",),
    keys=("session_id", "input_length", "output_length"),
    arrival="timestamp",
    clock=MS,
    block_tokens=_BLOCK_TOKENS,
    zero_osl="turns that generated nothing",
)


class _Reading:
    """What has been read of a file, a turn a row."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.names: list[str] = []
        self.at_ms: list[float] = []
        self.isl: list[int] = []
        self.osl: list[int] = []
        self.after: list[list[int]] = []
        self.think_s: list[float] = []
        self.notes: set[str] = set()
        self.last: dict[str, int] = {}
        self.clocked: bool | None = None

    def turns(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield where each turn stands, its session and itself."""
        for place, row in objects(self.source, "an object, a turn or a session"):
            name = row.get("session_id")
            if not isinstance(name, str | int | None) or isinstance(name, bool):
                refuse(self.source, f"{place}, 'session_id'", name, "the name of a session")
            # Without a name it is a session by itself.
            session = f"{self.source.sha256} {place}" if name is None else str(name)
            if "turns" not in row:
                yield place, session, row
                continue
            turns = row["turns"]
            if not isinstance(turns, list) or not turns or not all(isinstance(one, dict) for one in turns):
                refuse(self.source, f"{place}, 'turns'", turns, "a list of objects, at least one")
            for count, turn in enumerate(turns, 1):
                yield f"{place}, turn {count}", session, turn

    def add(self, place: str, name: str, turn: dict[str, Any]) -> None:
        """Take one turn."""
        own, osl = self._prompt(place, turn), self._answer(place, turn)
        stamp, delay = self._ms(place, "timestamp", turn), self._ms(place, "delay", turn)
        row, before = len(self.names), self.last.get(name)
        if "hash_ids" in turn:
            self.notes.add("hash_ids")
        if before is None:
            if self.clocked is None:
                self.clocked = stamp is not None
            if self.clocked != (stamp is not None):
                expected = "a timestamp in every session's first turn, or in none"
                refuse(self.source, f"{place}, 'timestamp'", turn.get("timestamp"), expected)
            self._append(place, name, stamp or 0.0, own, osl, [], 0.0)
        else:
            self.notes.add("history")
            answer_ms = self.osl[before] * ANSWER_S_PER_TOKEN * 1000
            if delay is None and stamp is not None:
                self.notes.add("gap")
                if stamp < self.at_ms[before]:
                    refuse(
                        self.source,
                        f"{place}, 'timestamp'",
                        stamp,
                        f"{self.at_ms[before]:g} or later, as the turn before",
                    )
                think_ms = max(stamp - self.at_ms[before] - answer_ms, 0.0)
            else:
                think_ms = delay or 0.0
                stamp = self.at_ms[before] + answer_ms + think_ms
            isl = self.isl[before] + self.osl[before] + own
            self._append(place, name, stamp, isl, osl, [before], think_ms / 1000)
        self.last[name] = row

    def _append(
        self, place: str, name: str, at_ms: float, isl: int, osl: int, after: list[int], think_s: float
    ) -> None:
        if isl > _LONGEST_PROMPT:
            refuse(
                self.source,
                place,
                isl,
                f"a prompt of at most {_LONGEST_PROMPT} tokens, all turns before it included",
            )
        self.names.append(name)
        self.at_ms.append(at_ms)
        self.isl.append(isl)
        self.osl.append(osl)
        self.after.append(after)
        self.think_s.append(think_s)

    def rows(self, builder: PrefixBuilder | None) -> Rows:
        """Put them together."""
        if not self.names:
            raise InputError(f"{self.source.path}: has no turns; expected at least one")
        isl = np.array(self.isl, np.int32)
        columns: dict[str, Any] = {
            "isl": isl,
            "osl": np.array(self.osl, np.int32),
            "session_id": np.array([session_number(name) for name in self.names], np.int64),
        }
        if builder is not None:
            # A conversation is one text that grows: block k of it has the same id in all its prompts.
            number = np.unique(columns["session_id"], return_inverse=True)[1]
            blocks = (isl // builder.block_tokens).astype(np.int64)
            most = np.zeros(int(number.max()) + 1, np.int64)
            np.maximum.at(most, number, blocks)
            first = builder.next_id + np.cumsum(most) - most
            runs = np.stack([first[number], blocks], axis=1)
            columns["hash_ids"] = builder.add_runs(np.arange(len(isl) + 1, dtype=np.int64), runs)
        notes = tuple(text for name, text in _NOTES.items() if name in self.notes)
        turns = Turns.of(self.after, self.think_s)
        return Rows(np.array(self.at_ms), columns, notes, turns, starts_recorded=bool(self.clocked))

    def _prompt(self, place: str, turn: dict[str, Any]) -> int:
        if turn.get("input_length") is not None:
            return self._tokens(f"{place}, 'input_length'", turn["input_length"])
        texts = [turn.get("text_input"), turn.get("text"), *(_listed(turn.get("texts")))]
        letters = sum(len(text) for text in texts if isinstance(text, str))
        if not letters:
            refuse(
                self.source, f"{place}, 'input_length'", None, "the tokens that the turn adds, or its text"
            )
        self.notes.add("letters")
        return -(-letters // _LETTERS_A_TOKEN)

    def _answer(self, place: str, turn: dict[str, Any]) -> int:
        key = "max_tokens" if turn.get("output_length") is None else "output_length"
        if turn.get(key) is None:
            expected = "the tokens of the answer: AIPerf's --osl is in no file"
            refuse(self.source, f"{place}, 'output_length'", None, expected)
        return self._tokens(f"{place}, '{key}'", turn[key])

    def _tokens(self, place: str, value: object) -> int:
        return whole(self.source, place, value, MAX_TOKENS, "a whole number of tokens")

    def _ms(self, place: str, key: str, turn: dict[str, Any]) -> float | None:
        value = turn.get(key)
        return None if value is None else amount(self.source, f"{place}, '{key}'", value, MS)


def _listed(texts: object) -> list[object]:
    """Return texts of a turn, given as such or as objects with ``contents``."""
    found: list[object] = []
    for one in texts if isinstance(texts, list) else []:
        found += one.get("contents", []) if isinstance(one, dict) else [one]
    return found
