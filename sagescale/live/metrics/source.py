"""The metric source a configuration asks for: a reader and an observer, with one way to fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sagescale.errors import SagescaleError
from sagescale.live.metrics.observe import Metrics, Observer, Targets
from sagescale.live.metrics.presets import preset_of
from sagescale.live.metrics.window import Problem

if TYPE_CHECKING:
    from typing import Literal

    from sagescale.live.config import LiveConfig
    from sagescale.live.metrics.presets import Preset
    from sagescale.live.metrics.prometheus import PastWindow
    from sagescale.live.metrics.window import Cadence, RawWindow, WindowReader
    from sagescale.planner import AutoscalerConfig


class Source(Protocol):
    """Where the loop's metrics come from."""

    def describe(self) -> str:
        """Say in a few words what it reads, without secrets."""

    def prime(self) -> None:
        """Get ready for the first window, which begins now."""

    def collect(self, window_s: float, late_s: float = 0.0) -> tuple[Metrics, float]:
        """Return what was measured in the window that ended ``late_s`` ago, and its true length in seconds.

        It does not raise for a source that fails: everything is then unknown, and a problem says why.
        """

    def collect_burst(self, window_s: float, late_s: float = 0.0) -> tuple[Metrics, float]:
        """Do the same for the short window since the last burst check; those of ``collect`` stay whole.

        One too short for the source to have seen anything change in is unknown, and no problem.
        """

    def history(self, window_s: float, windows: int) -> list[PastWindow]:
        """Return the load of past windows, oldest first; none where the source keeps none."""

    def close(self) -> None:
        """Let go of connections."""


class MetricSource:
    """A source made of a reader of raw series and an observer that makes sense of them."""

    def __init__(self, reader: WindowReader, observer: Observer) -> None:
        self.reader = reader
        self.observer = observer

    def describe(self) -> str:
        """Say what is read, under whose names."""
        return f"{self.reader.describe()} ({self.observer.preset.name} names)"

    def prime(self) -> None:
        """Read once where the reader keeps no history."""
        self.reader.prime()

    def collect(self, window_s: float, late_s: float = 0.0) -> tuple[Metrics, float]:
        """Read one window."""
        return self._read("ticks", window_s, late_s)

    def collect_burst(self, window_s: float, late_s: float = 0.0) -> tuple[Metrics, float]:
        """Read one short window."""
        return self._read("bursts", window_s, late_s)

    def _read(self, cadence: Cadence, window_s: float, late_s: float) -> tuple[Metrics, float]:
        try:
            raw = self.reader.read(self.observer.preset, window_s, late_s, cadence)
            if cadence == "bursts" and _too_short(raw, self.observer.preset):
                return Metrics({}, (), {}), raw.window_s
            return self.observer.observe(raw), raw.window_s
        except SagescaleError as error:
            return Metrics({}, (Problem("source_failed", str(error)),), {}), window_s

    def history(self, window_s: float, windows: int) -> list[PastWindow]:
        """Return past windows from a reader that has them.

        Raises:
            SagescaleError: it has them but they cannot be read.
        """
        from sagescale.live.metrics.prometheus import PrometheusReader

        if not isinstance(self.reader, PrometheusReader) or windows < 1:
            return []
        return self.reader.history(self.observer.preset, window_s, windows)

    def close(self) -> None:
        """Close the reader."""
        self.reader.close()


def _too_short(raw: RawWindow, preset: Preset) -> bool:
    """Say whether a source that counts its scrapes has too few of them in a window to tell what grew.

    Two are needed. An instance that appears in the window has its growth extrapolated, which in a short one
    may be far off.
    """
    for group in raw.groups.values():
        if not group.scrapes:
            continue
        now, before = (group.first(kind, preset.running) or {} for kind in (group.now, group.before))
        if max(group.scrapes.values()) < 2 or now.keys() - before.keys():
            return True
    return False


class NoSource:
    """Nothing is configured to read from: everything is unknown, always."""

    def describe(self) -> str:
        """Say so."""
        return "no metric source (prometheus_url and scrape_* are not given)"

    def prime(self) -> None:
        """Do nothing."""

    def collect(self, window_s: float, late_s: float = 0.0) -> tuple[Metrics, float]:
        """Know nothing."""
        del late_s
        return Metrics({}, (Problem("no_source", self.describe()),), {}), window_s

    collect_burst = collect

    def history(self, window_s: float, windows: int) -> list[PastWindow]:
        """Have none."""
        del window_s, windows
        return []

    def close(self) -> None:
        """Do nothing."""


def make_observer(
    live: LiveConfig, first_token: Literal["prefill", "decode"], config: AutoscalerConfig | None
) -> Observer:
    """Build what reads the preset's names; without a configuration attainment is unknown."""
    targets = None if config is None else Targets(config.target_ttft_ms, config.target_itl_ms)
    serving = "disaggregated" if config is None else config.serving
    return Observer(preset_of(live.metrics_preset, serving), first_token, targets)


def make_source(
    live: LiveConfig, first_token: Literal["prefill", "decode"], config: AutoscalerConfig | None = None
) -> Source:
    """Build the source a configuration asks for; Prometheus before direct scraping.

    Raises:
        InputError: a secret or certificate cannot be read.
    """
    observer = make_observer(live, first_token, config)
    if live.prometheus_url is not None:
        from sagescale.live.metrics.prometheus import PrometheusReader

        return MetricSource(PrometheusReader(live), observer)
    if live.scrapes:
        from sagescale.live.metrics.scrape import ScrapeReader

        return MetricSource(ScrapeReader(live, preset=observer.preset), observer)
    return NoSource()
