"""The examples at the end of every command's ``--help``; a test parses each, the reference prints them."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "simulate": (
        ("A shipped trace at twelve times its rate", "ramp --rate-scale 12"),
        (
            "Your trace, engines and limits, and a page of pictures",
            "requests.csv --profile mine.yaml --config auto.yaml --html run.html",
        ),
        (
            "Another predictor, slower starts, a smaller budget",
            "ramp --predictor kalman --set startup_delay_s=180 --set max_gpu_budget=8",
        ),
        (
            "What a crash would cost, and every request's latencies",
            "steady --faults crash.yaml --requests requests.parquet",
        ),
    ),
    "compare-predictors": (
        ("Every predictor", "ramp --rate-scale 12"),
        (
            "Two predictors with every policy, three headrooms, five replicates",
            "ramp --predictors constant,kalman --policies all --set load_headroom=1,1.1,1.2 --seeds 5",
        ),
        ("On a Dask cluster", "requests.csv --backend dask --address tcp://scheduler:8786"),
    ),
    "tune": (
        ("The cheapest that keeps 99 %, as a file for `plan`", "ramp --rate-scale 12 --out tuned.yaml"),
        (
            "99.5 % with your limits, tuned on one day and judged on another",
            "monday.csv --validate tuesday.csv --attainment 0.995 --config auto.yaml --html tuned.html",
        ),
    ),
    "report": (("A stored run in pictures", "run.json --html run.html"),),
    "forecast": (
        ("Every predictor, one minute ahead", "ramp"),
        (
            "Three windows of five minutes ahead, every forecast written down",
            "diurnal-week --interval 300 --horizon 3 --csv forecasts.csv",
        ),
    ),
    "plan": (
        ("What it sees, expects and would do now; touches nothing", "--config auto.yaml --dry-run --once"),
        ("Which metrics there are, and what to fix", "--config auto.yaml --check"),
        ("Scale, one JSON object a tick", "--config auto.yaml --log json"),
    ),
    "explain": (
        ("Why it does not scale up, why so often", "sagescale-journal.sqlite"),
        ("The tick ten minutes before the last", "sagescale-journal.sqlite --at -10m"),
    ),
    "emulate": (
        ("A cluster to point `sagescale plan` at, at 20 x", "ramp --rate-scale 60 --speed 20"),
        (
            "Half an hour of your trace, ending when all is served",
            "requests.csv --slice 0:1800 --speed 60 --exit-when-done",
        ),
    ),
    "trace info": (
        ("What is in a trace", "requests.csv"),
        ("The same for a program", "steady --json"),
    ),
    "trace convert": (
        ("A log of any known format, small and fast to read", "log.jsonl --out log.parquet"),
        ("One whose content fits two formats", "log.jsonl --format mooncake --out log.csv"),
    ),
    "trace transform": (
        ("The second half hour, three times as busy", "ramp --slice 1800: --rate-scale 3 --out busy.parquet"),
    ),
    "trace from-prometheus": (
        (
            "The last week of vLLM engines",
            "--url http://prometheus:9090 --preset vllm --since 7d --out week.parquet",
        ),
        (
            "One model's, of two days that are over",
            (
                "--config live.yaml --set model_name=llama --since 2026-11-20 --until 2026-11-22 "
                "--out two.csv.gz"
            ),
        ),
    ),
    "trace synth": (
        (
            "A week with quiet weekends",
            (
                "--pattern diurnal --duration-s 604800 --rps 2 --weekend-factor 0.5 "
                "--isl lognormal:mean=1024,p99=8000 --osl lognormal:median=150,sigma=1 --out week.parquet"
            ),
        ),
        (
            "Bursts with the lengths of a trace you have",
            (
                "--pattern bursty --duration-s 3600 --rps 5 --cv 4 --isl empirical:log.csv "
                "--osl empirical:log.csv --correlation pairs --out bursts.csv"
            ),
        ),
    ),
    "profile list": (("The profiles that are shipped", ""),),
    "profile show": (
        ("Tables, and what the planner would choose under 20 ms", "h200-llama-3.1-8b-fp8 --target-itl-ms 20"),
        ("The same as a page", "mine.yaml --html mine.html"),
    ),
    "profile import": (
        ("A folder of vLLM benchmark results", "results/ --out mine.yaml"),
        (
            "Prefill from one tool, decode from another",
            "prefill.json decode.json --role prefill --role decode --out mine.yaml",
        ),
        ("One configuration of many", "perf_model.csv --model llama2-70b --gpu a100 --tp 4 --out a100.yaml"),
    ),
    "profile validate": (("Is it measured where this trace needs it?", "mine.yaml --trace requests.csv"),),
    "profile estimate": (
        ("Before anything was measured", "--model Llama-3.1-8B --gpu h200 --precision fp8 --out guess.yaml"),
        (
            "A model that is not in the catalogue",
            (
                "--model mine --gpu h100 --parameters 13 --layers 40 --hidden 5120 --heads 40 "
                "--kv-heads 8 --head-dim 128 --out guess.yaml"
            ),
        ),
    ),
    "profile calibrate": (
        (
            "Fit a profile to requests that were served",
            "mine.yaml --requests served.csv --prefill 2 --decode 3 --out fitted.yaml",
        ),
    ),
    "config init": (("Every key with its meaning", "--out auto.yaml"),),
    "config show": (
        ("What is in force, and where it comes from", "--config auto.yaml --set max_gpu_budget=16"),
    ),
    "config validate": (("Two files read together", "base.yaml site.yaml"),),
    "config schema": (("For an editor", "> sagescale.schema.json"),),
    "config import": (("A Dynamo planner's configuration as ours", "planner.yaml --out auto.yaml"),),
}
"""Command -> (what it is for, the words after the command)."""

ROOT_EPILOG = """\b
First steps:
  sagescale simulate ramp --rate-scale 12      replay a shipped trace
  sagescale COMMAND --help                     what it does, with examples
  sagescale --install-completion               commands and names by <TAB>

\b
Exit codes: 0 done, 1 the run failed, 2 bad usage or input, 130 interrupted."""


def epilog(command: str) -> str:
    """Return a command's examples as the end of its help; click's mark keeps their lines as they are."""
    lines = [
        line
        for about, words in EXAMPLES[command]
        for line in (f"  {about}:", *_folded(f"sagescale {command} {words}"))
    ]
    return "\n".join(["\b", "Examples:", *lines])


def _folded(words: str, width: int = 76) -> list[str]:
    """Fold a command line before its options, so that it can be copied from a terminal."""
    lines = ["    "]
    for part in words.replace(" --", "\n--").split("\n"):
        if len(lines[-1]) + len(part) > width:
            lines[-1] += "\\"
            lines.append("      ")
        lines[-1] += f"{part} "
    return [line.rstrip() for line in lines]
