"""The root command: registers the others and turns errors into one line and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sagescale.cli.compare import compare_predictors
from sagescale.cli.config import config_app
from sagescale.cli.emulate import emulate
from sagescale.cli.examples import ROOT_EPILOG, epilog
from sagescale.cli.explain import explain
from sagescale.cli.forecast import forecast
from sagescale.cli.other_files import in_words
from sagescale.cli.output import (
    PipedGroup,
    ReaderGoneError,
    StandardOutputError,
    forget_stdout,
    prepare_stdout,
)
from sagescale.cli.plan import plan
from sagescale.cli.profile import profile_app
from sagescale.cli.report import report
from sagescale.cli.simulate import simulate
from sagescale.cli.trace import trace_app
from sagescale.cli.tune import tune
from sagescale.errors import SagescaleError, UnknownFormatError
from sagescale.threads import use_one_thread
from sagescale.version import __version__

app = typer.Typer(
    name="sagescale",
    cls=PipedGroup,
    help="Decide how many prefill and decode instances to run, and try the decision out offline first.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=ROOT_EPILOG,
    rich_markup_mode=None,  # plain help: rich would take longer to import than everything else together
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command(epilog=epilog("simulate"), short_help="Replay a trace under the planner and report.")(simulate)
app.command(
    "compare-predictors",
    epilog=epilog("compare-predictors"),
    short_help="Rank predictors, policies and settings.",
)(compare_predictors)
app.command(epilog=epilog("tune"), short_help="Find the cheapest configuration that holds.")(tune)
app.command(epilog=epilog("report"), short_help="Show a stored result again.")(report)
app.command(epilog=epilog("forecast"), short_help="Back-test predictors on a trace.")(forecast)
app.command(epilog=epilog("plan"), short_help="Scale real pools, or say how (--dry-run).")(plan)
app.command(epilog=epilog("explain"), short_help="Why pools were, or were not, scaled.")(explain)
app.command(epilog=epilog("emulate"), short_help="A pretend cluster in real time.")(emulate)
app.add_typer(trace_app, name="trace", short_help="Look at traces, convert, change, make them.")
app.add_typer(profile_app, name="profile", short_help="What an instance of an engine can do.")
app.add_typer(config_app, name="config", short_help="Write, check, explain configurations.")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sagescale {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr, never a traceback."""
    use_one_thread()
    try:
        prepare_stdout()
        app()
    except SagescaleError as error:
        said = in_words(error) if isinstance(error, UnknownFormatError) else error
        print(f"error: {said}", file=sys.stderr)
        if isinstance(error, StandardOutputError):
            forget_stdout()
        sys.exit(error.exit_code)
    except MemoryError as error:
        what = f" ({error})" if str(error) else ""
        print(f"error: out of memory{what}: take less of the trace, or smaller pools", file=sys.stderr)
        sys.exit(1)
    except ReaderGoneError:
        forget_stdout()  # the reader's going away (head, less) is no error of ours
        sys.exit(0)
