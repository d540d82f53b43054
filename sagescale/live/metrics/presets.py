"""What each engine calls its metrics, as ``presets.yaml`` lists it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagescale.planner import Serving


@dataclass(frozen=True, slots=True)
class Mean:
    """A window mean: the increase of ``total`` over the increase of ``count``, times ``scale``.

    ``buckets`` is the histogram they belong to, where it is one: percentiles come from it. ``per_token``:
    it has an entry a token, not one a request, so it cannot say how many requests met a target.
    """

    total: str
    count: str
    buckets: str | None = None
    scale: float = 1.0
    per_token: bool = False

    @classmethod
    def histogram(cls, name: str, scale: float = 1.0, *, per_token: bool = False) -> Mean:
        """Return the mean of a Prometheus histogram."""
        return cls(f"{name}_sum", f"{name}_count", f"{name}_bucket", scale, per_token)


@dataclass(frozen=True, slots=True)
class Preset:
    """The names of one exporter.

    Attributes:
        frontend: One place sees every request once, from arrival to end; else the pools' instances do,
            each its own part: every request appears in both pools, with OSL 1 in prefill.
        aggregated: There is one pool, whose instances see each request once.
        checked: Against which version its names were checked.
        arrived: Counter of arrivals. Engines have none: arrivals are completions plus the change of
            running and waiting; of running alone in a frontend, where what waits runs too.
        completed: Counter of completions.
        running: Gauge of requests in progress.
        waiting: Gauges of requests that wait, added up where several exist.
        preemptions: Counter of requests that lost their KV memory to others.
        activity: Counters that move whenever the exporter is alive and busy.
        model_label: Carries the model's name; ``model_any_case`` where it may be in lower case.
        namespace_label: Carries ``namespace``, where the preset has one.
    """

    name: str
    checked: str
    completed: tuple[str, ...]
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    isl: tuple[Mean, ...]
    osl: tuple[Mean, ...]
    ttft_ms: tuple[Mean, ...]
    itl_ms: tuple[Mean, ...]
    duration_s: tuple[Mean, ...]
    activity: tuple[str, ...]
    kv_usage: tuple[str, ...] = ()
    prefix_hits: Mean | None = None
    prefix_hit_gauge: tuple[str, ...] = ()
    preemptions: tuple[str, ...] = ()
    arrived: tuple[str, ...] = ()
    frontend: bool = False
    aggregated: bool = False
    model_label: str = "model_name"
    model_any_case: bool = False
    namespace_label: str | None = None

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of instances whose series are read, each with its own."""
        return tuple(dict.fromkeys((self.prompts, self.outputs)))

    @property
    def prompts(self) -> str:
        """The group whose instances see prompts."""
        return "frontend" if self.frontend else "aggregated" if self.aggregated else "prefill"

    @property
    def outputs(self) -> str:
        """The group whose instances see answers."""
        return "frontend" if self.frontend else "aggregated" if self.aggregated else "decode"

    @property
    def in_flight(self) -> tuple[str, ...]:
        """Gauges whose sum is the requests there are; in a frontend what waits is counted as running too."""
        return self.running if self.frontend else (*self.running, *self.waiting)

    def means(self) -> tuple[Mean, ...]:
        """Return every mean it may use."""
        hits = () if self.prefix_hits is None else (self.prefix_hits,)
        return (*self.isl, *self.osl, *self.ttft_ms, *self.itl_ms, *self.duration_s, *hits)

    def counters(self) -> tuple[str, ...]:
        """Return every counter it may use, each once."""
        names = [*self.arrived, *self.completed, *self.activity, *self.preemptions]
        for mean in self.means():
            names += [mean.total, mean.count]
        return tuple(dict.fromkeys(names))

    def gauges(self) -> tuple[str, ...]:
        """Return every gauge it may use."""
        return (*self.running, *self.waiting, *self.kv_usage, *self.prefix_hit_gauge)

    def ratios(self) -> tuple[str, ...]:
        """Return the gauges that are shares: of several ranks of an instance the mean counts, not the sum."""
        return (*self.kv_usage, *self.prefix_hit_gauge)

    def histograms(self) -> tuple[str, ...]:
        """Return the bucket series that percentiles, attainment and the spread of lengths come from."""
        means = (*self.isl, *self.osl, *self.ttft_ms, *self.itl_ms)
        found = [mean.buckets for mean in means if mean.buckets]
        return tuple(dict.fromkeys(found))


def _mean(written: Mapping[str, Any]) -> Mean:
    scale = 1000.0 if written.get("unit") == "s" else 1.0
    per_token = written.get("per_token", False)
    if "histogram" in written:
        return Mean.histogram(written["histogram"], scale, per_token=per_token)
    return Mean(written["total"], written["count"], None, scale, per_token)


def _preset(name: str, written: Mapping[str, Any]) -> Preset:
    fields: dict[str, Any] = {}
    for key, value in written.items():
        if key in {"isl", "osl", "ttft_ms", "itl_ms", "duration_s"}:
            fields[key] = tuple(_mean(one) for one in value)
        elif key == "prefix_hits":
            fields[key] = _mean(value)
        else:
            fields[key] = tuple(value) if isinstance(value, list) else value
    return Preset(name, **fields)


def _presets() -> dict[str, Preset]:
    written = yaml.safe_load(files(__package__).joinpath("presets.yaml").read_text(encoding="utf-8"))
    found = {}
    for name, keys in written.items():
        whole = {**written.get(keys.get("like"), {}), **keys}
        whole.pop("like", None)
        found[name] = _preset(name, whole)
    return found


PRESETS = _presets()


def preset_of(name: str, serving: Serving = "disaggregated") -> Preset:
    """Return a preset, as instances of one pool or of two report by it."""
    return replace(PRESETS[name], aggregated=serving == "aggregated")
