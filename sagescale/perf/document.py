"""The YAML document of a profile, ``schema: sagescale.profile/v1`` or ``/v2``: read strictly, written stably.

Writing the same profile gives the same bytes; reading what was written gives the same profile. Those that
come with sagescale are known by name.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

import yaml

from sagescale.declare import SETTINGS, Kind, Located, Wording, fill, pairs, shown
from sagescale.errors import InputError, UnknownFormatError, did_you_mean
from sagescale.files import shipped, write_whole
from sagescale.key_file import FLOAT, read_key_tree
from sagescale.perf.checks import AMOUNT, COUNT
from sagescale.perf.profile import SCHEMA, SCHEMA_V2, Profile

DEFAULT_PROFILE = "h200-llama-3.1-8b-fp8"

_WORDING = Wording(
    kinds={
        bool: SETTINGS.kinds[bool],
        int: COUNT,
        float: AMOUNT,
        str: Kind("a string", SETTINGS.kinds[str].read, many="strings"),
    },
    refused="{path}: {value} ({wanted})",
    missing="{path}: missing ({wanted})",
    unknown="{path}: unknown key{wanted}",
    show=shown,
)


def read_profile(path: str | os.PathLike[str]) -> Profile:
    """Read a profile document.

    Raises InputError naming file, line, key, value and what was expected for anything that is not a usable
    profile: bad YAML, a missing, misspelt or doubled key, times that fall under load.
    """
    tree = read_key_tree(Path(path), "a profile document")
    keys = dict(pairs(tree, "document"))
    schema = keys.pop("schema", Located(None, tree.where))
    if schema.value not in (SCHEMA, SCHEMA_V2):
        found = "missing" if schema.value is None else shown(schema.plain)
        message = f"{schema.where}: schema: {found} (expected '{SCHEMA}' or '{SCHEMA_V2}')"
        raise UnknownFormatError(message, path, "a profile document")
    if schema.value == SCHEMA and "aggregated" in keys:
        raise InputError(f"{keys['aggregated'].where}: aggregated: (expected only with schema '{SCHEMA_V2}')")
    transfer = keys.get("kv_transfer")
    if transfer is not None and isinstance(transfer.value, dict):
        # A document whose figures are assumed says so; in Python they are until they are measured.
        given = {"assumed": Located(False, transfer.where), **transfer.value}
        keys["kv_transfer"] = Located(given, transfer.where)
    return fill(Profile, Located(keys, tree.where), wording=_WORDING)


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
        return _shipped_profile(word)
    if Path(word).is_file():
        return read_profile(word)
    raise InputError(
        f"profile '{word}': no such profile (expected one of: {', '.join(names)}; or the path of a YAML "
        f"profile){did_you_mean(word, names)}"
    )


@functools.cache
def _shipped_profile(name: str) -> Profile:
    return read_profile(shipped("profiles") / f"{name}.yaml")


def profile_to_yaml(profile: Profile) -> str:
    """Return the document's text; the same profile always gives the same text."""
    is_v2 = profile.aggregated is not None or bool(profile.decode.spread_ms)
    document = {"schema": SCHEMA_V2 if is_v2 else SCHEMA, **dataclasses.asdict(profile)}
    if profile.aggregated is None:
        del document["aggregated"]
    for pool in (document[name] for name in ("decode", "aggregated") if name in document):
        for key in ("padded_batch_sizes", "spread_requests", "spread_ms"):
            if not pool[key]:
                del pool[key]
    return yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=110
    )


def write_profile(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write the document in one move: the file appears whole or not at all.

    Raises InputError when the folder does not exist or cannot be written.
    """
    write_whole(Path(path), profile_to_yaml(profile).encode())


class _Dumper(yaml.SafeDumper):
    """Lists of numbers on one (wrapped) line, everything else as a block; tuples are lists."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 -- signature
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 -- equal lists are written out, twice
        return True


def _represent_list(dumper: _Dumper, data: list[object] | tuple[object, ...]) -> yaml.Node:
    flow = all(isinstance(item, (int, float)) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


def _represent_float(dumper: _Dumper, data: float) -> yaml.Node:
    # Whole numbers lose their ".0", and exponents get the dot that YAML 1.1 wants (1.0e-08).
    text = repr(data)
    if data.is_integer() and abs(data) < 1e15:
        text = str(int(data))
        return dumper.represent_scalar("tag:yaml.org,2002:int", text)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(tuple, _represent_list)
_Dumper.add_representer(float, _represent_float)
# Text that reads as a number by YAML 1.2 alone, as 1e5 does, is quoted too.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
