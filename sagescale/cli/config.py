"""`sagescale config`: write, check and explain configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagescale.cli.examples import epilog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.live.setup import Configured

_ADVISED = {
    "policy": ("slo", "slo sizes for target_attainment of the requests, not for means (docs/slo.md)"),
}
"""What a new file sets: defaults are the guide's, and stay so for whoever follows it."""

config_app = typer.Typer(help="Write, check and explain configuration files.", no_args_is_help=True)

_Profile = Annotated[
    str | None,
    typer.Option(
        help="The profile (name or file) whose GPUs an instance apply; by default the one `simulate` uses."
    ),
]
_Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a key.")]


@config_app.command(epilog=epilog("config init"))
def init(
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output by default.")] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if there is one.")] = False,
) -> None:
    """Write a configuration file with every key, its default and its meaning; it sets policy slo."""
    from sagescale.live.config import configuration_classes
    from sagescale.planner.describe import commented_yaml

    text = commented_yaml(configuration_classes(), _ADVISED)
    if out is None:
        print(text, end="")
    else:
        _write(out, text, force=force)
        print(f"wrote {out}")


@config_app.command(epilog=epilog("config show"))
def show(
    config: Annotated[
        list[Path] | None, typer.Option("--config", help="A configuration file; later ones win.")
    ] = None,
    overrides: _Overrides = None,
    profile: _Profile = None,
) -> None:
    """Print the values in force and where each comes from; the output is itself a configuration file."""
    from sagescale.declare import declared
    from sagescale.planner.describe import resolved_yaml

    found, configurations = _resolve(config or [], overrides or [], profile)
    settings = found.settings
    values = {name: getattr(one, name) for one in configurations for name in declared(type(one))}
    for name in found.unused:
        del values[name]
    origins = {name: settings.where(name) or "default" for name in values}
    for name in found.of_profile:
        origins[name] = settings.where(name) or "the profile"
    if values["history_points"] is not None and origins["history_points"] == "default":
        origins["history_points"] = "prediction_window_size"
    print(resolved_yaml(values, origins), end="")


@config_app.command(epilog=epilog("config validate"))
def validate(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Configuration files, read together; later ones win."),
    ],
    profile: _Profile = None,
) -> None:
    """Check configuration files; a mistake is one line and exit code 2."""
    from sagescale.sim.unused import unused_keys

    found, _ = _resolve(files, [], profile)
    for line in unused_keys(found.config, found.simulator):
        print(f"note: {line}")
    given = len(found.settings.explicit)
    print(f"ok: {given} {'key' if given == 1 else 'keys'} set, the others at their defaults")


@config_app.command(epilog=epilog("config schema"))
def schema() -> None:
    """Print the JSON schema of a configuration file, for editors and other tools."""
    import json

    from sagescale.live.config import configuration_classes
    from sagescale.planner.describe import json_schema

    print(json.dumps(json_schema(configuration_classes()), indent=2))


@config_app.command("import", epilog=epilog("config import"))
def import_config(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="YAML or JSON of Dynamo's planner, bare or in the manifests it is deployed by.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output by default.")] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if there is one.")] = False,
) -> None:
    """Translate a configuration of Dynamo's planner, naming what has no counterpart."""
    from sagescale.live.dynamo_config import import_dynamo_config

    imported = import_dynamo_config(file)
    if out is None:
        print(imported.text, end="")
        return
    _write(out, imported.text, force=force)
    print(f"wrote {out}: {imported.keys} keys")
    for line in imported.left:
        print(f"no counterpart: {line}")


def _resolve(
    files: Sequence[Path], overrides: Sequence[str], profile: str | None
) -> tuple[Configured, list[object]]:
    """Return what was given, resolved, and every configuration built of it."""
    from sagescale.live.config import configuration_classes
    from sagescale.live.setup import resolved
    from sagescale.perf import DEFAULT_PROFILE, load_profile
    from sagescale.planner.loading import load_settings

    types = configuration_classes()
    settings = load_settings(types, files, overrides)
    found = resolved(settings, load_profile(profile or DEFAULT_PROFILE))
    known = {type(one): one for one in (found.config, found.simulator)}
    return found, [known[cls] if cls in known else settings.build(cls) for cls in types]


def _write(path: Path, text: str, *, force: bool) -> None:
    from sagescale.errors import InputError
    from sagescale.files import write_whole

    if path.exists() and not force:
        raise InputError(f"{path}: already there; give another name, or --force to overwrite it")
    write_whole(path, text.encode())
