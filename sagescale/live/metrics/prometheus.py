"""Reads windows from a Prometheus server's HTTP API."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sagescale.live.config import IN_FLIGHT_FIELDS
from sagescale.live.http import HttpClient, HttpError, metrics_authorization
from sagescale.live.metrics.answers import (
    AnswerError,
    Sample,
    Values,
    found_series,
    instant,
    number,
    points,
    raw_samples,
    raw_values,
)
from sagescale.live.metrics.observe import NEEDS, add_unserved
from sagescale.live.metrics.possible import Evidence, keep_possible
from sagescale.live.metrics.promql import (
    KIND_LABEL,
    duration,
    expand,
    group_matchers,
    load_queries,
    samples_query,
    target_matchers,
    whole_query,
    window_query,
)
from sagescale.live.metrics.sampling import Sampling, lookback_s
from sagescale.live.metrics.window import Problem, RawWindow, SeriesWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sagescale.live.config import LiveConfig
    from sagescale.live.metrics.presets import Preset
    from sagescale.live.metrics.window import Cadence

_Read = TypeVar("_Read")

_TARGET_LABEL = "instance"

_LOOKED_BACK_S = 86_400.0
"""How far a server whose clock went back is asked for records beyond it."""

_LOAD_FIELDS = frozenset(("requests", "isl_mean", "osl_mean", "requests_shed", "requests_queued_gateway"))


class PastWindow(NamedTuple):
    """The load of one window that is over, for a warm start; ``end_s`` is the server's time."""

    end_s: float
    requests: float | None
    isl: float | None
    osl: float | None


class PrometheusReader:
    """A ``WindowReader`` over one Prometheus server (or anything that speaks its API).

    Windows end by the server's own clock, so that a step of this machine's clock moves nothing, and where
    they should, however late the question comes: all queries of a window are of one instant.

    Raises:
        InputError: a secret or certificate cannot be read.
    """

    def __init__(self, live: LiveConfig) -> None:
        assert live.prometheus_url is not None
        self._live = live
        self._url = live.prometheus_url.rstrip("/")
        self._http = HttpClient(live, metrics_authorization)
        self._latest_s = -math.inf  # the server's time when it was last read

    def describe(self) -> str:
        """Say which server."""
        return f"Prometheus at {self._url}"

    def prime(self) -> None:
        """Do nothing: the server remembers."""

    def close(self) -> None:
        """Do nothing: no connection outlives its request."""

    def read(
        self, preset: Preset, window_s: float, late_s: float = 0.0, cadence: Cadence = "ticks"
    ) -> RawWindow:
        """Read one window, which ended ``late_s`` ago; two queries a pool: when it was read, and what."""
        del cadence  # the server looks back as far as it is asked to
        began_s = time.monotonic()
        deadline = began_s + self._live.metrics_timeout_s
        # The server read its clock while it was being asked.
        now_s = self.now_s(deadline) - (time.monotonic() - began_s) / 2
        end_s = now_s - late_s
        wall_window_s = window_s / self._live.time_scale
        if now_s < self._latest_s - wall_window_s / 2:
            self._refuse_the_past(now_s, deadline)
        self._latest_s = now_s
        groups = {}
        for group, matchers in group_matchers(self._live, preset).items():
            sampling = self._sampling(preset.running, matchers, wall_window_s, deadline, end_s)
            query = window_query(preset, matchers, self._live.instance_label, wall_window_s, sampling.edge_s)
            found, first = _series(self.query(query, deadline, end_s), self._live.instance_label)
            sampling.judge(found, preset, first)
            groups[group] = found
        own: dict[str, float | None] = {}
        own_before: dict[str, float | None] = {}
        problems: list[Problem] = []
        for name, text in self._live.metric_queries.queries:
            query = expand(text, self._live, preset, wall_window_s)
            samples = self.query(query, deadline, end_s)
            if len(samples) > 1:
                problems.append(
                    Problem(
                        "query_ambiguous", f"the query of {name} gives {len(samples)} numbers; expected one"
                    )
                )
            own[name] = _one(samples)
            if name in IN_FLIGHT_FIELDS:
                own_before[name] = _one(self.query(query, deadline, end_s - wall_window_s))
        if own and any(
            not found.empty and found.gap for found in self._targets(preset, wall_window_s, deadline, end_s)
        ):
            own, own_before = dict.fromkeys(own), dict.fromkeys(own_before)
            problems.append(
                Problem(
                    "window_incomplete",
                    "no target was read at an end of the window: what queries give is not of all of it",
                )
            )
        return RawWindow(window_s, groups, own, tuple(problems), own_before)

    def _refuse_the_past(self, now_s: float, deadline: float) -> None:
        """Refuse a window that was seen before: the server's clock went back, and it has records beyond it.

        Without any it is another server, whose clock is its own.

        Raises:
            HttpError: it has some, or does not say.
        """
        back_s = self._latest_s - now_s
        looked_s = min(back_s, _LOOKED_BACK_S)
        beyond = self.query(f"count(count_over_time(up[{duration(looked_s)}]))", deadline, self._latest_s)
        if beyond:
            raise HttpError(
                f"{self._url}: its clock went back by {back_s:.0f} s: what it says of now was recorded before"
            )

    def query(self, query: str, deadline: float | None = None, at_s: float | None = None) -> list[Sample]:
        """Evaluate an instant query at a time of the server's, by default its present.

        Raises:
            HttpError: no usable answer in time.
        """
        timeout_s = self._live.metrics_timeout_s if deadline is None else deadline - time.monotonic()
        form = {"query": query} if at_s is None else {"query": query, "time": f"{at_s:.3f}"}
        return self._ask("query", form, timeout_s, instant)

    def samples(self, selector: str, start_s: float, end_s: float) -> list[Values]:
        """Return every sample that a selector's series have in a time, as they were scraped.

        Raises:
            HttpError: no usable answer, or one longer than ``metrics_max_bytes``.
        """
        form = {"query": f"{selector}[{duration(end_s - start_s)}]", "time": f"{end_s:.3f}"}
        return self._ask("query", form, self._live.metrics_timeout_s, raw_values)

    def over(self, query: str, start_s: float, end_s: float, step_s: float) -> list[Values]:
        """Evaluate a query every ``step_s`` from ``start_s`` to ``end_s``; at most 11,000 times.

        Raises:
            HttpError: no usable answer.
        """
        form = {"query": query, "start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:.3f}"}
        return self._ask("query_range", form, self._live.metrics_timeout_s, raw_values)

    def known_series(self, selector: str, start_s: float, end_s: float) -> list[Mapping[str, str]]:
        """Return the labels of the series that a selector has in a time.

        Raises:
            HttpError: no usable answer.
        """
        form = {"match[]": selector, "start": f"{start_s:.3f}", "end": f"{end_s:.3f}"}
        return self._ask("series", form, self._live.metrics_timeout_s, found_series)

    def _sampling(
        self,
        names: tuple[str, ...],
        matchers: str,
        wall_s: float,
        deadline: float,
        end_s: float,
        instance_label: str | None = None,
    ) -> Sampling:
        query = samples_query(names, matchers, wall_s + lookback_s(wall_s))
        form = {"query": query, "time": f"{end_s:.3f}"}
        series = self._ask("query", form, deadline - time.monotonic(), raw_samples)
        return Sampling(series, instance_label or self._live.instance_label, end_s - wall_s, end_s)

    def _targets(self, preset: Preset, wall_s: float, deadline: float, end_s: float) -> list[Sampling]:
        """Return when the targets of every group were read, or could not be: what the server itself says."""
        return [
            self._sampling(("up",), target_matchers(matchers, preset), wall_s, deadline, end_s, _TARGET_LABEL)
            for matchers in group_matchers(self._live, preset).values()
        ]

    def now_s(self, deadline: float | None = None) -> float:
        """Return the server's time.

        Raises:
            HttpError: it does not say.
        """
        answer = self.query("time()", deadline)
        if not answer or not math.isfinite(answer[0].value):
            raise HttpError(f"{self._url}: does not say what time it is")
        return answer[0].value

    def history(self, preset: Preset, window_s: float, windows: int) -> list[PastWindow]:
        """Return the load of the last windows, oldest first, ending one window ago at the latest.

        Raises:
            HttpError: no usable answer.
        """
        wall_s = window_s / self._live.time_scale
        end_s = self.now_s()
        start_s = end_s - (windows - 1) * wall_s
        matchers = group_matchers(self._live, preset)
        deadline = time.monotonic() + self._live.metrics_timeout_s
        own = {name for name, _ in self._live.metric_queries.queries}
        gates: list[str] = []
        for group, where in matchers.items():
            targets = target_matchers(where, preset)
            if any(name not in own for name in NEEDS[group]):
                sampling = self._sampling(preset.running, where, wall_s, deadline, end_s)
                if sampling.doubled(preset):
                    return []
                label = self._live.instance_label
                gates.append(whole_query(preset.running, where, targets, label, wall_s, sampling.edge_s))
            if own:
                sampling = self._sampling(("up",), targets, wall_s, deadline, end_s, _TARGET_LABEL)
                if not sampling.empty:
                    edge_s = sampling.edge_s
                    gates.append(whole_query(("up",), targets, targets, _TARGET_LABEL, wall_s, edge_s))

        queries = load_queries(preset, matchers, wall_s) | {
            name: expand(query, self._live, preset, wall_s)
            for name, query in self._live.metric_queries.queries
            if name in _LOAD_FIELDS
        }
        # One more at the start: what a queue grew by is the difference to the window before.
        columns = {
            name: self._range(query, start_s - wall_s, end_s, wall_s) for name, query in queries.items()
        }
        whole = [self._range(query, start_s - wall_s, end_s, wall_s).keys() for query in gates]
        found = []
        for index in range(1, windows + 1):
            values, before = (
                {name: column.get(at) for name, column in columns.items()} for at in (index, index - 1)
            )
            if not all(index in places for places in whole):
                values = dict.fromkeys(values)
            keep_possible(values, Evidence(), [])
            add_unserved(values, before, [])
            isl, osl = values["isl_mean"], values["osl_mean"]
            found.append(PastWindow(start_s + (index - 1) * wall_s, values["requests"], isl, osl))
        known = next((index for index, past in enumerate(found) if past.requests is not None), len(found))
        return found[known:]

    def _range(self, query: str, start_s: float, end_s: float, step_s: float) -> dict[int, float]:
        form = {"query": query, "start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:.3f}"}
        found = self._ask("query_range", form, self._live.metrics_timeout_s, points)
        last = (end_s - start_s) / step_s
        places = [((at_s - start_s) / step_s, value) for at_s, value in found]
        return {round(place): value for place, value in places if -0.5 <= place <= last + 0.5}

    def _ask(
        self, path: str, form: dict[str, str], timeout_s: float, read: Callable[[bytes], _Read]
    ) -> _Read:
        if timeout_s <= 0:
            raise HttpError(f"{self._url}: no answer within {self._live.metrics_timeout_s:g} s")
        reply = self._http.request("POST", f"{self._url}/api/v1/{path}", timeout_s=timeout_s, form=form)
        try:
            return read(reply.body)
        except AnswerError as error:
            raise HttpError(f"{self._url}: {error}") from None


def _one(samples: list[Sample]) -> float | None:
    value = samples[0].value if len(samples) == 1 else math.nan
    return value if math.isfinite(value) else None


def _series(samples: list[Sample], instance_label: str) -> tuple[SeriesWindow, dict[str, float]]:
    """Return the series by kind, and what instances not read at the start had completed when they were."""
    found = SeriesWindow()
    first: dict[str, float] = {}
    earlier_cpu: dict[str, float] = {}
    by_metric = {
        "increase": found.increases,
        "now": found.now,
        "last": found.last,
        "before": found.before,
    }
    by_instance = {"scrapes": found.scrapes, "cpu": found.alive_cpu, "earlier_cpu": earlier_cpu}
    fresh = set()
    for labels, value in samples:
        kind, _, name = labels.get(KIND_LABEL, "").partition(" ")
        instance = labels.get(instance_label, "")
        if math.isnan(value) or (kind != "bucket" and math.isinf(value)):
            if name:
                found.invalid.add(name)
            continue
        match kind:
            case "increase" | "now" | "last" | "before":
                by_metric[kind].setdefault(name, {})[instance] = value
            case "scrapes" | "cpu" | "earlier_cpu":
                by_instance[kind][instance] = value
            case "bucket":
                found.buckets.setdefault(name, {})[number(labels.get("le"))] = value
            case "resets":
                if value > 0:
                    found.resets.add(instance)
            case "fresh":
                fresh.add(instance)
            case "first":
                first[instance] = max(value, first.get(instance, 0.0))
            case "listed":
                found.listed = (found.listed or set()) | {instance}
            case _:
                raise HttpError(f"the server answered with a series that was not asked for: {dict(labels)}")
    found.stale = found.instances - fresh
    found.incomplete = {
        one for one, used in earlier_cpu.items() if used == 0.0 < found.alive_cpu.get(one, 0.0)
    }
    return found, first
