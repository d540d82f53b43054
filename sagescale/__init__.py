"""sagescale: SLA-driven autoscaling for prefill/decode LLM serving, tried out offline first."""

from __future__ import annotations

from sagescale.version import __version__

TYPE_CHECKING = False  # of typing, whose import takes longer than all else before a command begins
if TYPE_CHECKING:
    from sagescale.api import ComparisonResult, Result, compare, import_profile, read_trace, simulate
    from sagescale.control_plane.instances import (
        ExecutionInstance,
        ExecutionInstanceType,
        PDSeparationConfig,
    )
    from sagescale.control_plane.manager import ControlPlaneManager
    from sagescale.control_plane.metrics import MetricsCollector
    from sagescale.control_plane.router import Request
    from sagescale.errors import InputError, SagescaleError
    from sagescale.fleet import Sizes
    from sagescale.planner.config import AutoscalerConfig
    from sagescale.planner.decision import Decision, Reason, ReasonCode
    from sagescale.planner.planner import AutoscalerStatus

__all__ = [
    "AutoscalerConfig",
    "AutoscalerStatus",
    "ComparisonResult",
    "ControlPlaneManager",
    "Decision",
    "ExecutionInstance",
    "ExecutionInstanceType",
    "InputError",
    "MetricsCollector",
    "PDSeparationConfig",
    "Reason",
    "ReasonCode",
    "Request",
    "Result",
    "SagescaleError",
    "Sizes",
    "__version__",
    "compare",
    "import_profile",
    "read_trace",
    "simulate",
]


_HOMES = {
    "AutoscalerConfig": "planner.config",
    "AutoscalerStatus": "planner.planner",
    "ComparisonResult": "api",
    "ControlPlaneManager": "control_plane.manager",
    "Decision": "planner.decision",
    "ExecutionInstance": "control_plane.instances",
    "ExecutionInstanceType": "control_plane.instances",
    "InputError": "errors",
    "MetricsCollector": "control_plane.metrics",
    "PDSeparationConfig": "control_plane.instances",
    "Reason": "planner.decision",
    "ReasonCode": "planner.decision",
    "Request": "control_plane.router",
    "Result": "api",
    "SagescaleError": "errors",
    "Sizes": "fleet",
    "compare": "api",
    "import_profile": "api",
    "read_trace": "api",
    "simulate": "api",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: the command line needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sagescale' has no attribute '{name}'")
    from importlib import import_module

    value: object = getattr(import_module(f"sagescale.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
