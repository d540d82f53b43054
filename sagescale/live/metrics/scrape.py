"""Reads windows from the instances' own metric pages, without a Prometheus server."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from sagescale.errors import InputError
from sagescale.live.config import check_url
from sagescale.live.http import Credentials, HttpClient, HttpError, place_of
from sagescale.live.metrics.answers import AnswerError, discovered
from sagescale.live.metrics.window import Problem, RawWindow, SeriesWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client import Metric

    from sagescale.live.config import LiveConfig
    from sagescale.live.metrics.presets import Preset
    from sagescale.live.metrics.window import Succession

__all__ = ["ScrapeReader", "ScrapeTarget", "difference", "parse_page"]

_THREADS = 16
_MAX_TARGETS = 4096

_MAX_LINES = 100_000
"""On a page. An engine's has two thousand."""

_MAX_LINE_LETTERS = 16_384
_PIECE_LINES = 1000

Values = dict[tuple[str, str], float]
"""Counters and gauges, by metric and instance."""

Buckets = dict[tuple[str, str, float], float]
"""Cumulative buckets, by metric, instance and upper edge."""


@dataclass(slots=True)
class _Page:
    """What one group of instances said at one moment."""

    values: Values = field(default_factory=dict)
    buckets: Buckets = field(default_factory=dict)
    invalid: set[str] = field(default_factory=set)

    def update(self, other: _Page) -> None:
        self.values |= other.values
        self.buckets |= other.buckets
        self.invalid |= other.invalid


class _Look(NamedTuple):
    """Every group's page at one moment."""

    at_s: float
    pages: dict[str, _Page]
    listed: dict[str, set[str]]


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """A metric page, whose pool it belongs to, and what its instance is called.

    ``has_history``: what it has counted before the first look is not of that look's window.
    """

    group: str
    url: str
    instance: str
    has_history: bool = False


def parse_page(
    text: str,
    instance: str,
    instance_label: str,
    wanted: frozenset[str],
    labels: Mapping[str, str],
    *,
    ratios: frozenset[str] = frozenset(),
    any_case: bool = False,
) -> _Page:
    """Read a metric page; series of one metric and instance (its ranks) are added up.

    Args:
        text: The page in Prometheus' text format.
        instance: The instance, unless a sample says so itself (``instance_label``).
        instance_label: Which label says so.
        wanted: The metrics to keep.
        labels: Values that a sample carrying these labels must have, e.g. the model's name.
        ratios: Metrics that are shares: of several series the mean counts.
        any_case: Whether those values may be in another case.

    Raises:
        HttpError: the page is in no such format.
    """
    page = _Page()
    ranks: Counter[tuple[str, str]] = Counter()
    same = str.casefold if any_case else str
    try:
        for family in _families(text):
            for sample in family.samples:
                if sample.name not in wanted:
                    continue
                if any(same(sample.labels.get(name, value)) != same(value) for name, value in labels.items()):
                    continue
                name = sample.labels.get(instance_label, instance)
                value = float(sample.value)
                if math.isnan(value) or math.isinf(value):
                    page.invalid.add(sample.name)
                elif "le" in sample.labels:
                    edge = (sample.name, name, float(sample.labels["le"]))
                    page.buckets[edge] = page.buckets.get(edge, 0.0) + value
                else:
                    key = (sample.name, name)
                    page.values[key] = page.values.get(key, 0.0) + value
                    ranks[key] += 1
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        # The parser raises whatever its string handling raises, and quotes the whole line.
        said = " ".join(str(error)[:200].split())
        raise HttpError(f"{instance}: its page is not in Prometheus' text format: {said}") from None
    for key in page.values:
        if key[0] in ratios:
            page.values[key] /= ranks[key]
    for name in page.invalid:
        # A sum with a part missing is not the sum.
        page.values = {key: value for key, value in page.values.items() if key[0] != name}
    return page


def _families(text: str) -> Iterator[Metric]:
    """Parse a page a piece at a time: a hostile one would take 25 times its size if parsed at once.

    Raises:
        ValueError: it has too many lines, or too long ones; or what the parser raises.
    """
    from prometheus_client.parser import text_string_to_metric_families

    if text.count("\n") > _MAX_LINES:
        raise ValueError(f"more than {_MAX_LINES} lines")
    kind = ""
    piece: list[str] = []
    for line in text.split("\n"):
        if len(line) > _MAX_LINE_LETTERS:
            raise ValueError(f"a line of more than {_MAX_LINE_LETTERS} characters")
        if line.startswith("# TYPE "):
            kind = line
        piece.append(line)
        if len(piece) > _PIECE_LINES:
            yield from text_string_to_metric_families("\n".join(piece))
            # What follows is still of this kind.
            piece = [kind]
    yield from text_string_to_metric_families("\n".join(piece))


class ScrapeReader:
    """A ``WindowReader`` that keeps the last look at every instance and takes the difference.

    Args:
        live: Which instances, and how they are read.
        registered: Returns further instances, asked anew at every look.

    Raises:
        InputError: a secret or certificate cannot be read.
    """

    def __init__(
        self, live: LiveConfig, registered: Callable[[], Iterable[ScrapeTarget]] | None = None
    ) -> None:
        self._live = live
        self._registered = registered
        self._http = HttpClient(live, Credentials.of_metrics(live))
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="scrape")
        self._before: dict[Succession, _Look] = {}
        self._seen: set[str] = set()
        self._wanted: frozenset[str] = frozenset()

    def describe(self) -> str:
        """Say how many instances, and which."""
        live = self._live
        if self._registered is not None:
            return "registered instances"
        if live.scrape_discovery_url is not None:
            return f"instances listed at {place_of(live.scrape_discovery_url)}"
        return f"{len(live.scrape_prefill)} prefill and {len(live.scrape_decode)} decode instances"

    def prime(self) -> None:
        """Look once, so that the first window has a beginning."""
        from sagescale.live.metrics.presets import PRESETS

        try:
            look = self._look(PRESETS[self._live.metrics_preset], [])
        except HttpError:
            return
        self._before = {"ticks": look, "looks": look}

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def read(
        self, preset: Preset, window_s: float, late_s: float = 0.0, succession: Succession = "ticks"
    ) -> RawWindow:
        """Read every instance and return what changed since the last time for this succession.

        Raises:
            HttpError: no instance at all could be read.
        """
        del late_s  # instances say nothing of the past; the window is as long as it is
        problems: list[Problem] = []
        now = self._look(preset, problems)
        before = self._before.get(succession)
        self._before[succession] = now
        groups = {
            group: difference(None if before is None else before.pages.get(group), page, preset)
            for group, page in now.pages.items()
        }
        for group, listed in now.listed.items():
            groups[group].listed = listed
        elapsed_s = window_s if before is None else (now.at_s - before.at_s) * self._live.time_scale
        return RawWindow(elapsed_s, groups, {}, tuple(problems))

    def _look(self, preset: Preset, problems: list[Problem]) -> _Look:
        live = self._live
        deadline = time.monotonic() + live.metrics_timeout_s
        if not self._wanted:
            self._wanted = frozenset(
                (*preset.counters(), *preset.gauges(), *preset.histograms(), "process_cpu_seconds_total")
            )
        groups = ("frontend",) if preset.frontend else ("prefill", "decode")
        targets = self._targets(groups, deadline)
        pages: dict[str, _Page] = {group: _Page() for group in groups}
        answers = [self._pool.submit(self._fetch, target, preset, deadline) for target in targets]
        failures = []
        for target, answer in zip(targets, answers, strict=True):
            try:
                page = answer.result(timeout=max(0.0, deadline - time.monotonic() + 1.0))
            except (HttpError, TimeoutError) as error:
                failures.append(str(error) or f"{place_of(target.url)}: no answer in time")
                continue
            pages[target.group].update(page)
            if target.has_history and target.url not in self._seen:
                for look in self._before.values():
                    look.pages[target.group].update(page)
            self._seen.add(target.url)
        if failures and len(failures) == len(targets):
            raise HttpError(failures[0])
        if not targets:
            raise HttpError("there are no instances to read metrics from")
        problems.extend(Problem("instance_unreachable", text) for text in failures[:10])
        listed: dict[str, set[str]] = {group: set() for group in groups}
        for target in targets:
            listed[target.group].add(target.instance)
        return _Look(time.monotonic(), pages, listed)

    def _fetch(self, target: ScrapeTarget, preset: Preset, deadline: float) -> _Page:
        left = deadline - time.monotonic()
        if left <= 0:
            raise HttpError(f"{place_of(target.url)}: no answer within {self._live.metrics_timeout_s:g} s")
        reply = self._http.get(target.url, timeout_s=left)
        labels = {}
        if self._live.model_name is not None:
            labels[preset.model_label] = self._live.model_name
        text = reply.body.decode("utf-8", "replace")
        return parse_page(
            text,
            target.instance,
            self._live.instance_label,
            self._wanted,
            labels,
            ratios=frozenset(preset.ratios()),
            any_case=preset.model_any_case,
        )

    def _targets(self, groups: tuple[str, ...], deadline: float) -> list[ScrapeTarget]:
        live = self._live
        registered = [] if self._registered is None else list(self._registered())
        if groups == ("frontend",):
            urls = (*live.scrape_prefill, *live.scrape_decode, *(target.url for target in registered))
            return [ScrapeTarget("frontend", url, urlsplit(url).netloc) for url in dict.fromkeys(urls)]
        found = registered + [
            ScrapeTarget(group, url, _instance(url))
            for group, urls in (("prefill", live.scrape_prefill), ("decode", live.scrape_decode))
            for url in urls
        ]
        if live.scrape_discovery_url is not None:
            found.extend(self._discover(live.scrape_discovery_url, deadline))
        return found

    def _discover(self, url: str, deadline: float) -> Iterable[ScrapeTarget]:
        live = self._live
        place = place_of(url)
        reply = self._http.get(url, timeout_s=deadline - time.monotonic())
        try:
            entries = discovered(reply.body)
        except AnswerError as error:
            raise HttpError(f"{place}: {error}; expected Prometheus' HTTP service discovery format") from None
        if len(entries) > _MAX_TARGETS:
            raise HttpError(f"{place}: lists {len(entries)} targets; expected at most {_MAX_TARGETS}")
        for address, labels in entries:
            scheme, path = labels.get("__scheme__", "http"), labels.get("__metrics_path__", "/metrics")
            page = f"{scheme}://{address}{path}"
            try:
                check_url("a discovered target", page)
            except InputError as error:
                raise HttpError(str(error)) from None
            value = labels.get(live.pool_label, address if live.pool_label == "instance" else "")
            instance = labels.get(live.instance_label, _instance(page))
            # Prometheus anchors its expressions at both ends; so are these.
            for group, pattern in (("prefill", live.prefill_pool), ("decode", live.decode_pool)):
                if re.fullmatch(pattern, value):
                    yield ScrapeTarget(group, page, instance)


def _instance(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc if parts.path in {"", "/", "/metrics"} else f"{parts.netloc}{parts.path}"


def difference(before: _Page | None, now: _Page, preset: Preset) -> SeriesWindow:
    """Increases since the last look; what fell has restarted from zero."""
    found = SeriesWindow(invalid=set(now.invalid))
    gauges = frozenset(preset.gauges())
    for (name, instance), value in now.values.items():
        if name in gauges:
            found.now.setdefault(name, {})[instance] = value
            found.last.setdefault(name, {})[instance] = value
            continue
        if before is None:
            continue
        # An instance not seen before has counted since it started, which was in this window.
        old = before.values.get((name, instance), 0.0)
        if value < old and name in preset.completed:
            found.resets.add(instance)
        grown = value if value < old else value - old
        if name == "process_cpu_seconds_total":
            found.alive_cpu[instance] = grown
        else:
            found.increases.setdefault(name, {})[instance] = grown
    if before is None:
        return found
    for (name, instance), value in before.values.items():
        if name in gauges:
            found.before.setdefault(name, {})[instance] = value
            # What it was doing when it went is not known; nothing is added or taken for it.
            found.last.setdefault(name, {}).setdefault(instance, value)
    for (name, instance, edge), value in now.buckets.items():
        old = before.buckets.get((name, instance, edge), 0.0)
        pooled = found.buckets.setdefault(name, {})
        pooled[edge] = pooled.get(edge, 0.0) + (value if value < old else value - old)
    return found
