"""What `from sagescale import ...` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import sagescale

NAMES = [
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
HEAVY = {"numpy", "pandas", "numba", "scipy", "statsmodels", "prophet", "httpx", "yaml", "asyncio"}


def loaded_by(code: str) -> set[str]:
    words = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
    return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


def test_the_public_names_are_these():
    assert sagescale.__all__ == NAMES
    assert set(NAMES) <= set(dir(sagescale))
    for name in NAMES:
        assert getattr(sagescale, name) is not None


def test_every_public_name_is_documented():
    for name in set(NAMES) - {"__version__"}:
        assert getattr(sagescale, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Autoscaler'"):
        _ = sagescale.Autoscaler


def test_importing_sagescale_imports_nothing_heavy():
    assert not HEAVY & loaded_by("import sagescale")


def test_the_manager_imports_no_kernel_and_no_fitted_predictor():
    needed = loaded_by("from sagescale import ControlPlaneManager")
    assert "sagescale.live.loop" in needed
    assert not {"numba", "pandas", "statsmodels", "prophet"} & needed


def test_traces_are_read_and_made_without_the_kernel():
    needed = loaded_by("import sagescale.trace.synth")
    assert "sagescale.trace.readers" in needed
    assert not {"numba", "scipy", "pandas"} & needed


def test_a_planner_starts_without_the_kernel_unless_its_policy_tries_sizes():
    needed = loaded_by(
        "import sagescale.live.run; from sagescale.live.setup import configured; "
        "configured(None, [], ['prometheus_url=http://127.0.0.1:9090'])"
    )
    assert "sagescale.live.loop" in needed
    assert not {"numba", "scipy", "pandas", "statsmodels", "prophet"} & needed
