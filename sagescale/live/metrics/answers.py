"""What a metric source answers, checked before anything is read from it: one checker a shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sagescale.json_guard import BadJsonError, parse_json
from sagescale.live.secret import foreign_text

if TYPE_CHECKING:
    from collections.abc import Mapping


class AnswerError(ValueError):
    """An answer has another shape than its protocol says: what was found and expected, in a few words."""


class Sample(NamedTuple):
    """One series of an instant vector."""

    labels: Mapping[str, str]
    value: float


class Samples(NamedTuple):
    """When one series was sampled, in the order of time."""

    labels: Mapping[str, str]
    times_s: tuple[float, ...]


class Values(NamedTuple):
    """One series with its finite samples, in the order of time."""

    labels: Mapping[str, str]
    times_s: tuple[float, ...]
    values: tuple[float, ...]


_Series = TypeVar("_Series", Sample, Samples, Values)


def instant(body: bytes) -> list[Sample]:
    """Read a Prometheus server's answer to a query at one instant: a vector or a scalar.

    Raises:
        AnswerError: it is something else, or says that the query failed.
    """
    result, kind = _result(body)
    if kind == "scalar":
        return [Sample({}, number(_pair(result)[1]))]
    if kind != "vector":
        raise AnswerError(f"the query gives a {kind}; expected numbers at one instant")
    found = []
    for item in _list(result):
        series = _object(item)
        if "value" in series:  # else a native histogram
            found.append(Sample(_labels(series.get("metric")), number(_pair(series["value"])[1])))
    return _each_once(found)


def points(body: bytes) -> list[tuple[float, float]]:
    """Read a Prometheus server's answer to a query over a range: time and value of every finite point.

    Raises:
        AnswerError: it is something else, or says that the query failed.
    """
    result, kind = _result(body)
    if kind != "matrix":
        raise AnswerError(f"the range query gives a {kind}; expected a matrix")
    return [point for item in _list(result) for point in _finite(_object(item))]


def raw_samples(body: bytes) -> list[Samples]:
    """Read a Prometheus server's answer to a query for the samples themselves.

    A server that gives something else at one instant says nothing of them.

    Raises:
        AnswerError: it is damaged, or says that the query failed.
    """
    result, kind = _result(body)
    found: list[Samples] = []
    if kind != "matrix":
        return found
    for item in _list(result):
        series = _object(item)
        times_s = [number(_pair(pair)[0]) for pair in _list(series.get("values", []))]
        known = sorted(at for at in times_s if math.isfinite(at))
        if known:
            found.append(Samples(_labels(series.get("metric")), tuple(known)))
    return _each_once(found)


def raw_values(body: bytes) -> list[Values]:
    """Read a Prometheus server's answer to a query over time: every series with its finite samples.

    Raises:
        AnswerError: it is something else, or says that the query failed.
    """
    result, kind = _result(body)
    if kind != "matrix":
        raise AnswerError(f"the query gives a {kind}; expected a matrix")
    found = []
    for item in _list(result):
        series = _object(item)
        known = _finite(series)
        if known:
            times_s, values = zip(*sorted(known), strict=True)
            found.append(Values(_labels(series.get("metric")), times_s, values))
    return _each_once(found)


def _finite(series: dict[str, object]) -> list[tuple[float, float]]:
    """Return time and value of each sample of a series whose both are known."""
    read = [(number(at), number(value)) for at, value in map(_pair, _list(series.get("values", [])))]
    return [(at, value) for at, value in read if math.isfinite(at) and math.isfinite(value)]


def found_series(body: bytes) -> list[Mapping[str, str]]:
    """Read a Prometheus server's list of series: the labels of each.

    Raises:
        AnswerError: it is something else, or says that the query failed.
    """
    return [_labels(item) for item in _list(_data(body))]


def discovered(body: bytes) -> list[tuple[str, Mapping[str, str]]]:
    """Read a list of targets in Prometheus' HTTP service discovery format: every address with its labels.

    Raises:
        AnswerError: it is something else.
    """
    found = []
    for item in _list(_document(body)):
        entry = _object(item)
        labels = _labels(entry.get("labels", {}))
        for address in _list(entry.get("targets")):
            if not isinstance(address, str):
                raise AnswerError(f"a target is {_kind(address)}; expected text")
            found.append((address, labels))
    return found


def _each_once(found: list[_Series]) -> list[_Series]:
    """Refuse one series given twice: which of the two is true is not known, and it may be the smaller."""
    seen = set()
    for series in found:
        labels = frozenset(series.labels.items())
        if labels in seen:
            named = foreign_text(dict(series.labels), 100)
            raise AnswerError(f"the same series is in the answer twice: {named}")
        seen.add(labels)
    return found


def number(value: object) -> float:
    """Read a sample's value, which is text; whatever is none is no number (NaN)."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def _document(body: bytes) -> object:
    try:
        return parse_json(body)
    except BadJsonError as error:
        raise AnswerError(f"the answer is not JSON: {error}") from None


def _data(body: bytes) -> object:
    document = _object(_document(body))
    if document.get("status") != "success":
        raise AnswerError(f"the query failed: {foreign_text(document.get('error', 'no status'))}")
    return document.get("data")


def _result(body: bytes) -> tuple[object, str]:
    data = _object(_data(body))
    kind = data.get("resultType")
    return data.get("result"), kind[:40] if isinstance(kind, str) else _kind(kind)


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise AnswerError(f"found {_kind(value)} in the answer; expected an object")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise AnswerError(f"found {_kind(value)} in the answer; expected a list")
    return value


def _pair(value: object) -> list[object]:
    pair = _list(value)
    if len(pair) != 2:
        raise AnswerError(f"found a list of {len(pair)} in the answer; expected time and value")
    return pair


def _labels(value: object) -> Mapping[str, str]:
    labels = _object(value)
    if not all(isinstance(text, str) for text in labels.values()):
        raise AnswerError("a label's value is no text")
    return {name: str(text) for name, text in labels.items()}


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
