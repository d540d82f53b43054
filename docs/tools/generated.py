"""The reference pages, made from the code: command line, configuration, metrics, result document."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import typing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MADE = "<!-- Made by `python docs/refresh.py`; change the code it describes instead. -->\n"
WIDTH = 80


def cli_page() -> str:
    """Return every command's ``--help``."""
    lines = ["# The command line", "", _MADE, "What `sagescale COMMAND --help` prints.", ""]
    for words, text in command_help():
        lines += [
            f"{'#' * min(3, 1 + len(words))} `{' '.join(words)}`",
            "",
            "```text",
            text.rstrip(),
            "```",
            "",
        ]
    return "\n".join(lines)


def command_help() -> Iterator[tuple[list[str], str]]:
    """Yield each command's words and help, groups before their members."""
    for words, context in command_contexts():
        yield words, context.get_help()


def command_contexts() -> Iterator[tuple[list[str], Any]]:
    """Yield each command's words and context."""
    import typer
    from sagescale.cli.app import app

    yield from _walk(typer.main.get_command(app), ["sagescale"], None)


def _walk(command: Any, words: list[str], parent: Any) -> Iterator[tuple[list[str], Any]]:
    settings = {"terminal_width": WIDTH} if parent is None else {}
    context = command.context_class(
        command, info_name=words[-1], parent=parent, **(command.context_settings | settings)
    )
    yield words, context
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk(inner, [*words, name], context)


def configuration_page() -> str:
    """Return the table of every configuration key."""
    from sagescale.declare import declared
    from sagescale.planner.describe import yaml_text

    lines = [
        "# Configuration keys",
        "",
        _MADE,
        "One flat YAML file holds the keys of the first three tables; `--set KEY=VALUE` sets any of them.",
        "`sagescale config init` writes them as a commented file, `config schema` as a JSON schema.",
        "The tables after are of a [fault file](../faults.md).",
        "",
    ]
    for module, name, title in (
        ("sagescale.planner.config", "AutoscalerConfig", "The autoscaler"),
        ("sagescale.sim.config", "SimulatorConfig", "The simulated world"),
        ("sagescale.live.config", "LiveConfig", "Live"),
        ("sagescale.sim.faults", "Faults", "Fault file, beside its `script`"),
        ("sagescale.sim.faults", "Rates", "Fault file: `rates`"),
        ("sagescale.sim.faults", "Crash", "Fault file: `script`, of kind `crash`"),
        ("sagescale.sim.faults", "StartFault", "Fault file: `script`, of starts"),
        ("sagescale.sim.faults", "Outage", "Fault file: `script`, of outages"),
    ):
        cls = getattr(importlib.import_module(module), name)
        rows = [
            (f"`{key.name}`", default, key.unit, key.accepts(), key.doc)
            for key in declared(cls).values()
            if key.part is None  # it has a table of its own
            for default in ["needed" if key.needed else f"`{yaml_text(key.default)}`"]
        ]
        lines += [f"## {title}", "", *_table(("key", "default", "unit", "accepts", "meaning"), rows), ""]
    return "\n".join(lines)


def metrics_page() -> str:
    """Return what sagescale exports, and what it reads of each engine."""
    from sagescale.live.exporter import Exporter
    from sagescale.live.metrics.presets import PRESETS
    from sagescale.planner import AutoscalerConfig

    # The journal is only asked when a tick is recorded.
    registry = Exporter(AutoscalerConfig(), typing.cast("Any", None), dry_run=False).registry
    exported = [
        (
            f"`{collector._name}{'_total' if collector._type == 'counter' else ''}`",
            collector._type,
            ", ".join(f"`{label}`" for label in collector._labelnames),
            collector._documentation,
        )
        for collector in registry._collector_to_names
    ]
    lines = [
        "# Metrics",
        "",
        _MADE,
        "## Exported by `sagescale plan`",
        "",
        "On `exporter_address:exporter_port` (127.0.0.1:9718).",
        "",
        *_table(("metric", "type", "labels", "meaning"), exported),
        "",
        "## Read from engines",
        "",
        "By `metrics_preset`; of several names the first that exists is used. A mean is the increase of",
        "a sum over the increase of a count in the window.",
        "",
    ]
    fields = ("arrived", "completed", "running", "waiting", "isl", "osl", "ttft_ms", "itl_ms", "duration_s")
    for preset in PRESETS.values():
        labels = f"labels `{preset.model_label}`" + (
            f", `{preset.namespace_label}`" if preset.namespace_label else ""
        )
        rows = [
            (name, _names(getattr(preset, name))) for name in (*fields, "kv_usage") if getattr(preset, name)
        ]
        if preset.prefix_hits or preset.prefix_hit_gauge:
            hits = (preset.prefix_hits,) if preset.prefix_hits else preset.prefix_hit_gauge
            rows.append(("prefix_hit_rate", _names(hits)))
        lines += [f"### `{preset.name}` ({labels})", "", f"Checked against: {preset.checked}.", ""]
        lines += [*_table(("field", "metrics"), rows), ""]
    return "\n".join(lines)


def _names(sources: tuple[Any, ...]) -> str:
    return "; ".join(
        f"`{source}`"
        if isinstance(source, str)
        else f"`{source.total}` / `{source.count}`" + (f" × {source.scale:g}" if source.scale != 1 else "")
        for source in sources
    )


def result_page() -> str:
    """Return the keys of the result document, type by type."""
    from sagescale import document

    lines = [
        "# The result document",
        "",
        _MADE,
        f"What `--json` writes, schema version {document.SCHEMA_VERSION}: a `ResultDocument` (`simulate`,",
        "`compare-predictors`) or a `BacktestDocument` (`forecast`). Keys may be added within a version,",
        "never renamed. `POOL` is a pool's name, `prefill` or `decode`: such a key each.",
        '`null` is "not defined", never zero. Times are seconds unless a name says otherwise.',
        "",
    ]
    found = [
        getattr(document, name)
        for name in document.__all__
        if dataclasses.is_dataclass(getattr(document, name))
    ]
    names = {cls.__name__ for cls in found}
    first = ["ResultDocument", "RunDocument", "BacktestDocument"]
    for cls in sorted(
        found, key=lambda cls: (first.index(cls.__name__) if cls.__name__ in first else 9, cls.__name__)
    ):
        rows = [(f"`{_key_words(each)}`", _type_words(each, names)) for each in dataclasses.fields(cls)]
        about = _about(cls)
        lines += [f"## {cls.__name__}", "", about, "", *_table(("key", "type"), rows), ""]
    return "\n".join(lines)


def _about(cls: type) -> str:
    """Return a type's docstring, its attributes as a list."""
    text, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    points = re.sub(r"^ {4}(\w+):", r"* `\1`:", attributes, flags=re.MULTILINE)
    return re.sub(r"``(.+?)``", r"`\1`", text + points.replace("\n        ", "\n  "))


def _key_words(each: dataclasses.Field[object]) -> str:
    """Return a field's key; of a pool's it is the pool's name and a suffix, or its entry's keys."""
    suffix = each.metadata.get("suffix")
    if suffix is None:
        return each.name
    return f"POOL{'_...' if 'Pool' in str(each.type) else suffix}"


def _type_words(each: dataclasses.Field[object], names: set[str]) -> str:
    text, optional = str(each.type), each.default is None
    text = text.removesuffix(" | None") if optional and "with" not in each.metadata else text
    if "suffix" in each.metadata:
        text = text.removeprefix("Mapping[str, ").removesuffix("]")
    for python, word in (
        ("| None", "or null"),
        ("dict[str, Any]", "object"),
        ("str", "text"),
        ("float", "number"),
        ("int", "integer"),
        ("bool", "true or false"),
    ):
        text = re.sub(rf"(?<!\w){re.escape(python)}(?!\w)", word, text)
    text = re.sub(r"list\[(.*)\]", r"list of \1", text)
    text = re.sub(r"dict\[text, (.*)\]", r"object of \1", text)
    text = re.sub(
        r"\w+", lambda word: f"[{word[0]}](#{word[0].lower()})" if word[0] in names else word[0], text
    )
    return text + (" (where it applies)" if optional else "")


def dynamo_table() -> str:
    """Return the table from Dynamo planner's keys to ours."""
    from sagescale.live.dynamo_config import RULES

    rows = [
        (
            ", ".join(f"`{name}`" for name in rule.names),
            ", ".join(f"`{name}`" for name in rule.ours) or "none",
            "" if rule.default is None else f"`{rule.default}`",
            rule.about,
        )
        for rule in RULES
    ]
    return (
        "\n".join(_table(("Dynamo planner", "sagescale", "Dynamo's default, written", "notes"), rows)) + "\n"
    )


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    cells = [heading, tuple("---" for _ in heading), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in cells]


PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/cli.md": cli_page,
    "docs/reference/configuration.md": configuration_page,
    "docs/reference/metrics.md": metrics_page,
    "docs/reference/result.md": result_page,
}
"""Path of a page -> what makes it."""
