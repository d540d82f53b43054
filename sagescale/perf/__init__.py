"""Performance models: profiles of measured engines and the surfaces the planner and simulator ask."""

from __future__ import annotations

from sagescale.perf.build import ImportOptions, build_profile, profile_from_source, read_sources
from sagescale.perf.decode import DecodeTable
from sagescale.perf.document import profile_to_yaml, read_profile, write_profile
from sagescale.perf.library import DEFAULT_PROFILE, list_profiles, load_profile
from sagescale.perf.model import ProfileModel
from sagescale.perf.profile import (
    DEFAULT_MAX_NUM_SEQS,
    SCHEMA,
    DecodeMeasured,
    DecodeProfile,
    FitError,
    KvTransfer,
    PrefillMeasured,
    PrefillProfile,
    Profile,
    Source,
    SourceFile,
)
from sagescale.perf.protocol import DecodeCapacity, PerfModel

__all__ = [
    "DEFAULT_MAX_NUM_SEQS",
    "DEFAULT_PROFILE",
    "SCHEMA",
    "DecodeCapacity",
    "DecodeMeasured",
    "DecodeProfile",
    "DecodeTable",
    "FitError",
    "ImportOptions",
    "KvTransfer",
    "PerfModel",
    "PrefillMeasured",
    "PrefillProfile",
    "Profile",
    "ProfileModel",
    "Source",
    "SourceFile",
    "build_profile",
    "list_profiles",
    "load_profile",
    "profile_from_source",
    "profile_to_yaml",
    "read_profile",
    "read_sources",
    "write_profile",
]
