"""Valid files made hostile: a few changes each, drawn from a generator so that a seed repeats them."""

# ruff: noqa: E501  # tables of hostile values

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

NUMBERS = (
    "0", "-1", "1", "-0.0", "0.5", "1e-320", "1e-300", "1e300", "1e308", "1e400", "-1e308", "nan", "inf", "-inf", "NaN",
    "Infinity", "-Infinity", ".nan", ".inf", "2147483647", "2147483648", "9007199254740993", "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "9" * 40, "9" * 400, "9" * 5000, "0x10", "1_000", "0o17", "1:30",
    "+5", "", "null", "true", "~", '""', "'x'", "[]", "{}", "[1]", '{"a": 1}', "[" * 200 + "]" * 200, "1e9", "1e12",
    "100000", "1000000000", "\u0663", "12abc", "!!int 5", "&a 1", "*a", "2023-13-45", "1600-01-01 00:00:00",
    "9999-12-31 23:59:59",
)  # fmt: skip
VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 0.0, 1e-300, 1e300, 1e308, float("nan"), float("inf"), 2**31, 2**53 + 1, 2**63, 10**19,
    10**400, "", "x", "9" * 5000, "\x1b[31m\n", "\ud800", [], {}, [1.0], [[1.0]], {"a": 1}, [1, [2, [3]]], [None] * 50,
)  # fmt: skip
BYTES = (b"\0", b"\xff", b"\xfe\xff", b"\x1b[2J", b"\r", b"\n", b"\r\n\r\n", b'"', b"'", b",", b"{", b"}", b"[", b"]",
         b"\xef\xbb\xbf", b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"\xed\xa0\x80", b"#", b"---\n", b": ", b"\t", b"\\u0000",
         b"\xe2\x80\xa8", b"\xc2\x85")  # fmt: skip


_LARGEST = 2 << 20
"""Of what a change makes, packed: the reader's memory is looked at, not ours."""


@cache
def _bomb(text: bytes) -> bytes:
    return gzip.compress(text * (4 << 20))


def _times(part: bytes, wanted: int) -> bytes:
    return part * min(wanted, _LARGEST // max(1, len(part)))


def mutated(sample: bytes, random: Random) -> bytes:
    """Return the sample after one to four changes, each fit for what it is."""
    data = sample
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        kinds: list[Callable[[bytes, Random], bytes]] = [_flip, _cut, _insert, _drop, _repeat, _pack]
        if data[:2] == b"PK":
            kinds += [_npz] * 12
        elif data[:4] == b"PAR1":
            kinds += [_parquet] * 12
        elif data[:2] == b"\x1f\x8b":
            kinds += [_repacked] * 12
        else:
            kinds += [_number] * 6 + [_line] * 3 + [_key] * 2 + [_encoding]
            if data.lstrip()[:1] in (b"{", b"["):
                kinds += [_json] * 8
        try:
            data = random.choice(kinds)(data, random)
        except Exception:  # noqa: BLE001  # what a change before it broke cannot be changed like this
            data = _flip(data, random)
        data = data[:_LARGEST]
    return data


def _at(data: bytes, random: Random) -> int:
    return random.randrange(len(data)) if data else 0


def _flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data or b"x")
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(data: bytes, random: Random) -> bytes:
    at = _at(data, random)
    return random.choice((data[:at], data[at:], b"", data[:1]))


def _insert(data: bytes, random: Random) -> bytes:
    at = _at(data, random)
    return data[:at] + _times(random.choice(BYTES), random.choice((1, 1, 1, 3, 1000, 200_000))) + data[at:]


def _drop(data: bytes, random: Random) -> bytes:
    at = _at(data, random)
    return data[:at] + data[at + random.choice((1, 2, 10, 100)) :]


def _repeat(data: bytes, random: Random) -> bytes:
    at = _at(data, random)
    part = data[at : at + random.choice((1, 5, 50, 5000))]
    return data[:at] + _times(part, random.choice((2, 10, 2000))) + data[at:]


def _pack(data: bytes, random: Random) -> bytes:
    bomb = random.choice((b"\0", b"[", b"0,1,1\n", b'{"a":', b" ", b"x"))
    packed = gzip.compress(data, 1)
    return random.choice(
        (
            packed,
            gzip.compress(packed),
            packed + _bomb(bomb) * random.choice((1, 40, 400)),
            packed[:-9],
            packed + b"garbage",
        )
    )


def _repacked(data: bytes, random: Random) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as content:
        return gzip.compress(mutated(content.read(_LARGEST), random), 1)


def _any(pattern: re.Pattern[bytes], data: bytes, random: Random) -> re.Match[bytes]:
    """Find the first one from anywhere on: to find all of megabytes takes longer than to read them.

    Raises:
        ValueError: there is none.
    """
    found = pattern.search(data, _at(data, random)) or pattern.search(data)
    if found is None:
        raise ValueError
    return found


def _number(data: bytes, random: Random) -> bytes:
    new = random.choice(NUMBERS).encode()
    if random.random() < 0.1:  # all of them
        return re.sub(rb"-?\d[\d.eE+-]*", lambda _: new, data)
    match = _any(re.compile(rb"(?<![\d.])-?\d[\d.eE+-]*"), data, random)
    return data[: match.start()] + new + data[match.end() :]


def _line(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    i, j = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(6):
        case 0:
            lines[i], lines[j] = lines[j], lines[i]
        case 1:
            del lines[i]
        case 2:
            lines[i:i] = [_times(lines[j], random.choice((1, 3, 3000)))]
        case 3:
            lines[i:i] = [b"\n", b"  \n"]
        case 4:
            lines[i] = lines[i].rstrip() + random.choice((b",", b",x", b" ", b"#", b"}", b'"')) + b"\n"
        case _:
            lines[i] = b" " * random.choice((1, 2, 40)) + lines[i]
    return b"".join(lines)


def _key(data: bytes, random: Random) -> bytes:
    """Rename, double or empty a word."""
    match = _any(re.compile(rb"(?<![A-Za-z_])[A-Za-z_]{3,}"), data, random)
    word = match[0]
    new = random.choice(
        (word[:-1], word + b"s", word.upper(), b"", _times(word, 1000), word + b": 1\n" + word, b"\x1b[31m")
    )
    return data[: match.start()] + new + data[match.end() :]


def _encoding(data: bytes, random: Random) -> bytes:
    text = data.decode("latin-1")
    return random.choice(
        (
            text.encode("utf-16"),
            text.encode("utf-32"),
            b"\xef\xbb\xbf" + data,
            data.replace(b"\n", b"\r"),
            data.replace(b"\n", b"\r\n"),
            data.replace(b"e", b"\xe9"),
        )
    )


def _json(data: bytes, random: Random) -> bytes:
    """Change a value anywhere in a document, or in one of the lines."""
    lines = data.split(b"\n") if data.count(b"\n") > 1 else [data]
    index = random.choice([i for i, line in enumerate(lines) if line.strip()])
    document = json.loads(lines[index])
    place, key = _place(document, random)
    match random.randrange(4):
        case 0 if isinstance(place, list):
            place *= random.choice((0, 2, 500)) if len(place) < 1000 else 0
        case 1:
            deep: object = 1
            for _ in range(random.choice((5, 90, 150, 900))):
                deep = {"a": deep} if random.random() < 0.5 else [deep]
            place[key] = deep
        case _:
            place[key] = random.choice(VALUES)
    lines[index] = json.dumps(document).encode()
    return b"\n".join(lines)


def _place(document: object, random: Random) -> tuple[object, object]:
    """Return a container within the document and a key of it."""
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = random.choice(keys)
        if not (isinstance(place[key], (dict, list)) and place[key]) or random.random() < 0.15:
            return place, key
        place = place[key]


def _array(values: np.ndarray, random: Random) -> np.ndarray:
    flat = np.array(values, dtype=np.float64)
    match random.randrange(8):
        case 0:
            flat.flat[random.randrange(flat.size)] = random.choice(
                (
                    np.nan,
                    np.inf,
                    -np.inf,
                    0,
                    -1,
                    1e308,
                    1e-308,
                    5e-324,
                    2**31,
                    2**53,
                    2**63,
                    1e19,
                    0.5,
                    1e6,
                    1e12,
                )
            )
        case 1:
            flat *= random.choice((1e-6, 1e-3, 1e3, 1e6, 1e12, 1e300, -1, 0))
        case 2:
            flat = np.repeat(flat, random.choice((0, 2, 1000)), axis=0)
        case 3:
            flat = flat.reshape(-1, 1)
        case 4:
            return np.array(flat.astype(str))
        case 5:
            return flat.astype(random.choice(("f2", "f4", "i1", "i8", "u8", "c16", "?", "M8[s]")))
        case 6:
            return np.array(random.choice((0.0, 1.0, np.nan, 1e300)))
        case _:
            flat = flat[::-1]
    return flat


def _npz(data: bytes, random: Random) -> bytes:
    with np.load(io.BytesIO(data)) as stored:
        arrays = dict(stored)
    name = random.choice(list(arrays))
    if random.random() < 0.15:
        del arrays[name]
    else:
        with np.errstate(all="ignore"):
            arrays[name] = _array(arrays[name], random)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, values in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, values)
            body = member.getvalue()
            if random.random() < 0.05:  # a claim of another size
                body = body.replace(b"(", b"(9999999", 1)
            if random.random() < 0.02:
                body += bytes(random.choice((10, 80 << 20)))
            archive.writestr(random.choice((f"{key}.npy",) * 20 + ("../x.npy", "\x1b.npy")), body)
    return stream.getvalue()


def _parquet(data: bytes, random: Random) -> bytes:
    table = parquet.read_table(io.BytesIO(data))
    columns = {name: table[name].to_pylist() for name in table.column_names}
    name = random.choice(list(columns))
    match random.randrange(6):
        case 0:
            columns[random.choice(("x", "\x1b[31m", "ünï", name + " "))] = columns[name]
        case 1:
            del columns[name]
        case 2:
            columns[name] = [str(value) for value in columns[name]]
        case 3:
            columns = {
                key: values * (random.choice((0, 1, 1000)) if len(values) < 1000 else 1)
                for key, values in columns.items()
            }
        case _:
            values = [float(value) for value in columns[name]]
            values[random.randrange(len(values))] = random.choice(
                (None, np.nan, np.inf, -1.0, 1e308, 1e19, 2.0**31, 0.5, 1e9, -1e300)
            )
            columns[name] = values
    stream = io.BytesIO()
    parquet.write_table(
        pa.table(columns), stream, compression=random.choice(("none", "snappy", "zstd", "gzip"))
    )
    return stream.getvalue()
