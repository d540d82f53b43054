"""Prefill and decode pools that follow the traffic, on a laptop: no GPU, no Prometheus, under a minute.

    python examples/example_autoscaling.py

The engines are emulated: modelled after a measured H200, they serve a synthetic trace thirty times faster
than real time. To scale your own, write ``create_instance`` and ``remove_instance`` for your platform,
register the engines you have, and leave out ``metrics_collector``: the manager then reads their metric pages.
Or give it a ``MetricsCollector(prometheus_url=...)``.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from typing import TYPE_CHECKING

from sagescale import (
    AutoscalerConfig,
    ControlPlaneManager,
    ExecutionInstance,
    ExecutionInstanceType,
    PDSeparationConfig,
    Request,
)
from sagescale.control_plane.emulated import emulated

if TYPE_CHECKING:
    from sagescale.control_plane.emulated import EmulatedPlatform

PREFILLING, DECODING = ExecutionInstanceType.PREFILLING, ExecutionInstanceType.DECODING


async def run(platform: EmulatedPlatform, minutes: int) -> None:
    """Scale an emulated cluster for some minutes of its own time."""

    def create_instance(kind: ExecutionInstanceType) -> ExecutionInstance:
        """Start an engine, wait until it serves, say where it is."""
        return platform.create_instance(kind)

    def remove_instance(instance: ExecutionInstance) -> ExecutionInstance:
        """Let an engine finish what it is doing, then stop it; say which it was, if not this one."""
        return platform.remove_instance(instance)

    manager = ControlPlaneManager(
        scheduling_policy="adaptive",
        enable_auto_scaling=True,
        autoscaler_config=AutoscalerConfig(
            target_ttft_ms=200.0,
            target_itl_ms=50.0,
            adjustment_interval_sec=60,
            max_gpu_budget=16,
            prefill_gpus_per_instance=1,
            decode_gpus_per_instance=1,
            load_predictor_type="moving_average",
            prediction_window_size=3,
        ),
        enable_pd_separation=True,
        pd_config=PDSeparationConfig(),
        metrics_collector=platform.metrics(),
        create_instance=create_instance,
        remove_instance=remove_instance,
    )
    for instance in platform.instances():
        manager.register_instance(instance)
    await manager.start()
    platform.begin()

    for minute in range(1, minutes + 1):
        await asyncio.sleep(60 / platform.speed)
        kinds = [instance.instance_type for instance in manager.get_instances()]
        factors = manager.get_autoscaler_status()["correction_factors"]
        print(
            f"minute {minute:2d}: prefill {kinds.count(PREFILLING)}, decode {kinds.count(DECODING)}, "
            f"corrections {factors['prefill']:.2f} and {factors['decode']:.2f}"
        )

    # A proxy asks the manager where a request is to go; its place is kept until the block ends.
    request = Request(isl=1200, osl=200)
    async with manager.instance_for(request, PREFILLING) as prefill:
        print(f"prefill it at {prefill.instance_id}")
    async with manager.instance_for(request, DECODING) as decode:
        print(f"decode it at {decode.instance_id}")
    if (decision := manager.last_decision) is not None:
        print(f"why: {'; '.join(reason.text for reason in decision.reasons)}")
    await manager.stop()


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--speed", type=float, default=30.0, help="how much faster than the clock")
    parser.add_argument("--minutes", type=int, default=18, help="how long, in the emulated cluster's time")
    parser.add_argument("--verbose", action="store_true", help="show what the autoscaler logs")
    given = parser.parse_args()
    if given.verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s - %(message)s")
        logging.getLogger("httpx").setLevel(logging.WARNING)
    # 20 requests a second for five minutes, 100 for another five, then none.
    words = ["--slice", "1500:2100", "--rate-scale", "20", "--set", "startup_delay_s=30"]
    with emulated("step", *words, speed=given.speed) as platform:
        asyncio.run(run(platform, given.minutes))


if __name__ == "__main__":
    main()
