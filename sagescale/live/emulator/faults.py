"""What can be made wrong with the emulated metrics, to see what a planner makes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sagescale.declare import Located, declared, fill, setting
from sagescale.errors import InputError

__all__ = ["FAULTS", "Fault", "spoil"]

FAULTS = ("none", "error", "slow", "frozen", "nan", "half", "reset", "ranks", "double", "crash", "miss")
ONE = frozenset({"crash", "miss"})
"""What happens to one instance."""

ONCE = ONE | {"reset"}
"""What happens once, and leaves the fault in force as it is."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault by name.

    ``error`` answers 500, ``slow`` comes ``value`` seconds late, ``frozen`` repeats one page,
    ``nan`` has no numbers, ``half`` leaves out every other instance; ``ranks`` starts
    every engine anew with ``value`` data-parallel ranks, each with series of its own under the label
    ``engine``, and anew without them when it ends; ``double`` lists
    every instance a second time, under the job ``ROLE-again``.

    ``reset`` has every instance count again from nothing, once. Two happen to one ``instance``, once:
    ``crash`` loses it with its page and its counts, while discovery lists it for ``value`` more seconds of
    the trace and its requests are routed again; ``miss`` does not answer the next time its page is read.
    """

    kind: str = setting("none", doc="What is made wrong.", choices=FAULTS, needed=True)
    value: float = setting(0.0, doc="By how much, as the kind has it.", at_least=0, at_most=600)
    instance: str = setting("", doc="To which instance, by name, like decode-3.")

    @classmethod
    def parse(cls, document: object) -> Fault:
        """Read ``{"kind": K, "value": V, "instance": I}``.

        Raises:
            InputError: it is something else.
        """
        given = document if isinstance(document, dict) else {"kind": document}
        known = {name: Located(given[name], "fault") for name in declared(cls) if name in given}
        fault = fill(cls, Located(known, "fault"))
        if bool(fault.instance) != (fault.kind in ONE):
            raise InputError(
                f"fault: instance is {fault.instance[:40]!r}; expected the name of one, like decode-3, with "
                f"{' and '.join(sorted(ONE))}, and none with other faults"
            )
        if fault.kind == "ranks" and fault.value not in range(2, 65):
            raise InputError(f"fault: value is {fault.value:g}; expected 2 to 64 ranks")
        return fault


def spoil(fault: Fault, page: str) -> str:
    """Return a metric page as a fault leaves it."""
    if fault.kind == "slow":
        time.sleep(fault.value)
    if fault.kind == "nan":
        return "\n".join(
            line if line.startswith("#") or not line else f"{line.rpartition(' ')[0]} NaN"
            for line in page.split("\n")
        )
    return page
