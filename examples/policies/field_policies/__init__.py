"""How others scale, from their published rules, as sizing policies of sagescale; README.md cites each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError

if TYPE_CHECKING:
    from sagescale.planner import AutoscalerConfig

__all__ = ["check_pools"]


def check_pools(config: AutoscalerConfig) -> None:
    """These rules size a prefill and a decode pool.

    Raises:
        InputError: the configuration has other pools.
    """
    names = [pool.name for pool in config.pools]
    if names != ["prefill", "decode"]:
        raise InputError(
            f"serving is {config.serving!r}: it sizes prefill and decode pools, not {' and '.join(names)}; "
            "use policy reactive or classic"
        )
