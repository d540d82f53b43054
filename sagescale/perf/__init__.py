"""Performance models: profiles of measured engines and the surfaces the planner and simulator ask."""

from __future__ import annotations

from sagescale.perf.aggregated import aggregated_engines, estimate_aggregated
from sagescale.perf.build import (
    ImportOptions,
    build_profile,
    profile_from_source,
    read_sources,
    sizing_profile,
)
from sagescale.perf.catalogue import Gpu, ModelShape, find_gpu, find_model
from sagescale.perf.document import (
    DEFAULT_PROFILE,
    list_profiles,
    load_profile,
    profile_to_yaml,
    read_profile,
    write_profile,
)
from sagescale.perf.measurement import Wanted
from sagescale.perf.model import DecodeCapacity, PerfModel, ProfileModel
from sagescale.perf.profile import (
    DEFAULT_MAX_BATCHED_TOKENS,
    DEFAULT_MAX_NUM_SEQS,
    SCHEMA,
    SCHEMA_V2,
    AggregatedMeasured,
    AggregatedProfile,
    DecodeMeasured,
    DecodeProfile,
    FitError,
    KvTransfer,
    PrefillMeasured,
    PrefillProfile,
    Profile,
    Source,
    SourceFile,
    StepError,
)
from sagescale.perf.roofline import Assumptions, estimate_of, estimate_profile
from sagescale.perf.steps import StepModel, compile_steps
from sagescale.perf.surfaces import DecodeTable
from sagescale.perf.validate import Check, Traffic, Verdict, validate_profile

__all__ = [
    "DEFAULT_MAX_BATCHED_TOKENS",
    "DEFAULT_MAX_NUM_SEQS",
    "DEFAULT_PROFILE",
    "SCHEMA",
    "SCHEMA_V2",
    "AggregatedMeasured",
    "AggregatedProfile",
    "Assumptions",
    "Check",
    "DecodeCapacity",
    "DecodeMeasured",
    "DecodeProfile",
    "DecodeTable",
    "FitError",
    "Gpu",
    "ImportOptions",
    "KvTransfer",
    "ModelShape",
    "PerfModel",
    "PrefillMeasured",
    "PrefillProfile",
    "Profile",
    "ProfileModel",
    "Source",
    "SourceFile",
    "StepError",
    "StepModel",
    "Traffic",
    "Verdict",
    "Wanted",
    "aggregated_engines",
    "build_profile",
    "compile_steps",
    "estimate_aggregated",
    "estimate_of",
    "estimate_profile",
    "find_gpu",
    "find_model",
    "list_profiles",
    "load_profile",
    "profile_from_source",
    "profile_to_yaml",
    "read_profile",
    "read_sources",
    "sizing_profile",
    "validate_profile",
    "write_profile",
]
