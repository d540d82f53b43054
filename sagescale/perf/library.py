"""Finding profiles: the shipped ones by name, any other by path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sagescale.errors import InputError, did_you_mean
from sagescale.perf.build import profile_from_source
from sagescale.perf.document import read_profile
from sagescale.resources import shipped

if TYPE_CHECKING:
    from sagescale.perf.profile import Profile

__all__ = ["DEFAULT_PROFILE", "list_profiles", "load_profile", "sizing_profile"]

DEFAULT_PROFILE = "h200-llama-3.1-8b-fp8"


def list_profiles() -> tuple[str, ...]:
    """Return the names of the shipped profiles, sorted."""
    return tuple(sorted(path.stem for path in shipped("profiles").glob("*.yaml")))


def load_profile(name_or_path: str | os.PathLike[str]) -> Profile:
    """Load a shipped profile by name, or any profile document by path.

    A word with a folder separator or a ``.yaml``/``.yml`` ending is a path, any other a name. Raises
    InputError for an unknown name (listing the known ones) or a document that is not a profile.
    """
    word = os.fspath(name_or_path)
    if isinstance(name_or_path, os.PathLike) or os.sep in word or word.endswith((".yaml", ".yml")):
        return read_profile(name_or_path)
    names = list_profiles()
    if word in names:
        return read_profile(shipped("profiles") / f"{word}.yaml")
    if Path(word).is_file():
        return read_profile(word)
    raise InputError(
        f"profile '{word}': no such profile (expected one of: {', '.join(names)}; or the path of a YAML "
        f"profile){did_you_mean(word, names)}"
    )


def sizing_profile(profile: str | None, data: object) -> Profile:
    """Load the profile to size with: one that was named, else measured data, else the default.

    Raises:
        InputError: it cannot be read.
    """
    if profile is None and data is not None:
        return profile_from_source(str(data))
    return load_profile(profile or DEFAULT_PROFILE)
