"""The YAML document of a profile, ``schema: sagescale.profile/v1``: read strictly, written stably.

Writing the same profile gives the same bytes; reading what was written gives the same profile.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

from sagescale.errors import InputError
from sagescale.files import read_input_text, write_whole
from sagescale.perf.fields import Fields
from sagescale.perf.profile import (
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
from sagescale.yaml_guard import MAX_YAML_BYTES, compose_yaml

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["profile_to_yaml", "read_profile", "write_profile"]


def read_profile(path: str | os.PathLike[str]) -> Profile:
    """Read a profile document.

    Raises InputError naming file, key, value and what was expected for anything that is not a usable
    profile: bad YAML, a missing, misspelt or doubled key, times that fall under load.
    """
    file = os.fspath(path)
    text = read_input_text(path, "a profile document", MAX_YAML_BYTES)
    return _profile(_parse(text, file), file)


def profile_to_yaml(profile: Profile) -> str:
    """Return the document's text; the same profile always gives the same text."""
    document = {"schema": SCHEMA, **dataclasses.asdict(profile)}
    if not profile.decode.padded_batch_sizes:
        del document["decode"]["padded_batch_sizes"]
    return yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=110
    )


def write_profile(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write the document in one move: the file appears whole or not at all.

    Raises InputError when the folder does not exist or cannot be written.
    """
    write_whole(Path(path), profile_to_yaml(profile).encode())


class _Constructor(SafeConstructor):
    """Safe YAML that refuses a key given twice instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise ConstructorError(None, None, "a key must be a plain name", key_node.start_mark)
            if key in seen:
                raise ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        mapping: dict[Hashable, object] = super().construct_mapping(node, deep=deep)
        return mapping


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


def _parse(text: str, file: str) -> object:
    node = compose_yaml(text, file)
    if node is None:
        return None
    try:
        document: object = _Constructor().construct_document(node)
    except ConstructorError as error:
        mark = error.problem_mark
        where = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{file}{where}: {error.problem} (expected YAML, schema {SCHEMA})") from error
    except ValueError as error:  # a date without a thirteenth month
        raise InputError(f"{file}: {error} (expected YAML, schema {SCHEMA})") from error
    return document


def _profile(document: object, file: str) -> Profile:
    root = Fields(document, file=file)
    schema = root.text("schema")
    if schema != SCHEMA:
        root.fail("schema", schema, f"'{SCHEMA}'")
    values = {
        "name": root.text("name"),
        "model": root.text("model", default=""),
        "gpu": root.text("gpu", default=""),
        "engine": root.text("engine", default=""),
        "engine_version": root.text("engine_version", default=""),
        "precision": root.text("precision", default=""),
    }
    tensor_parallel = root.integer("tensor_parallel", default=1)
    source = _source(root.section_or_none("source"))
    prefill = _prefill(root.section("prefill"))
    decode = _decode(root.section("decode"))
    kv_transfer = _kv_transfer(root.section_or_none("kv_transfer"))
    join_ms = root.number("join_ms_per_1k_tokens", default=0.0)
    notes = root.texts("notes")
    return root.build(
        lambda: Profile(
            **values,
            tensor_parallel=tensor_parallel,
            source=source,
            prefill=prefill,
            decode=decode,
            kv_transfer=kv_transfer,
            join_ms_per_1k_tokens=join_ms,
            notes=notes,
        )
    )


def _source(fields: Fields | None) -> Source:
    if fields is None:
        return Source()
    names = ("title", "description", "licence", "tool", "tool_version", "format", "command")
    values = {name: fields.text(name, default="") for name in names}
    files = tuple(_source_file(item) for item in fields.sections("files"))
    return fields.build(lambda: Source(**values, files=files))


def _source_file(fields: Fields) -> SourceFile:
    path, sha256 = fields.text("path"), fields.text("sha256")
    return fields.build(lambda: SourceFile(path=path, sha256=sha256))


def _fit_error(fields: Fields | None) -> FitError | None:
    if fields is None:
        return None
    n, median, p90, largest = (
        fields.integer("n"),
        fields.number("median"),
        fields.number("p90"),
        fields.number("max"),
    )
    return fields.build(lambda: FitError(n=n, median=median, p90=p90, max=largest))


def _prefill(fields: Fields) -> PrefillProfile:
    gpus = fields.integer("gpus_per_instance")
    isl, ttft = fields.numbers("isl_tokens"), fields.numbers("ttft_ms")
    quadratic, floor = fields.number("quadratic_ms", default=0.0), fields.number_or_null("floor_ms")
    measured = PrefillMeasured()
    rows = fields.section_or_none("measured")
    if rows is not None:
        columns = rows.integers("isl_tokens"), rows.integers("batch"), rows.numbers("ttft_ms")
        measured = rows.build(
            lambda: PrefillMeasured(isl_tokens=columns[0], batch=columns[1], ttft_ms=columns[2])
        )
    error = _fit_error(fields.section_or_none("fit_error"))
    batch_error = _fit_error(fields.section_or_none("batch_error"))
    return fields.build(
        lambda: PrefillProfile(
            gpus_per_instance=gpus,
            isl_tokens=isl,
            ttft_ms=ttft,
            quadratic_ms=quadratic,
            floor_ms=floor,
            measured=measured,
            fit_error=error,
            batch_error=batch_error,
        )
    )


def _decode(fields: Fields) -> DecodeProfile:
    gpus = fields.integer("gpus_per_instance")
    concurrency, contexts = fields.numbers("concurrency"), fields.numbers("context_tokens")
    itl = fields.table("itl_ms")
    slots = fields.integer("max_num_seqs", least=1)
    kv_tokens = fields.integer_or_null("max_kv_tokens")
    padded = fields.integers("padded_batch_sizes", default=())
    assumed = fields.texts("assumed")
    measured = DecodeMeasured()
    rows = fields.section_or_none("measured")
    if rows is not None:
        columns = rows.numbers("concurrency"), rows.numbers("context_tokens"), rows.numbers("itl_ms")
        measured = rows.build(
            lambda: DecodeMeasured(concurrency=columns[0], context_tokens=columns[1], itl_ms=columns[2])
        )
    error = _fit_error(fields.section_or_none("fit_error"))
    return fields.build(
        lambda: DecodeProfile(
            gpus_per_instance=gpus,
            concurrency=concurrency,
            context_tokens=contexts,
            itl_ms=itl,
            max_num_seqs=slots,
            max_kv_tokens=kv_tokens,
            padded_batch_sizes=padded,
            assumed=assumed,
            measured=measured,
            fit_error=error,
        )
    )


def _kv_transfer(fields: Fields | None) -> KvTransfer:
    if fields is None:
        return KvTransfer()
    latency, per_1k = fields.number("latency_ms"), fields.number("ms_per_1k_tokens")
    steps = fields.number("decode_steps", default=0.0)
    blocks, assumed = fields.flag("blocks_prefill", default=False), fields.flag("assumed", default=False)
    return fields.build(
        lambda: KvTransfer(
            latency_ms=latency,
            ms_per_1k_tokens=per_1k,
            decode_steps=steps,
            blocks_prefill=blocks,
            assumed=assumed,
        )
    )
