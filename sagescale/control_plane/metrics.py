"""Where the manager's metrics come from: Prometheus, or the registered instances themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sagescale.declare import declared
from sagescale.errors import InputError, did_you_mean
from sagescale.live.config import LiveConfig
from sagescale.live.metrics.scrape import ScrapeReader
from sagescale.live.metrics.source import MetricSource, Source, make_observer, make_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sagescale.live.metrics.observe import Metrics
    from sagescale.live.metrics.scrape import ScrapeTarget
    from sagescale.planner import AutoscalerConfig


class MetricsCollector:
    """A source of metrics; a manager that is given one reads from it at every adjustment.

    Args:
        prometheus_url: A Prometheus server; without it the metric pages of registered instances are read.
        namespace: Value of the label ``namespace``.
        model_name: Only this model's metrics; ``None`` takes every model's.
        settings: Any other key of the live configuration, e.g. ``metrics_preset="vllm"``.

    Raises:
        InputError: a key is unknown or a value refused.
    """

    def __init__(
        self,
        prometheus_url: str | None = None,
        namespace: str = "sagellm",
        model_name: str | None = None,
        **settings: object,
    ) -> None:
        self.settings: Mapping[str, object] = {
            "prometheus_url": prometheus_url, "namespace": namespace, "model_name": model_name, **settings,
        }  # fmt: skip
        known = declared(LiveConfig)
        for name in self.settings:
            if name not in known:
                raise InputError(f"unknown key '{name}'{did_you_mean(name, known)}")
        self.live = LiveConfig(**self.settings)  # type: ignore[arg-type]  # it checks its values itself

    def collect(self, window_s: float = 60.0) -> Metrics:
        """Read the window that ends now; what could not be read is unknown, and a problem says why.

        Raises:
            InputError: there is no ``prometheus_url``: instances are read by the manager they belong to.
        """
        if not self.live.has_source:
            raise InputError(
                "prometheus_url is not given; registered instances are read by the manager alone"
            )
        source = make_source(self.live, "prefill")
        try:
            return source.collect(window_s)[0]
        finally:
            source.close()

    def source(
        self,
        registered: Callable[[], Iterable[ScrapeTarget]],
        first_token: Literal["prefill", "decode"],
        config: AutoscalerConfig | None = None,
    ) -> Source:
        """Return what the loop reads from: registered instances, unless another source is configured."""
        if self.live.has_source:
            return make_source(self.live, first_token, config)
        observer = make_observer(self.live, first_token, config)
        return MetricSource(ScrapeReader(self.live, registered), observer)
