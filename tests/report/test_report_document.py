"""Result documents as JSON: what is written is read again, from files of before as well, with any pools."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from report_documents import agents, comparison, document, faulty, run, three_pools
from rich.console import Console
from sagescale.api import ComparisonResult
from sagescale.document import ResultDocument, as_keys, from_keys, read_result
from sagescale.errors import InputError
from sagescale.perf import load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.report import print_run
from sagescale.report.comparison import print_comparison
from sagescale.report.comparison_csv import comparison_csv
from sagescale.report.html import render_html
from sagescale.sim import ServiceRun, simulate_fleet
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.result import configuration, result_document, run_document
from sagescale.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def written(made: object) -> Any:
    return json.loads(json.dumps(made, default=as_keys, allow_nan=False))


@pytest.mark.parametrize("made", [document(), comparison(), faulty(), three_pools(), agents()])
def test_every_key_of_a_document_is_read_and_written_again(made: Any) -> None:
    again = written(from_keys(ResultDocument, made))

    def kept(old: Any, new: Any) -> bool:
        """Whether all that was there is there, and nothing beside it but None."""
        if isinstance(old, dict):
            return all(new[key] is None for key in new.keys() - old) and all(
                key in new and kept(old[key], new[key]) for key in old
            )
        if isinstance(old, list):
            return len(old) == len(new) and all(map(kept, old, new))
        return bool(old == new)

    assert kept(made, again)
    assert written(from_keys(ResultDocument, again)) == again


def test_pools_are_known_by_name_however_many_there_are() -> None:
    (read,) = from_keys(ResultDocument, three_pools()).runs
    assert tuple(read.timeline.pools) == ("prefill", "decode", "spare")
    assert read.timeline.pools["spare"].ready == read.timeline.pools["prefill"].ready
    assert read.gpu_hours.pools["spare"] == 0.5
    assert read.scaling.launched == {"prefill": 2, "decode": 6, "spare": 3}


def test_a_document_of_before_surges_faults_and_misses_by_cause_is_read(tmp_path: Path) -> None:
    old = run()
    for key in ("surges", "faults"):
        old.pop(key, None)
    del old["scaling"]["surges"], old["forecast"]["isl"]["coverage_p90"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document(old)))
    (read,) = read_result(path).runs
    assert read.surges is read.faults is read.scaling.surges is read.kind is None
    assert read.forecast.isl.coverage_p90 is None
    assert read.sla.attainment == old["sla"]["attainment"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2, "runs": []}', "[" * 100_000])
def test_what_is_no_result_document_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"other\.json: .*expected"):
        read_result(path)


def keys(part: Any, *at: str | int) -> Iterator[tuple[str | int, ...]]:
    """Every key of a document and of the first of each of its lists, but for those of series."""
    for key, entry in part.items() if isinstance(part, dict) else enumerate(part[:1]):
        yield (*at, key)
        if isinstance(entry, dict | list) and key != "timeline":
            yield from keys(entry, *at, key)


@pytest.mark.parametrize("made", [faulty, comparison, agents])
def test_a_document_without_one_of_its_keys_is_shown_or_refused(made: Any, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    whole = json.dumps(written(made()))
    for *way, last in keys(json.loads(whole)):
        part = old = json.loads(whole)
        for key in way:
            part = part[key]
        del part[last]
        path.write_text(json.dumps(old))
        try:
            read = read_result(path)
        except InputError:
            continue
        if {"comparison", "misses", "faults", "surges"} & set(way):
            render_html(read)
        (print_run if read.comparison is None else print_comparison)(read, Console(file=io.StringIO()))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e308", f"1{'0' * 400}", f"1{'0' * 5000}"])
def test_a_document_with_what_adds_up_to_no_number_is_refused(tmp_path: Path, number: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(
        json.dumps(document(run())).replace('"attainment": ', f'"attainment": {number}, "was": ', 1)
    )
    with pytest.raises(InputError, match=r"is no number of a result; expected at most 1e\+30"):
        read_result(path)


def _series() -> list[tuple[str, str]]:
    made = comparison()["runs"][0]
    replicates = {"gpu_hours": [1.0, 2.0, 3.0], "attainment": [0.9, 0.9, 0.9]}
    return [("timeline", key) for key in made["timeline"]] + [("replicates", key) for key in replicates]


@pytest.mark.parametrize(("part", "key"), _series())
def test_series_of_unequal_lengths_are_refused_by_name(part: str, key: str, tmp_path: Path) -> None:
    made, interval = comparison(), {"mean": 0.9, "half_width": 0.1}
    made["runs"][1]["replicates"] = {
        "gpu_hours": [1.0, 2.0, 3.0],
        "attainment": [0.9, 0.9, 0.9],
        "gpu_hours_interval": interval,
        "attainment_interval": interval,
    }
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(made))
    read_result(path)
    series, whole = made["runs"][1][part], made["runs"][1][part][key]
    for changed in (whole[:-1], [*whole, whole[-1]], []):
        series[key] = changed
        path.write_text(json.dumps(made))
        with pytest.raises(InputError, match=rf"comparison\.json: runs\[1\]\.{part}\..*as many") as refused:
            read_result(path)
        assert f"runs[1].{part}.{key} " in str(refused.value)
        assert {f"{len(changed)}", f"{len(whole)}"} <= set(re.findall(r"\d+", str(refused.value)))


@pytest.mark.parametrize("time_s", [0.0, 60.0, 1e29])
def test_times_that_do_not_ascend_are_refused(time_s: float, tmp_path: Path) -> None:
    made = document(run())
    made["runs"][0]["timeline"]["time_s"][1] = time_s
    path = tmp_path / "run.json"
    path.write_text(json.dumps(made))
    with pytest.raises(
        InputError, match=r"runs\[0\]\.timeline\.time_s\[\d\] is .*expected times that ascend"
    ):
        read_result(path)


def test_a_document_of_another_version_is_refused_with_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "newer.json"
    path.write_text('{"schema_version": 2, "runs": []}')
    with pytest.raises(InputError, match="schema_version is 2; expected 1"):
        read_result(path)


def test_services_simulated_as_one_fleet_make_a_document_and_reports_each() -> None:
    rng = np.random.default_rng(0)
    profile = load_profile("h200-llama-3.1-8b-fp8")
    config = AutoscalerConfig(prefill_gpus_per_instance=1, decode_gpus_per_instance=1, max_gpu_budget=12)
    services = []
    for name, rps in (("chat", 6.0), ("code", 3.0)):
        arrival_s = np.cumsum(rng.exponential(1.0 / rps, int(400 * rps)))
        lengths = rng.integers(100, 400, (2, len(arrival_s))).astype(np.int32)
        trace = Trace.from_arrays(arrival_s - arrival_s[0], *lengths)
        services.append(ServiceRun(trace, profile, config, SimulatorConfig(), name=name))
    runs = simulate_fleet(services, {"gpu": 8})
    for service, ran in zip(services, runs, strict=True):
        keys = configuration(config, service.simulator)
        made = result_document(service.trace, profile, keys, [run_document(ran, service.name)])
        again = from_keys(ResultDocument, written(made))
        assert again == made
        (read,) = again.runs
        assert set(read.gpu_hours.pools) == set(read.initial) == set(read.timeline.pools)
        assert read.gpu_hours.total == pytest.approx(sum(read.gpu_hours.pools.values()))
        assert read.scaling.max_gpus <= 8
        out = io.StringIO()
        print_run(again, Console(width=120, file=out))
        assert f"{read.requests.completed:,} completed" in out.getvalue()
        assert "Decode instances" in render_html(again)


def test_a_third_pool_is_on_the_terminal_as_the_others_are() -> None:
    out = io.StringIO()
    print_run(from_keys(ResultDocument, three_pools()), Console(width=120, file=out))
    for words in (
        "starts at 1 prefill, 2 decode, 1 spare",
        "spare 0.500",
        "launched 2 prefill, 6 decode, 3 spare",
    ):
        assert words in " ".join(out.getvalue().split())


def test_the_table_of_a_comparison_has_a_column_for_each_pool(tmp_path: Path) -> None:
    made = comparison()
    for each in made["runs"]:
        each["gpu_hours"]["spare"] = 0.25
    comparison_csv(tmp_path / "out.csv", from_keys(ResultDocument, made))
    head, first, *_ = (tmp_path / "out.csv").read_text().splitlines()
    assert dict(zip(head.split(","), first.split(","), strict=True))["spare_gpu_hours"] == "0.25"


def test_the_table_of_a_comparison_has_the_pools_of_all_its_runs(tmp_path: Path) -> None:
    for ways in itertools.permutations([("prefill", "decode"), ("aggregated",), ("decode", "spare")]):
        made = comparison()
        for each, pools in zip(made["runs"], ways, strict=False):
            each["gpu_hours"] = {"total": 1.5 * len(pools)} | dict.fromkeys(pools, 1.5)
        made["runs"] = made["runs"][: len(ways)]
        shown = from_keys(ResultDocument, made)
        comparison_csv(tmp_path / "out.csv", shown)
        rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
        pools_of = ["prefill", "decode", "aggregated", "spare"]
        assert [name for name in rows[0] if name.removesuffix("_gpu_hours") in pools_of] == [
            f"{pool}_gpu_hours" for pool in pools_of
        ]
        for row, pools in zip(rows, ways, strict=True):
            found = {pool: row[f"{pool}_gpu_hours"] for pool in pools_of}
            assert found == {pool: "1.5" if pool in pools else "" for pool in pools_of}
        assert [*ComparisonResult(shown).runs.filter(like="_gpu_hours")] == [
            f"{pool}_gpu_hours" for pool in pools_of
        ]


def test_targets_are_those_of_all_runs_or_said_to_differ() -> None:
    made = comparison()
    for target_ms, words in ((None, "with TTFT ≤"), (777.0, "within each run's own targets")):
        if target_ms is not None:
            made["runs"][1]["sla"]["target_ttft_ms"] = target_ms
        out = io.StringIO()
        print_comparison(from_keys(ResultDocument, made), Console(width=120, file=out))
        assert f"of requests {words}" in " ".join(out.getvalue().split())


def test_money_stands_beside_gpu_hours_where_there_is_a_price(tmp_path: Path) -> None:
    plain = from_keys(ResultDocument, comparison())
    priced = from_keys(ResultDocument, {**comparison(), "gpu_hour_price": 2.5})
    for made, columns in ((plain, 0), (priced, 1)):
        path = tmp_path / f"{columns}.csv"
        comparison_csv(path, made)
        header, first = (line.split(",") for line in path.read_text().splitlines()[:2])
        assert header.count("cost") == columns
        assert render_html(made).count('data-key="cost"') == columns
    assert float(first[header.index("cost")]) == pytest.approx(2.5 * float(first[header.index("gpu_hours")]))


def test_a_cause_of_misses_that_helped_is_said_wherever_they_are_shown() -> None:
    made = comparison()
    for each, total in zip(made["runs"], (176, 0), strict=False):
        each["misses"] = {**each["misses"], "total": total, "forecast": -70, "policy": total}
    shown = from_keys(ResultDocument, made)
    for width, share in ((140, "-40%"), (90, "policy 100%")):
        out = io.StringIO()
        print_comparison(shown, Console(width=width, file=out))
        said = " ".join(out.getvalue().split())
        assert share in said
        assert "policy; one below 0 helped" in said
    pages = render_html(shown)
    assert "176 (100 % policy, forecast helped)" in pages
    assert "0 requests: forecasts -70 (helped), startup 50, whole instances 20, policy 0" in pages
    plain = io.StringIO()
    print_comparison(from_keys(ResultDocument, comparison()), Console(width=140, file=plain))
    assert "helped" not in plain.getvalue()
