"""Reads windows from the instances' own metric pages, without a Prometheus server."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sagescale.errors import InputError
from sagescale.live.config import check_url
from sagescale.live.http import HttpClient, HttpError, metrics_authorization, place_of
from sagescale.live.metrics.answers import AnswerError, discovered
from sagescale.live.metrics.presets import PRESETS
from sagescale.live.metrics.window import Problem, RawWindow, SeriesWindow, counts_from_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from prometheus_client import Metric

    from sagescale.live.config import LiveConfig
    from sagescale.live.metrics.presets import Preset
    from sagescale.live.metrics.window import Cadence

_THREADS = 16
_MAX_TARGETS = 4096

_MAX_LINES = 100_000
"""On a page. An engine's has two thousand."""

_MAX_LINE_LETTERS = 16_384
_PIECE_LINES = 1000

_BEGAN = "process_start_time_seconds"
_CPU = "process_cpu_seconds_total"

_Key = tuple[str, str]
"""A metric and an instance."""

Values = dict[_Key, float]
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

    def keys(self) -> set[_Key]:
        """Return every metric and instance that there is."""
        return self.values.keys() | {(name, instance) for name, instance, _ in self.buckets}

    def reporting(self, preset: Preset) -> set[str]:
        """Return the instances that say how much they do: what else they do not say is nothing yet."""
        return {instance for name, instance in self.values if name in preset.running}


_Address = tuple[str, str, str]
"""A group, the address of a page, and what its instance is called."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """Every page at one moment: by address, and those of a group taken together."""

    at_s: float
    wall_s: float
    listed: dict[str, set[str]]
    by_address: dict[_Address, _Page]
    pages: dict[str, _Page]


@dataclass(slots=True)
class _Past:
    """What is remembered for the next window of one cadence.

    Attributes:
        reading: The last one, where the next window begins.
        met: What each page that is still listed has said in earlier readings.
        still: Instances that used no CPU in the last window: the page read at its end is an old one.
    """

    reading: _Reading | None = None
    met: dict[_Address, set[_Key]] = field(default_factory=dict)
    still: dict[str, set[str]] = field(default_factory=dict)

    def remember(self, reading: _Reading) -> None:
        self.reading = reading
        for address, page in reading.by_address.items():
            self.met.setdefault(address, set()).update(page.keys())


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """A metric page, whose pool it belongs to, and what its instance is called.

    ``has_history``: it may have counted before anybody read it.
    """

    group: str
    url: str
    instance: str
    has_history: bool = True

    @property
    def address(self) -> _Address:
        """What tells it from other targets."""
        return self.group, self.url, self.instance


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
                elif sample.name == _BEGAN:
                    # Of several processes the first one began with the instance.
                    page.values[sample.name, name] = min(value, page.values.get((sample.name, name), value))
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
        page.buckets = {key: value for key, value in page.buckets.items() if key[0] != name}
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
    """A ``WindowReader`` that keeps the last reading of every instance and takes the difference.

    Args:
        live: Which instances, and how they are read.
        registered: Returns further instances, asked anew at every reading.

    Raises:
        InputError: a secret or certificate cannot be read.
    """

    def __init__(
        self,
        live: LiveConfig,
        registered: Callable[[], Iterable[ScrapeTarget]] | None = None,
        preset: Preset | None = None,
    ) -> None:
        self._live = live
        self._registered = registered
        self._http = HttpClient(live, metrics_authorization)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="scrape")
        self._past: dict[Cadence, _Past] = {"ticks": _Past(), "bursts": _Past()}
        self._from_start: set[_Address] | None = None
        self._listed: set[_Address] = set()
        self._preset = preset = PRESETS[live.metrics_preset] if preset is None else preset
        self._wanted = frozenset((*preset.counters(), *preset.gauges(), *preset.histograms(), _CPU, _BEGAN))

    def describe(self) -> str:
        """Say how many instances, and which."""
        live = self._live
        if self._registered is not None:
            return "registered instances"
        if live.scrape_discovery_url is not None:
            return f"instances listed at {place_of(live.scrape_discovery_url)}"
        if live.scrape_instances:
            return f"{len(live.scrape_instances)} instances"
        return f"{len(live.scrape_prefill)} prefill and {len(live.scrape_decode)} decode instances"

    def prime(self) -> None:
        """Read once, so that the first window has a beginning."""
        try:
            reading = self._read_pages(self._preset, [])
        except HttpError:
            return
        for past in self._past.values():
            past.remember(reading)

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def read(
        self, preset: Preset, window_s: float, late_s: float = 0.0, cadence: Cadence = "ticks"
    ) -> RawWindow:
        """Read every instance and return what changed since the last time for this cadence.

        Raises:
            HttpError: no instance at all could be read.
        """
        del late_s  # instances say nothing of the past; the window is as long as it is
        problems: list[Problem] = []
        past = self._past[cadence]
        before = past.reading
        try:
            now = self._read_pages(preset, problems)
        except HttpError:
            if before is not None:
                # The next window does not begin where this one did.
                past.reading = _Reading(time.monotonic(), time.time(), {}, {}, {})
            raise
        groups = {}
        for group, page in now.pages.items():
            if before is None:
                found = difference(None, page, preset)
            else:
                unsure, began = self._appeared(group, before, now, preset, past.met)
                earlier = before.pages.get(group, _Page())
                still = _still(earlier, page)
                # What its page did not show before, it shows now.
                unsure |= past.still.get(group, set()) - still
                past.still[group] = still
                found = difference(earlier, page, preset, unsure, began)
            found.listed = now.listed[group]
            groups[group] = found
        past.remember(now)
        elapsed_s = window_s if before is None else (now.at_s - before.at_s) * self._live.time_scale
        return RawWindow(elapsed_s, groups, {}, tuple(problems))

    def _appeared(
        self,
        group: str,
        before: _Reading,
        now: _Reading,
        preset: Preset,
        met_before: Mapping[_Address, AbstractSet[_Key]],
    ) -> tuple[set[str], set[str]]:
        """Find instances with something on their page that was not there at the window's start.

        Returns:
            Those of which one end of the window was not read, or not all of it; and those whose process began
            in the window.
        """
        earlier = before.pages.get(group, _Page())
        said, reporting = earlier.keys(), earlier.reporting(preset)
        counted = {*preset.counters(), *preset.histograms(), *preset.in_flight}
        unsure, began = set(), set()
        for address, page in now.by_address.items():
            if address[0] != group:
                continue
            met = met_before.get(address, frozenset())
            unread = not met and address in (self._from_start or ())
            once = {instance for _, instance in met}
            for name, instance in page.keys() - said:
                if name in counted and (
                    (name, instance) in met or (instance not in reporting and (unread or instance in once))
                ):
                    unsure.add(instance)
            began |= {
                instance
                for (name, instance), value in page.values.items()
                if name == _BEGAN and value >= before.wall_s
            }
        for address, page in before.by_address.items():
            if address[0] == group and address not in now.by_address and address in self._listed:
                unsure |= page.reporting(preset)
        return unsure - began, began

    def _read_pages(self, preset: Preset, problems: list[Problem]) -> _Reading:
        live = self._live
        deadline = time.monotonic() + live.metrics_timeout_s
        targets = self._targets(preset, deadline)
        self._note_listed(targets)
        began_s, groups = time.time(), preset.groups
        listed: dict[str, set[str]] = {group: set() for group in groups}
        by_address: dict[_Address, _Page] = {}
        pages = {group: _Page() for group in groups}
        answers = [self._pool.submit(self._fetch, target, preset, deadline) for target in targets]
        failures = []
        for target, answer in zip(targets, answers, strict=True):
            listed[target.group].add(target.instance)
            try:
                page = answer.result(timeout=max(0.0, deadline - time.monotonic() + 1.0))
            except (HttpError, TimeoutError) as error:
                failures.append(str(error) or f"{place_of(target.url)}: no answer in time")
                continue
            by_address[target.address] = page
            pages[target.group].update(page)
        if failures and len(failures) == len(targets):
            raise HttpError(failures[0])
        if not targets:
            raise HttpError("there are no instances to read metrics from")
        problems.extend(Problem("instance_unreachable", text) for text in failures[:10])
        return _Reading(time.monotonic(), began_s, listed, by_address, pages)

    def _note_listed(self, targets: list[ScrapeTarget]) -> None:
        """Tell instances that were there when this reader began from those that were listed later."""
        addresses = self._listed = {target.address for target in targets}
        if self._from_start is None:
            self._from_start = {target.address for target in targets if target.has_history}
        self._from_start &= addresses
        for past in self._past.values():
            for address in past.met.keys() - addresses:
                del past.met[address]

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

    def _targets(self, preset: Preset, deadline: float) -> list[ScrapeTarget]:
        live = self._live
        registered = [] if self._registered is None else list(self._registered())
        if preset.frontend:
            urls = (*live.scrape_prefill, *live.scrape_decode, *(target.url for target in registered))
            return [ScrapeTarget("frontend", url, urlsplit(url).netloc) for url in dict.fromkeys(urls)]
        found = [
            ScrapeTarget(group, url, _instance(url))
            for group, urls in (
                ("prefill", live.scrape_prefill),
                ("decode", live.scrape_decode),
                ("aggregated", live.scrape_instances),
            )
            if group in preset.groups
            for url in urls
        ]
        if live.scrape_discovery_url is not None:
            found.extend(self._discover(live.scrape_discovery_url, preset, deadline))
        # A page that is listed twice is read once.
        return registered + list({(target.group, target.url): target for target in found}.values())

    def _discover(self, url: str, preset: Preset, deadline: float) -> Iterable[ScrapeTarget]:
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
            if preset.aggregated:
                yield ScrapeTarget("aggregated", page, instance)
                continue
            # Prometheus anchors its expressions at both ends; so are these.
            for group, pattern in (("prefill", live.prefill_pool), ("decode", live.decode_pool)):
                if re.fullmatch(pattern, value):
                    yield ScrapeTarget(group, page, instance)


def _instance(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc if parts.path in {"", "/", "/metrics"} else f"{parts.netloc}{parts.path}"


def difference(
    before: _Page | None,
    now: _Page,
    preset: Preset,
    unsure: AbstractSet[str] = frozenset(),
    began: AbstractSet[str] = frozenset(),
) -> SeriesWindow:
    """Return the increases since the last reading; what fell has restarted from zero.

    An instance that was not read then has counted since it began, which must have been in this window. It was
    not, or that is not known, where the instance has completed more than the busiest one did meanwhile.

    Args:
        before: The last reading; ``None`` where there was none.
        now: This one.
        preset: Whose names.
        unsure: Instances that were there and not read then, or not all of them.
        began: Instances whose process is known to have begun since.
    """
    found = SeriesWindow(invalid=set(now.invalid))
    gauges = frozenset(preset.gauges())
    if before is not None:
        found.incomplete = _not_from_zero(before, now, preset, began) | unsure
    for (name, instance), value in now.values.items():
        if name in gauges:
            found.now.setdefault(name, {})[instance] = value
            found.last.setdefault(name, {})[instance] = value
            continue
        if before is None or name == _BEGAN or instance in found.incomplete:
            continue
        old = before.values.get((name, instance), 0.0)
        if value < old and name in preset.completed:
            found.resets.add(instance)
        grown = value if value < old else value - old
        if name == _CPU:
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
        if instance in found.incomplete:
            continue
        old = before.buckets.get((name, instance, edge), 0.0)
        pooled = found.buckets.setdefault(name, {})
        pooled[edge] = pooled.get(edge, 0.0) + (value if value < old else value - old)
    return found


def _still(before: _Page, now: _Page) -> set[str]:
    """Return instances whose exporter has used no CPU since: its page is as it was."""
    return {
        instance
        for (name, instance), value in now.values.items()
        if name == _CPU and before.values.get((name, instance)) == value
    }


def _not_from_zero(before: _Page, now: _Page, preset: Preset, began: AbstractSet[str]) -> set[str]:
    """Return instances that were not read at the last reading and have counted too much to be new."""
    name = next((one for one in preset.completed if any(key[0] == one for key in now.values)), None)
    counts, old = (
        {instance: value for (metric, instance), value in page.values.items() if metric == name}
        for page in (now, before)
    )
    busiest = max((value - old[one] for one, value in counts.items() if one in old), default=0.0)
    new = now.reporting(preset) - (before.reporting(preset) & old.keys()) - began
    return {one for one in new if counts_from_before(counts.get(one, 0.0), max(0.0, busiest))}
