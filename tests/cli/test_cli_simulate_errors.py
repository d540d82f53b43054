"""``sagescale simulate`` on bad, odd and huge input: one clear line and exit code 2, or an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sagescale.cli.app import main
from sagescale.planner.forecast import predictor_names

if TYPE_CHECKING:
    from collections.abc import Callable

REPO = Path(__file__).resolve().parents[2]
HEADER = "arrival_s,isl,osl\n"
GOOD = HEADER + "".join(f"{second},{100 + second},20\n" for second in range(30))
MAIN = "from sagescale.cli.app import main; main()"
NEEDS_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def sagescale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run the real command, in this process, in a folder of its own that has ``good.csv``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "good.csv").write_text(GOOD)

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["sagescale", *map(str, words)])
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        else:
            code = 0
        captured = capsys.readouterr()
        return Outcome(code or 0, captured.out, captured.err)

    return run


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    lines = outcome.err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["empty"]),
        (HEADER, ["no requests"]),
        ("time,tokens\n1,2\n", ["time,tokens", "arrival_s,isl,osl"]),
        (HEADER + "0,10,5\n1,-5,5\n", ["line 3", "isl", "-5"]),
        (HEADER + "0,10,5\n-1,5,5\n", ["line 3", "arrival_s", "-1"]),
        (HEADER + "0,10,5\nnan,5,5\n", ["line 3", "arrival_s", "nan"]),
        (HEADER + "0,10,5\ninf,5,5\n", ["line 3", "arrival_s", "inf"]),
        (HEADER + "0,10,5\n1,ten,5\n", ["line 3", "isl", "ten"]),
        (HEADER + "0,10,5\n1,2.5,5\n", ["line 3", "isl", "2.5"]),
        (HEADER + "0,10,5\n1,10\n", ["line 3"]),
        ("\x00\x01", ["expected CSV"]),
    ],
)
def test_a_trace_that_is_none_is_refused_by_file_line_column_and_value(sagescale, tmp_path, content, words):
    (tmp_path / "bad.csv").write_text(content)
    refused(sagescale("simulate", "bad.csv", "--json", "out.json"), "bad.csv", *words)
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["missing.csv"], ["missing.csv", "no such file"]),
        (["."], ["directory"]),
        (["good.csv", "--profile", "h200-llama-3.1-8b-fp"], ["did you mean 'h200-llama-3.1-8b-fp8'"]),
        (["good.csv", "--profile", "nothing.yaml"], ["nothing.yaml"]),
        (["good.csv", "--predictor", "arma"], ["load_predictor_type", "arma", "did you mean 'arima'"]),
        (["good.csv", "--policy", "clasic"], ["policy", "clasic", "did you mean 'classic'"]),
        (["good.csv", "--slice", "30"], ["--slice 30", "A:B"]),
        (["good.csv", "--slice", "a:b"], ["--slice a:b"]),
        (["good.csv", "--slice", "20:10"], ["--slice 20:10", "A < B"]),
        (["good.csv", "--slice", "100:200"], ["100", "lasts 29 s"]),
        (["good.csv", "--rate-scale", "0"], ["--rate-scale 0"]),
        (["good.csv", "--rate-scale", "nan"], ["--rate-scale nan"]),
        (["good.csv", "--speedup", "-1"], ["--speedup -1"]),
        (["good.csv", "--tile", "0"], ["--tile 0"]),
        (["good.csv", "--until-s", "-5"], ["until_s", "-5"]),
        (["good.csv", "--json", "."], ["directory"]),
        (["good.csv", "--json", "nowhere/out.json"], ["nowhere", "does not exist"]),
        (["good.csv", "--timeline", "nowhere/out.csv"], ["nowhere", "does not exist"]),
        (["good.csv", "--requests", "nowhere/out.parquet"], ["nowhere", "does not exist"]),
        (["good.csv", "--config", "missing.yaml"], ["missing.yaml"]),
        (["good.csv", "--config", "."], ["directory"]),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(sagescale, words, expected):
    refused(sagescale("simulate", *words), *expected)


@pytest.mark.parametrize(
    "override",
    [
        "adjustment_interval_sec=0",
        "adjustment_interval_sec=-60",
        "target_ttft_ms=nan",
        "target_ttft_ms=1e31",  # what reports refuse
        "load_headroom=1e31",
        "gpu_hour_price=1e10",
        "target_itl_ms=.inf",
        "max_gpu_budget=0",
        "max_gpu_budget=many",
        "max_gpu_budget=1",  # below the minima
        "min_decode_instances=-1",
        "min_prefill_instances=11",  # above the maximum
        "prefill_gpus_per_instance=4",
        "initial_prefill=11",
        "initial_decode=0",
        "startup_delay_s=-1",
        "startup_delay_s=soon",
        "startup_delay_s=uniform:low=9,high=3",
        "metric_outage_s=600:300",
        "request_timeout_s=0",
        "max_batch_tokens=0",
        "max_num_seqs=0",
        "max_kv_tokens=99999999999999999999999",
        "first_token=both",
        "scheduling_policy=fcfs",
        "routing_strategy=random",
        "prefix_hit_rate=1",
        "scrape_delay_s=-1",
        "kv_transfer_latency_ms=1e300",
        "correction_bounds=2,3",
        "load_headroom=0",
    ],
)
def test_a_value_out_of_range_is_refused_by_key_and_value(sagescale, override):
    key, _, value = override.partition("=")
    shown = "300" if key == "metric_outage_s" else "'many'" if value == "many" else ""
    refused(sagescale("simulate", "good.csv", "--set", override), key, shown)


def test_minima_above_the_budget_name_every_key_involved(sagescale):
    outcome = sagescale(
        "simulate", "good.csv", "--set", "min_decode_instances=9", "--set", "max_gpu_budget=8"
    )
    refused(outcome, "max_gpu_budget is 8", "min_decode_instances 9", "min_prefill_instances 1", "10 GPUs")


def test_pools_that_would_fill_memory_are_refused_whichever_of_them_does(sagescale):
    """Every pool has slots for as many instances as the largest, and those of decode lists by request."""
    many = [f"{key}_prefill_instances=1000000" for key in ("min", "max")]
    keys = [word for key in (*many, "max_gpu_budget=2000000000") for word in ("--set", key)]
    outcome = sagescale("simulate", "good.csv", *keys)
    refused(outcome, "1,048,576 instances in a pool", "256 requests each (max_num_seqs)", "at most 4 GB")


def test_gpus_an_instance_that_are_not_the_profiles_name_both(sagescale):
    outcome = sagescale("simulate", "good.csv", "--set", "decode_gpus_per_instance=2")
    refused(outcome, "decode_gpus_per_instance is 2", "the profile's instances have 1")


@pytest.mark.parametrize("override", ["max_gpu_budgte=3", "budget", "=3", ""])
def test_set_wants_a_known_key_and_a_value(sagescale, override):
    hints = {"max_gpu_budgte=3": "did you mean 'max_gpu_budget'"}
    refused(sagescale("simulate", "good.csv", "--set", override), hints.get(override, "key=value"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("max_gpu_budgte: 3\n", ["auto.yaml:1", "max_gpu_budgte", "did you mean 'max_gpu_budget'"]),
        ("max_gpu_budget: 3\nmax_gpu_budget: 4\n", ["auto.yaml:2", "given twice"]),
        ("max_gpu_budget: 0\n", ["auto.yaml:1", "max_gpu_budget is 0"]),
        ("max_gpu_budget: {gpus: 3}\n", ["auto.yaml:1", "max_gpu_budget"]),
        ("planner:\n  max_gpu_budget: 3\n", ["auto.yaml", "planner"]),
        ("- max_gpu_budget\n", ["auto.yaml:1", "key: value"]),
        ("max_gpu_budget: [3\n", ["auto.yaml", "not YAML"]),
        ("target_ttft_ms: .nan\n", ["auto.yaml:1", "target_ttft_ms is nan"]),
        ("load_predictor_type: profet\n", ["auto.yaml:1", "did you mean 'prophet'"]),
        ("min_decode_instances: 40\nmax_decode_instances: 50\n", ["auto.yaml", "41 GPUs"]),
    ],
)
def test_a_bad_configuration_file_is_refused_by_line_and_key(sagescale, tmp_path, content, words):
    (tmp_path / "auto.yaml").write_text(content)
    refused(sagescale("simulate", "good.csv", "--config", "auto.yaml"), *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [1\n", ["engine.yaml:2:"]),
        ("schema: other/v1\n", ["schema", "sagescale.profile/v1"]),
        ("schema: sagescale.profile/v1\nname: x\n", ["engine.yaml"]),
        ("- 1\n", ["engine.yaml"]),
        ("", ["engine.yaml"]),
    ],
)
def test_a_malformed_profile_is_refused(sagescale, tmp_path, content, words):
    (tmp_path / "engine.yaml").write_text(content)
    refused(sagescale("simulate", "good.csv", "--profile", "engine.yaml"), "engine.yaml", *words)


def test_engines_that_validate_calls_unfit_are_warned_about(sagescale, tmp_path):
    rows = [
        {"kind": "prefill", "isl": n, "batch": k, "ms": 10 + 0.02 * n * (1 + 0.3 * (k - 1)) * k}
        for n, k in ((100, 1), (1000, 1), (4000, 1), (1000, 2), (1000, 4))
    ]
    rows += [
        {"kind": "decode", "batch": n, "context": c, "ms": 5 + n / 10} for n in (1, 150) for c in (100, 4000)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    imported = sagescale("profile", "import", "rows.json", "--out", "p.yaml")
    assert sagescale("profile", "validate", "p.yaml").code == 1
    simulated = sagescale("simulate", "good.csv", "--profile", "p.yaml")
    compared = sagescale("compare-predictors", "good.csv", "--profile", "p.yaml", "--policies", "reactive")
    for done in (imported, simulated, compared):
        assert done.code == 0
        warned = " ".join((done.out + done.err).split())
        assert "profile p is unfit: prefill of several prompts, formula against measured: median" in warned
        assert "see `sagescale profile validate`" in warned
    assert "unfit" not in sagescale("simulate", "good.csv").out


def test_more_instances_than_memory_are_refused(sagescale):
    sets = ["load_headroom=1e12", "max_gpu_budget=1000000000", "max_decode_instances=1000000000"]
    words = [word for override in sets for word in ("--set", override)]
    refused(sagescale("simulate", "good.csv", *words), "max_decode_instances", "max_gpu_budget")


def test_a_refusal_leaves_nothing_behind(sagescale, tmp_path):
    (tmp_path / "out.json").write_text("old")
    before = sorted(tmp_path.iterdir())
    outputs = ["--json", "out.json", "--timeline", "t.csv", "--requests", "nowhere/r.parquet"]
    refused(sagescale("simulate", "good.csv", *outputs), "nowhere")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "out.json").read_text() == "old"


@pytest.mark.parametrize(
    "words",
    [
        "simulate good.csv --json good.csv",
        "simulate go*.csv --timeline ./good.csv",
        "simulate link.csv --html=good.csv",
        "simulate good.csv --config keys.yaml --json keys.yaml",
        "simulate good.csv --faults faults.yaml --requests faults.yaml",
        "simulate good.csv --profile own.yaml --json own.yaml",
        "compare-predictors good.csv --csv good.csv",
        "tune good.csv --config keys.yaml --out keys.yaml",
        "forecast good.csv --csv good.csv",
        "trace convert good.csv --out good.csv",
        "trace transform good.csv --out good.csv --speedup 2",
        "report result.json --html result.json",
        "profile calibrate own.yaml --requests good.csv --out own.yaml",
        "profile import own.yaml --out own.yaml",
        "config import keys.yaml --out keys.yaml",
    ],
)
def test_an_input_is_not_written_over(sagescale, tmp_path, words):
    (tmp_path / "link.csv").symlink_to("good.csv")
    (tmp_path / "keys.yaml").write_text("load_headroom: 1.2\n")
    (tmp_path / "faults.yaml").write_text("faults: [{kind: crash, at_s: 5, pool: decode}]\n")
    (tmp_path / "own.yaml").write_bytes((REPO / "profiles" / "h200-llama-3.1-8b-fp8.yaml").read_bytes())
    (tmp_path / "result.json").write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    refused(sagescale(*words.split()), "is to be read, and to be written")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_output_that_is_no_input_is_written_again(sagescale, tmp_path):
    for _ in range(2):
        assert sagescale("simulate", "good.csv", "--json", "out.json").code == 0
    assert sagescale("report", "out.json").code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line(sagescale):
    refused(sagescale("simulate", "good.csv", "--json", "/dev/full"), "/dev/full", "No space left")


def simulated(sagescale: Callable[..., Outcome], tmp_path: Path, *words: object) -> dict:
    """Run to the end, silent on stderr, and return the document."""
    outcome = sagescale("simulate", *words, "--json", tmp_path / "out.json")
    assert (outcome.code, outcome.err) == (0, "")
    return json.loads((tmp_path / "out.json").read_text())


def test_times_out_of_order_are_sorted_and_warned_about(sagescale, tmp_path):
    (tmp_path / "late.csv").write_text(HEADER + "5,100,10\n0,100,10\n3,100,10\n")
    document = simulated(sagescale, tmp_path, "late.csv")
    assert any("out of order" in warning for warning in document["warnings"])
    assert document["runs"][0]["requests"]["completed"] == 3


def test_requests_larger_than_the_kv_memory_are_counted_and_warned_about(sagescale, tmp_path):
    (tmp_path / "large.csv").write_text(HEADER + "0,100,10\n1,4999,2\n2,4998,2\n")
    document = simulated(sagescale, tmp_path, "large.csv", "--set", "max_kv_tokens=5000")
    assert any("KV memory of 5000 tokens" in warning for warning in document["warnings"])
    counts = document["runs"][0]["requests"]
    assert (counts["completed"], counts["unfinished"], counts["rejected"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["0,100,10"], []),
        (["0,100,10"], ["--until-s", "600"]),
        ([f"{20 * i},100,1" for i in range(30)], []),  # OSL 1
        (["0,100,10"] * 300, []),  # at one instant
        (["0,100,10", "2,100,10"], []),  # shorter than an interval
        (["0,1000000,10", "2,100,10"], ["--set", "max_kv_tokens=2000000"]),
        (["0,2147483646,10", "2,100,2147483646"], []),  # rejected, and no memory used for their size
        ([f"{i},100,10" for i in range(30)], ["--set", "max_num_seqs=1"]),
        ([f"{i},100,10" for i in range(30)], ["--set", "max_num_seqs=16384"]),
        ([f"{i},100,10" for i in range(200)], ["--set", "max_gpu_budget=1000000000"]),
        ([f"{i},100,10" for i in range(200)], ["--set", "max_decode_instances=100000"]),
        ([f"{i},100,10" for i in range(30)], ["--set", "adjustment_interval_sec=100000"]),
        ([f"{i},100,10" for i in range(30)], ["--set", "max_batch_tokens=1000000"]),
        (["0,100,10", "3000,100,10"], ["--set", "adjustment_interval_sec=1"]),
        (["0,100,10", "30,100,10"], ["--set", "first_token=decode"]),
        (["0,100,10", "30,100,10"], ["--set", "scrape_delay_s=200", "--until-s", "900"]),
    ],
)
def test_odd_traces_and_huge_limits_are_simulated(sagescale, tmp_path, rows, words):
    (tmp_path / "odd.csv").write_text(HEADER + "\n".join(rows) + "\n")
    run = simulated(sagescale, tmp_path, "odd.csv", *words)["runs"][0]
    counts = run["requests"]
    assert counts["completed"] + counts["rejected"] == counts["arrived"] == len(rows)
    assert run["lower_bound_gpu_hours"] <= run["gpu_hours"]["total"]


@pytest.mark.parametrize("startup_s", [0, 30, 60, 90])
def test_a_pool_at_zero_scales_up_for_work_that_waits(sagescale, tmp_path, startup_s):
    bursts = [f"{start + i},500,20" for start in (0, 1000, 2000) for i in range(60)]
    (tmp_path / "gaps.csv").write_text(HEADER + "\n".join(bursts) + "\n")
    zero = ["--set", "min_prefill_instances=0", "--set", "min_decode_instances=0"]
    words = [*zero, "--set", f"startup_delay_s={startup_s}"]
    run = simulated(sagescale, tmp_path, "gaps.csv", *words)["runs"][0]
    assert run["requests"]["unfinished"] == 0
    assert 0 in run["timeline"]["gpus"]


def test_work_that_can_never_proceed_ends_the_run_and_is_counted(sagescale, tmp_path):
    zero = ["min_prefill_instances=0", "min_decode_instances=0", "initial_decode=0", "no_operation=true"]
    words = [word for override in zero for word in ("--set", override)]
    document = simulated(sagescale, tmp_path, "good.csv", *words)
    assert document["runs"][0]["requests"]["unfinished"] == 30
    assert any("could never be served" in warning for warning in document["warnings"])


@pytest.mark.parametrize("predictor", predictor_names())
def test_every_predictor_runs_on_a_recorded_trace(sagescale, shared, tmp_path, predictor):
    trace = shared / "traces" / "azure_llm_2023_conv.csv"
    words = [trace, "--slice", "0:900", "--rate-scale", "2", "--predictor", predictor]
    run = simulated(sagescale, tmp_path, *words)["runs"][0]
    assert run["predictor"] == predictor
    assert run["requests"]["unfinished"] == 0


def test_the_installed_command_refuses_without_a_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "simulate", "missing.csv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: missing.csv: no such file; expected a request trace\n"


def test_a_reader_that_goes_away_causes_no_traceback(tmp_path):
    (tmp_path / "good.csv").write_text(GOOD)
    command = f'"{sys.executable}" -c "{MAIN}" simulate good.csv --json /dev/stdout | head -c 1'
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("simulate steady --predictor foo", "--predictor: load_predictor_type is 'foo'; expected one of"),
        ("simulate steady --policy clasic", "--policy: policy is 'clasic'; expected one of"),
        ("simulate steady --until-s -3", "--until-s: until_s is -3.0; expected a number >= 0"),
        ("forecast steady --season-s 60", "--season-s 60: expected at least two windows, 120 s"),
        ("forecast steady --window-size 0", "--window-size 0: expected a whole number of windows"),
        ("forecast steady --interval 1e-9", "--interval 1e-09: makes over 1,000,000 windows"),
        ("compare-predictors steady --faults none.yaml", "none.yaml: cannot be read"),
        (
            "compare-predictors steady --backend dask --address here",
            "--address here: expected tcp://HOST:PORT",
        ),
    ],
)
def test_an_option_s_mistake_is_told_by_the_option(sagescale, words, message):
    refused(sagescale(*words.split()), message)


@pytest.mark.parametrize(
    "words",
    ["trace info steady", "config schema", "--help", "simulate --help", "profile list"],
)
def test_a_reader_that_goes_away_is_no_failure(tmp_path, words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", MAIN, *words.split()]
    done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@NEEDS_FULL
@pytest.mark.parametrize(
    ("where", "reason"), [(">/dev/full", "No space left on device"), (">&-", "is closed")]
)
@pytest.mark.parametrize("words", ["trace info steady --json", "--help", "--version", "tune"])
def test_standard_output_that_cannot_be_written_is_one_line(sagescale, tmp_path, words, where, reason):
    shell = ["sh", "-c", f'exec "$@" {where}', "sh", sys.executable, "-c", MAIN, *words.split()]
    done = subprocess.run(shell, cwd=tmp_path, stderr=subprocess.PIPE, check=False, text=True)
    if words == "tune" and "full" in where:
        reason = "TRACE"  # nothing was printed
    refused(Outcome(done.returncode, "", done.stderr), reason)
    assert ("standard output" in done.stderr) != (reason == "TRACE")


@pytest.mark.parametrize("reader", ["gone", pytest.param("full", marks=NEEDS_FULL)])
def test_a_simulation_that_cannot_print_says_so_unless_its_reader_went_away(sagescale, monkeypatch, reader):
    nobody, writer = (
        os.pipe()
        if reader == "gone"
        else (os.open(os.devnull, os.O_RDONLY), os.open("/dev/full", os.O_WRONLY))
    )
    os.close(nobody)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "__stdout__", stream)
        outcome = sagescale("simulate", "good.csv")
        sys.stdout.flush()  # as the interpreter does at its end
    if reader == "full":
        refused(outcome, "standard output: cannot be written: No space left on device")
    else:
        assert (outcome.code, outcome.err) == (0, "")


def test_an_interruption_while_the_command_is_being_imported_is_one_word(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [sys.executable, "-m", "sagescale", "trace", "info", "ramp"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"interrupted\n")
    # Whatever the package itself imports comes before anybody can catch it.
    code = "import sys, sagescale; sys.exit('typing' in sys.modules)"
    assert subprocess.run([sys.executable, "-S", "-c", code], cwd=REPO, check=False).returncode == 0
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"sagescale": "sagescale.__main__:main"}  # what is run with -m as well


@pytest.mark.parametrize("asked", [("--open-loop", "both"), ("--set", "open_loop=true,false")])
def test_both_loops_of_a_trace_without_turns_are_refused(sagescale, asked):
    outcome = sagescale("compare-predictors", "good.csv", *asked)
    refused(outcome, "open_loop", "good.csv", "no turns that wait")
