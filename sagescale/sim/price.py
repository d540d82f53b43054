"""What an hour of one GPU costs, by GPU type, and what a run costs by that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXPECTED = "expected the price of a GPU-hour, 0 or more, or one by GPU type: h100:2.5,h200:3.2"


@dataclass(frozen=True, slots=True)
class GpuHourPrice:
    """Prices by GPU type in lower case, in any one currency; ``""`` is that of every other type."""

    prices: tuple[tuple[str, float], ...]

    @classmethod
    def parse(cls, value: object) -> GpuHourPrice | None:
        """Read ``2.5``, ``h100:2.5,h200:3.2`` or a mapping from GPU type to price; null is no price.

        Raises:
            ValueError: with what was expected, as one line.
        """
        if value is None or isinstance(value, cls):
            return value
        if isinstance(value, dict):
            return cls(_prices(value))
        if isinstance(value, str) and ":" in value:
            return cls(_prices(dict(part.partition(":")[::2] for part in value.split(","))))
        return cls(_prices({"": value}))

    def of(self, gpu: str) -> float:
        """Return the price of an hour of a GPU.

        Raises:
            InputError: there is none for it.
        """
        prices = dict(self.prices)
        found = prices.get(gpu.lower(), prices.get(""))
        if found is None:
            raise InputError(
                f"gpu_hour_price: has {', '.join(prices)}, and the profile's GPU is {gpu or 'not named'}; "
                f"expected gpu_hour_price={gpu.lower() or 'TYPE'}:PRICE, or one number for all"
            )
        return found

    def __str__(self) -> str:
        return ",".join(f"{gpu}:{price:g}" if gpu else f"{price:g}" for gpu, price in self.prices)


def _prices(given: Mapping[object, object]) -> tuple[tuple[str, float], ...]:
    prices = []
    for gpu, item in given.items():
        price = getattr(item, "plain", item)  # a value from a file remembers its line
        if isinstance(price, bool) or not isinstance(price, int | float | str):
            raise ValueError(_EXPECTED)  # noqa: TRY004  # the protocol of settings.setting(parse=...)
        try:
            number = float(price)
        except ValueError:
            raise ValueError(_EXPECTED) from None
        if not 0.0 <= number < math.inf:
            raise ValueError(_EXPECTED)
        prices.append((str(gpu).strip().lower(), number))
    if not prices:
        raise ValueError(_EXPECTED)
    return tuple(prices)
