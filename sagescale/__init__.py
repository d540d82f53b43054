"""sagescale: SLA-driven autoscaling for prefill/decode LLM serving, tried out offline first."""

__version__ = "0.1.0"
