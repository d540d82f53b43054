"""Who scales an aggregated pool with the fewest GPU-hours: slo as it comes, others with a knob set before.

    python benchmarks/aggregated_policies.py [TRACE] [--rate-scale X] [--profile NAME]

The knob of classic, reactive and static (load_headroom, reactive_decode_usage, the size) is the cheapest of a
grid that reaches 99 % on what arrives in the first 40 % of the trace; all are judged on what arrives later in
the same run. A static size is ready at the start; others begin with what the simulator sizes.
"""

from __future__ import annotations

import argparse
import math

from sagescale import api
from sagescale.planner.policy import default_predictor
from sagescale.sim.part import Part, PartResult, measure_part
from sagescale.trace import TransformSpec

ASKED, FIRST_SHARE = 0.99, 0.4
GRIDS = {
    "classic": ("load_headroom", (1.0, 1.3, 1.6, 2.0, 2.3, 2.6, 3.0, 3.4, 4.0)),
    "reactive": ("reactive_decode_usage", (0.5, 0.3, 0.2, 0.14, 0.1, 0.07, 0.05, 0.035, 0.025)),
}


class Field:
    """Policies on one trace and engine."""

    def __init__(self, trace: str, rate_scale: float, profile: str) -> None:
        self._trace, self._profile = api.read_trace(trace), profile
        self._transforms = TransformSpec(rate_scale=rate_scale)
        self._split_s = FIRST_SHARE * self._trace.duration_s
        most = max(20, 5 * math.ceil(rate_scale))
        self._keys = {"serving": "aggregated", "max_instances": most, "max_gpu_budget": most}
        self.most = most

    def run(self, policy: str, **knob: float) -> tuple[PartResult, PartResult]:
        """The first part and the rest."""
        predictor = default_predictor(policy) or "constant"
        keys = {**self._keys, "policy": policy, "load_predictor_type": predictor, **knob}
        run = api.simulate(self._trace, profile=self._profile, config=keys, transforms=self._transforms).run
        return measure_part(run, Part(0.0, self._split_s)), measure_part(run, Part(self._split_s))

    def static(self) -> tuple[int, PartResult]:
        """The smallest size that holds the first part, and the rest with it."""
        low, high = 1, self.most
        while low < high:
            size = (low + high) // 2
            if self.run("static", initial_instances=size)[0].attainment >= ASKED:
                high = size
            else:
                low = size + 1
        return low, self.run("static", initial_instances=low)[1]

    def knobbed(self, policy: str) -> tuple[str, PartResult]:
        """The first of a grid, from cheap to dear, that holds the first part (else the last)."""
        key, grid = GRIDS[policy]
        for value in grid:
            first, rest = self.run(policy, **{key: value})
            if first.attainment >= ASKED:
                break
        return f"{key}={value:g}", rest


def arguments(doc: str) -> argparse.Namespace:
    """Read a trace, how many times over, and a profile from the command line."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("trace", nargs="?", default="../shared/traces/azure_llm_2023_conv.csv")
    parser.add_argument("--rate-scale", type=float, default=20.0)
    parser.add_argument("--profile", default="h100-llama-3.1-8b-bf16-agg")
    return parser.parse_args()


def main() -> None:
    """Print a row a policy."""
    given = arguments(__doc__)
    field = Field(given.trace, given.rate_scale, given.profile)
    row("slo", "", field.run("slo")[1])
    for policy in GRIDS:
        row(policy, *field.knobbed(policy))
    size, rest = field.static()
    row("static", f"{size} instances", rest)


def row(policy: str, knob: str, rest: PartResult) -> None:
    """Print what the rest of the trace made of a policy."""
    holds = "" if rest.attainment >= ASKED else "  below 99 %"
    print(f"{policy:9} {knob:28} {rest.attainment:8.2%} {rest.gpu_hours:8.2f} GPU-hours{holds}", flush=True)


if __name__ == "__main__":
    main()
