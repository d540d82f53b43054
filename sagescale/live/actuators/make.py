"""The actuator a configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.live.actuators.nobody import ExportOnly, Nobody

if TYPE_CHECKING:
    from sagescale.live.actuators.protocol import Actuator
    from sagescale.live.config import LiveConfig

__all__ = ["make_actuator"]


def make_actuator(live: LiveConfig) -> Actuator:
    """Build it.

    Raises:
        InputError: it cannot be made: a program, secret, function or cluster is missing.
    """
    match live.actuator:
        case "command":
            from sagescale.live.actuators.command import CommandActuator

            return CommandActuator(
                live.actuator_command, live.actuator_state_command, live.actuator_timeout_s
            )
        case "webhook":
            from sagescale.live.actuators.webhook import WebhookActuator

            return WebhookActuator(live)
        case "kubernetes":
            from sagescale.live.actuators.kubernetes import KubernetesActuator

            return KubernetesActuator(live)
        case "callback":
            from sagescale.live.actuators.callback import CallbackActuator, load_callback

            assert live.actuator_callback is not None
            function = load_callback(live.actuator_callback)
            return CallbackActuator(function, live.actuator_timeout_s, live.actuator_callback)
        case "export":
            return ExportOnly(f"{live.exporter_address}:{live.exporter_port}")
        case "none":
            return Nobody()
