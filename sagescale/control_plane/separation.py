"""How prefill and decode are separated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sagescale.declare import check, setting

__all__ = ["PDSeparationConfig"]


@dataclass(frozen=True, slots=True)
class PDSeparationConfig:
    """Separate prefill and decode pools.

    Raises:
        InputError: a value is refused; the message names the key, the value and what is accepted.
    """

    first_token: Literal["prefill", "decode"] = setting(
        "prefill", doc="Which pool streams the first token: where TTFT is measured."
    )

    def __post_init__(self) -> None:
        check(self)
