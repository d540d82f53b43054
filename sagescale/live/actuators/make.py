"""The actuator a configuration asks for; two of them leave the pools alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.fleet import DISAGGREGATED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.live.actuators.protocol import Actuator, Order, PoolStates
    from sagescale.live.config import LiveConfig


class DryRun:
    """Changes nothing and knows of no pools; the loop never asks it to."""

    target = "nothing (dry run)"

    def states(self) -> PoolStates | None:
        """Not know."""
        return None

    def carry_out(self, order: Order) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class ExportOnly(DryRun):
    """Leaves the acting to an HPA or KEDA that reads ``sagescale_desired_replicas``.

    The loop exports every order's sizes, so that nothing is left to be done here.
    """

    def __init__(self, where: str) -> None:
        self.target = f"desired replicas exported at {where}"


def make_actuator(live: LiveConfig, pools: Sequence[str] = DISAGGREGATED) -> Actuator:
    """Build it, for pools by their names.

    Raises:
        InputError: it cannot be made: a program, secret, function or cluster is missing.
    """
    match live.actuator:
        case "command":
            from sagescale.live.actuators.command import CommandActuator

            return CommandActuator(
                live.actuator_command, live.actuator_state_command, live.actuator_timeout_s, pools
            )
        case "webhook":
            from sagescale.live.actuators.webhook import WebhookActuator

            return WebhookActuator(live, pools)
        case "kubernetes":
            from sagescale.live.actuators.kubernetes import KubernetesActuator

            return KubernetesActuator(live, pools=pools)
        case "callback":
            from sagescale.live.actuators.callback import CallbackActuator, load_callback

            assert live.actuator_callback is not None
            function = load_callback(live.actuator_callback)
            return CallbackActuator(function, live.actuator_timeout_s, live.actuator_callback, pools)
        case "export":
            return ExportOnly(f"{live.exporter_address}:{live.exporter_port}")
        case "none":
            return DryRun()
