"""Help is fast, plain and complete; <TAB> offers names."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sagescale.cli.app import app

MAIN = "import sys; sys.argv[0] = 'sagescale'; from sagescale.cli.app import main; main()"
HEAVY = ("numpy", "pandas", "scipy", "numba", "rich", "statsmodels", "prophet", "plotly", "yaml", "httpx")


def test_help_imports_nothing_heavy():
    code = f"{MAIN.replace('main()', '')}\nimport sys\nsys.argv = ['sagescale', '--help']\n"
    code += "import atexit; atexit.register(lambda: print('LOADED', *sys.modules))\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.partition("LOADED ")[2].split())
    assert loaded & set(HEAVY) == set()
    assert "compare-predictors" in done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sagescale comp", ["compare-predictors"]),
        ("sagescale config im", ["import"]),
        ("sagescale simulate ra", ["ramp"]),
        ("sagescale trace info st", ["steady", "step"]),
        ("sagescale simulate ramp --profile h200-llama-3.1-8b-f", ["h200-llama-3.1-8b-fp8"]),
        ("sagescale simulate ramp --predictor k", ["kalman"]),
        ("sagescale simulate ramp --policy cl", ["classic"]),
        ("sagescale plan --set startup_d", ["startup_delay_s="]),
    ],
)
def test_tab_offers_what_fits(monkeypatch, capsys, typed, offered):
    for shell, settings in (
        ("bash", {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": typed}),
        ("fish", {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ):
        for key, value in {**settings, "_SAGESCALE_COMPLETE": f"complete_{shell}"}.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(SystemExit):
            app(prog_name="sagescale")
        shown = capsys.readouterr().out
        for name in offered:
            assert name in shown, shell
    assert shown.split()[0] == offered[0]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_can_be_printed(shell):
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-c", MAIN, "--show-completion", shell]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "_SAGESCALE_COMPLETE=complete_" + shell in done.stdout
