"""A Python function of the operator's own (the guide's "callback mechanism")."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sagescale.errors import InputError
from sagescale.fleet import DISAGGREGATED
from sagescale.live.actuators.in_time import TimedCalls
from sagescale.live.actuators.protocol import ActuatorError, pool_states

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sagescale.live.actuators.protocol import Order, PoolStates


def load_callback(path: str) -> Callable[..., Any]:
    """Import ``package.module:function``.

    Raises:
        InputError: there is no such function.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise InputError(f"actuator_callback is '{path}'; expected package.module:function")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # noqa: BLE001  # importing runs anybody's code
        raise InputError(
            f"actuator_callback: {path} cannot be imported: {type(error).__name__}: {error}"
        ) from None
    if not callable(function):
        raise InputError(f"actuator_callback: {path} is no function")
    return function  # type: ignore[no-any-return]  # any callable


class CallbackActuator:
    """Calls ``function(order)`` with the order in plain types; whatever it raises is a failure.

    If the function has an attribute ``states``, that is called for the pools' state and returns what a
    state command would print. A call that does not return in time is left to itself, as a thread cannot be
    stopped; no more than a few may be left so.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        timeout_s: float,
        name: str = "callback",
        pools: Sequence[str] = DISAGGREGATED,
    ) -> None:
        self._function = function
        self._pools = pools
        self.target = f"callback {name}"
        self._calls = TimedCalls(self.target, timeout_s)

    def states(self) -> PoolStates | None:
        """Ask the function's ``states``, where it has one."""
        ask = getattr(self._function, "states", None)
        return None if ask is None else pool_states(self._call(ask), self.target, self._pools)

    def carry_out(self, order: Order) -> None:
        """Call the function."""
        self._call(self._function, order.to_dict())

    def close(self) -> None:
        """Do nothing: the threads of calls that never returned end with the process."""

    def _call(self, function: Callable[..., Any], *given: object) -> object:
        try:
            return self._calls.call(function, *given)
        except ActuatorError:
            raise
        except Exception as error:
            raise ActuatorError(f"{self.target}: {type(error).__name__}: {error}") from error
