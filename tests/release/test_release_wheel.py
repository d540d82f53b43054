"""Wheel and sdist, built and installed in an empty environment elsewhere: every command works there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from sagescale import __version__

from generated import command_contexts

pytestmark = pytest.mark.release
REPO = Path(__file__).resolve().parents[2]

TRACE = "arrival_s,isl,osl\n" + "".join(f"{second},{100 + 7 * second},20\n" for second in range(600))
PREFILL_MS = {64: 14.0, 1024: 50.0, 8192: 450.0}
DECODE_MS = {(1, 128): 9.0, (1, 8192): 9.6, (64, 128): 12.0, (64, 8192): 40.0}
MEASURED = [
    *({"kind": "prefill", "isl": isl, "batch": 1, "ms": ms} for isl, ms in PREFILL_MS.items()),
    *({"kind": "decode", "batch": n, "context": c, "ms": ms} for (n, c), ms in DECODE_MS.items()),
]

# What each command is tried with, in this order, in one empty folder.
TRIED = (
    """
trace info steady --json
trace convert mine.csv --out mine.parquet
trace transform mine.parquet --rate-scale 2 --out twice.csv
trace synth --pattern steady --duration-s 300 --rps 2 --isl constant:500 --osl constant:50 --out made.csv
profile list
profile show h200-llama-3.1-8b-fp8 --png profile.png --html profile.html
profile import measured.json --out mine.yaml
profile validate h200-llama-3.1-8b-fp8 --trace made.csv
profile estimate --model Llama-3.1-8B --gpu h200 --out guess.yaml
config init --out auto.yaml
config show --config auto.yaml
config validate auto.yaml
config schema
config import dynamo.yaml
simulate mine.csv --profile mine.yaml --html run.html --json run.json --requests served.parquet
report run.json --html again.html
profile calibrate mine.yaml --requests served.parquet --force --out fitted.yaml
forecast mine.csv --predictors all
compare-predictors made.csv --predictors constant,kalman --jobs 2 --html compare.html
tune steady --policies classic --predictors constant --refinements 2 --seeds 1 --jobs 2 --out tuned.yaml
plan --config auto.yaml --set scrape_discovery_url=URL/sd --set metrics_preset=vllm --set time_scale=60 \
--set actuator=webhook --set webhook_url=URL/scale --set webhook_state_url=URL/state --set exporter_port=0 \
--ticks 2
explain sagescale-journal.sqlite
""".replace("\\\n", "")
    .strip()
    .splitlines()
)
EMULATED = "emulate steady --speed 60 --port 0"
"""Runs beside the others; URL above is where it listens."""
REFUSED = "trace from-prometheus --url http://127.0.0.1:9 --since 1h --out rebuilt.parquet"
"""Needs a Prometheus server, and says in one line that there is none."""


@dataclass(frozen=True)
class Installed:
    """An environment with nothing but the wheel and what it depends on."""

    python: Path
    folder: Path

    def sagescale(self, *words: str) -> str:
        return self._ended(words, {0}).stdout

    def refused(self, *words: str) -> str:
        return self._ended(words, {1, 2}).stderr

    def _ended(self, words: tuple[str, ...], codes: set[int]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self._command(words),
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode in codes, (words, done.stdout, done.stderr)
        return done

    def started(self, *words: str) -> subprocess.Popen[str]:
        """One that goes on until it is terminated."""
        return subprocess.Popen(
            self._command(words),
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            text=True,
        )

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [str(self.python.with_name("sagescale")), *words]

    @staticmethod
    def _environment() -> dict[str, str]:
        return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=REPO, check=True)
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    (wheel,) = built.glob("*.whl")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    work = folder / "work"
    work.mkdir()
    (work / "mine.csv").write_text(TRACE)
    (work / "measured.json").write_text(json.dumps(MEASURED))
    (work / "dynamo.yaml").write_text("ttft_ms: 300\nitl_ms: 30\n")
    return Installed(python, work)


@pytest.fixture(scope="module")
def url(installed):
    with installed.started(*EMULATED.split()) as process:
        found = next(re.search(r"http://[\d.:]+", line) for line in process.stdout if "http://" in line)
        yield found[0]
        process.terminate()


def test_every_command_works_from_the_wheel_alone(installed, url):
    leaves = [words for words, at in command_contexts() if not hasattr(at.command, "commands")]
    commands = [" ".join(words[1:]) for words in leaves]
    for command in commands:
        assert "Usage: sagescale" in installed.sagescale(*command.split(), "--help")
        assert any(f"{line} ".startswith(f"{command} ") for line in [*TRIED, EMULATED, REFUSED]), command
    for line in TRIED:
        installed.sagescale(*line.replace("URL", url).split())
    assert installed.refused(*REFUSED.split()).startswith("error: ")
    assert (installed.folder / "compare.html").stat().st_size > 1_000_000


def test_one_version_everywhere(built, installed):
    assert installed.sagescale("--version") == f"sagescale {__version__}\n"
    assert {path.name for path in built.iterdir()} == {
        f"sagescale-{__version__}-py3-none-any.whl",
        f"sagescale-{__version__}.tar.gz",
    }


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"sagescale", f"sagescale-{__version__}.dist-info"}
    for kind, pattern in (("traces", "*.csv"), ("profiles", "*.yaml")):
        shipped = {path.name for path in (REPO / kind).glob(pattern)}
        assert shipped <= {name.split("/")[-1] for name in names if f"_data/{kind}/" in name}
    assert "sagescale/py.typed" in names


def test_the_sdist_builds_the_same_wheel(built, tmp_path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"sagescale-{__version__}"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=source, check=True)
    (first,), (second,) = built.glob("*.whl"), tmp_path.glob("*.whl")
    contents = [
        {item.filename: item.CRC for item in zipfile.ZipFile(wheel).infolist()} for wheel in (first, second)
    ]
    assert contents[0] == contents[1]
    for name in ("docs/README.md", "tests/conftest.py", "CHANGELOG.md", "CONTRIBUTING.md", "README.zh.md"):
        assert (source / name).exists(), name
