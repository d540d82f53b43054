"""The page of a result document: whole in itself, safe, and true to the document."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_documents import TICKS, attacked, comparison, document, faulty, run, three_pools
from rich.console import Console
from sagescale.cli.app import app
from sagescale.document import ResultDocument, RunDocument, from_keys
from sagescale.errors import InputError
from sagescale.fleet import PoolCounts, resize
from sagescale.report import print_run
from sagescale.report.facts import latencies
from sagescale.report.html import render_html, write_html
from sagescale.report.html.comparison import pareto_front
from sagescale.report.html.run import run_figure
from sagescale.report.html.run_columns import RunColumns
from typer.testing import CliRunner


class Page(HTMLParser):
    """What a browser would find: scripts, attributes and the words on the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self._inside != "style":
            self.words.append(data)

    @property
    def says(self) -> str:
        return " ".join(" ".join(self.words).split())

    def data(self, name: str) -> Any:
        return next(json.loads(text) for attributes, text in self.scripts if attributes.get("id") == name)


def page(made: Any) -> Page:
    return Page(render_html(from_keys(ResultDocument, made)))


def drawn(made: Any) -> RunColumns:
    """What the first run's panels are drawn from."""
    found = from_keys(ResultDocument, made)
    return RunColumns(found, found.runs[0])


@pytest.mark.parametrize("made", [document(), comparison(), faulty()], ids=["run", "comparison", "faults"])
def test_page_is_one_file_that_loads_nothing(made):
    found = page(made)
    assert not [
        tag for tag, _ in found.elements if tag in {"link", "iframe", "object", "embed", "base", "img"}
    ]
    assert not [attributes for _, attributes in found.elements if "src" in attributes]
    links = [attributes["href"] for tag, attributes in found.elements if tag == "a"]
    assert all(link and link.startswith("#") for link in links)
    assert 4e6 < len(found.text) < 6e6


def test_policy_allows_the_page_s_own_scripts_and_nothing_else():
    found = page(comparison())
    policy = next(
        attributes["content"] or ""
        for tag, attributes in found.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    own = [text for attributes, text in found.scripts if attributes.get("type") is None]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in own]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]


@pytest.mark.parametrize("made", [document(), comparison()], ids=["run", "comparison"])
def test_hostile_text_stays_text(made):
    plain, hostile = page(made), page(attacked(made))
    tags = [tag for tag, _ in hostile.elements]
    assert tags.count("script") == [tag for tag, _ in plain.elements].count("script")
    assert tags.count("img") == 0
    assert not [key for _, attributes in hostile.elements for key in attributes if key.startswith("on")]
    assert "<img src=x onerror" in hostile.says
    # The parser must not have seen the end of a script where an attack says it is.
    assert hostile.data("run-data-0")["clock"]["texts"][0][-1][0].startswith("• </script>")
    assert "<script>window" not in render_html(from_keys(ResultDocument, attacked(made)))


def test_lone_surrogates_of_a_file_name_are_written(tmp_path):
    made = document()
    made["trace"]["path"] = "odd\udcff.csv"
    write_html(tmp_path / "out.html", from_keys(ResultDocument, made))
    assert "odd?.csv" in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_headline_is_the_terminal_s():
    says = page(document()).says
    for words in (
        "▲ 98.00 %",
        "3.00",
        "2.50",
        "of 1.20 GPU-hours",
        "12 unfinished",
        "12 requests never finished",
    ):
        assert words in says


def test_latencies_are_the_terminal_s_in_the_unit_that_suits_them():
    slow = run()
    slow["ttft_ms"] |= {"p99": 104_907.0, "max": 220_172.0}
    made = from_keys(ResultDocument, document(slow))
    out = io.StringIO()
    print_run(made, Console(width=160, file=out))
    page = render_html(made)
    for row in latencies(made.runs[0]):
        assert re.search(
            rf"^(latency )? *{row.name} +{' +'.join(row.values)} +{row.target}$", out.getvalue(), re.MULTILINE
        )
        assert all(f">{value}</td>" in page for value in (*row.values, row.target))
    assert 'dd class="poor">▲ 105 s</dd><dd class="note">target 0.2 s<' in page


def test_a_mean_itl_is_not_held_against_a_target_of_the_longest_gaps():
    strict = run()
    strict["sla"] |= {"itl_statistic": "max", "target_itl_ms": 20.0}
    page = render_html(from_keys(ResultDocument, document(strict)))
    assert 'dd>45.0 ms</dd><dd class="note">largest gap: target 20 ms<' in page
    assert "▲ 45.0" not in page


def test_each_run_has_a_place_for_every_panel():
    found = page(comparison())
    places = [attributes["data-panel"] for tag, attributes in found.elements if tag == "figure"]
    whole = from_keys(ResultDocument, comparison())
    assert places == [
        "comparison",
        *[panel.name for each in whole.runs for panel in run_figure(whole, each).panels],
    ]
    hidden = [attributes for tag, attributes in found.elements if tag == "section" and "hidden" in attributes]
    assert len(hidden) == 5


def test_columns_are_per_second_and_constant_ones_are_one_value():
    columns = page(document()).data("run-data-0")["columns"]
    assert columns["requests"][0] == pytest.approx(20.0)
    assert columns["queued_prefill"] == 0
    assert columns["attainment"][3] is None
    assert columns["t"][:2] == [60_000, 120_000]
    run = drawn(document())
    assert run.bound_gpus == pytest.approx(1.2 / (TICKS / 60), rel=1e-3)
    assert run.budget == 8
    assert run.reasons == [["steady"], ["scale up", "correction at its bound"]]


def test_pools_start_as_they_were_and_launch_what_is_decided():
    run = drawn(document())
    decode = run.pools["decode"]
    assert decode["ready"][0] == 2
    assert len(run.gpus) == TICKS + 1
    # The fourth tick finds 2 and decides 3.
    assert [decode[state][4] for state in ("ready", "starting", "draining")] == [2, 1, 0]
    # The twelfth finds 4 and decides 2.
    assert [decode[state][12] for state in ("ready", "starting", "draining")] == [2, 0, 2]


def test_a_third_pool_has_its_panel_and_its_figures():
    found = page(three_pools())
    assert "Spare instances" in found.says
    assert "starts at 1 prefill, 2 decode, 1 spare" in found.says
    assert "launched 2 prefill, 6 decode, 3 spare" in found.says
    assert "spare 0.500" in found.says
    run = drawn(three_pools())
    assert run.names == ("prefill", "decode", "spare")
    assert run.pools["spare"] == run.pools["prefill"]
    assert run.gpus[0] == 4


def test_a_dry_run_changes_no_pool():
    made = document()
    made["config"]["no_operation"] = True
    assert drawn(made).pools["decode"]["starting"] == [0] * (TICKS + 1)


def test_every_series_of_a_run_is_over_columns_the_page_has():
    found = page(three_pools()).data("run-data-0")
    columns, ticks = found["columns"], len(found["columns"]["t"])
    for panel in found["panels"]:
        for series in panel["series"]:
            if isinstance(series["y"], str):
                values = columns[series["y"]]
                long = len(values) if isinstance(values, list) else ticks
                assert long == ticks + (series["x"] == "edges" and "first" not in series)
    for text in found["clock"]["texts"]:
        assert {column for line in text for column in line[1::2] if column} <= set(columns)


COUNTS = st.integers(0, 50)


@given(st.builds(PoolCounts, COUNTS, COUNTS, COUNTS, COUNTS), COUNTS, st.integers(0, 60))
def test_a_resized_pool_has_its_target_and_loses_no_ready_instance(pool, target, room):
    after = resize(pool, target).applied(pool, room)
    assert after.ready + after.starting + after.waiting == target
    assert after.ready + after.draining == pool.ready + pool.draining
    assert min(after.ready, after.starting, after.draining, after.waiting) >= 0
    assert after.present - pool.present <= room


FIGURES = st.tuples(
    st.sampled_from([1.0, 2.0, 3.0, 4.0]), st.sampled_from([0.9, 0.95, 0.99, 1.0]), st.booleans()
)


@given(st.lists(FIGURES, max_size=12))
def test_front_is_what_no_candidate_beats(figures):
    runs = [
        {
            "sla": {"attainment": met},
            "gpu_hours": {"total": hours},
            "kind": "hindsight" if knows else "candidate",
        }
        for hours, met, knows in figures
    ]
    front = pareto_front([from_keys(RunDocument, run) for run in runs])
    candidates = [place for place, (_, _, knows) in enumerate(figures) if not knows]
    for place in candidates:
        hours, met, _ = figures[place]
        beaten = any(
            figures[other][0] <= hours and figures[other][1] >= met and figures[other][:2] != (hours, met)
            for other in candidates
        )
        same_on_front = any(figures[other][:2] == (hours, met) for other in front)
        assert same_on_front == (not beaten)
    assert [figures[place][0] for place in front] == sorted(figures[place][0] for place in front)


def test_replicates_are_judged_by_their_mean():
    made = comparison()
    made["runs"][1]["replicates"] = {
        "gpu_hours": [2.6, 2.8],
        "attainment": [0.991, 0.993],
        "gpu_hours_interval": {"mean": 2.7, "half_width": 0.13},
        "attainment_interval": {"mean": 0.992, "half_width": 0.0012},
    }
    found = page(made)
    panel = found.data("comparison-data")["panels"][0]
    kalman = next(series for series in panel["series"] if "run-1" in series.get("links", ()))
    assert kalman["x"][kalman["links"].index("run-1")] == 2.7
    assert "2.70 ± 0.13" in found.says
    assert "99.20 % ± 0.12" in found.says


def test_ranking_marks_winner_front_and_what_misses_the_target():
    says = page(comparison()).says
    assert "classic/kalman ★" in says
    assert "classic/constant ◆" in says
    assert "▲ 95.00 %" in says
    assert "clairvoyant/oracle*" in says
    assert "could not be fitted" in says


def test_what_looks_at_no_forecast_has_no_error_of_one():
    made = comparison()
    before = page(made).says.count(" 7.0 % ")
    made["runs"][0]["predictor"] = "none"
    assert page(made).says.count(" 7.0 % ") == before - 1


def test_surges_are_told_and_placed():
    found = page(document())
    assert "1 emergency scale-up between decisions" in found.says
    (burst,) = drawn(document()).bursts
    assert burst.t == 75_000
    assert burst.pools == {"prefill": (1, 2), "decode": (3, 3)}
    assert burst.reasons == ["scale up", "surge"]


def test_faults_are_told_and_placed():
    found = page(faulty())
    assert "1 crash; no metrics for 5 min; 0 requests restarted" in found.says
    assert "▲ 4 of them missed ; 0.100 GPU-hours lost in starts" in found.says
    crash, outage = drawn(faulty()).faults
    assert (crash.t, crash.until, crash.pool) == (400_000, None, "decode")
    assert outage.until == 900_000


def test_documents_without_runs_or_ticks_are_pages_too():
    assert "No run to show." in page({**document(), "runs": []}).says
    made = document()
    made["runs"][0]["timeline"] = {key: [] for key in made["runs"][0]["timeline"]}
    assert page(made).data("run-data-0")["columns"]["t"] == []


def test_a_timeline_of_an_older_version_is_drawn_without_what_it_lacks():
    made = document()
    for key in ("requests_forecast_p90", "ttft_p50_ms", "itl_p50_ms"):
        del made["runs"][0]["timeline"][key]
    assert page(made).data("run-data-0")["columns"]["ttft_p50_ms"] is None


ODD = st.one_of(st.none(), st.floats(), st.sampled_from([10**400, -(10**400), 1e308, 5e-324, -0.0]))


def test_what_adds_up_to_no_number_is_a_gap():
    made = run()
    for state in ("ready", "starting", "waiting"):
        made["timeline"][f"prefill_{state}"][0] = 1e308
    assert page(document(made)).data("run-data-0")["columns"]["prefill_found"][0] is None


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_value_is_too_odd(data):
    made = run()
    for key, column in made["timeline"].items():
        if key != "reasons":
            made["timeline"][key] = [data.draw(ODD) if i < 2 else value for i, value in enumerate(column)]
    for part in ("sla", "gpu_hours", "ttft_ms", "scaling", "requests"):
        made[part] = {key: data.draw(ODD) for key in made[part]}
    made["lower_bound_gpu_hours"] = data.draw(ODD)
    found = page(document(made))
    json.dumps(found.data("run-data-0"), allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_value_of_a_comparison_is_too_odd(data):
    made = comparison()
    for each in made["runs"]:
        for part in ("sla", "gpu_hours", "ttft_ms"):
            each[part] = {key: data.draw(ODD) for key in each[part]}
        each["replicates"] = {
            "gpu_hours": [],
            "attainment": [],
            "gpu_hours_interval": {"mean": data.draw(ODD), "half_width": data.draw(ODD)},
            "attainment_interval": {"mean": data.draw(ODD), "half_width": data.draw(ODD)},
        }
    made["lower_bound_gpu_hours"] = data.draw(ODD)
    made["comparison"]["attainment_asked"] = data.draw(ODD)
    json.dumps(page(made).data("comparison-data"), allow_nan=False)


def test_a_bound_without_end_is_left_out_where_no_run_can_be_placed():
    made = comparison()
    for each in made["runs"]:
        each["gpu_hours"]["total"] = None
    made["lower_bound_gpu_hours"] = 1.7e308
    json.dumps(page(made).data("comparison-data"), allow_nan=False)


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write_html(tmp_path / "missing" / "out.html", from_keys(ResultDocument, document()))


def test_simulate_refuses_a_page_it_could_not_write_before_the_run(tmp_path):
    out = tmp_path / "missing" / "run.html"
    result = CliRunner().invoke(app, ["simulate", "no-such-trace", "--html", str(out)])
    assert isinstance(result.exception, InputError)
    assert "does not exist" in str(result.exception)
