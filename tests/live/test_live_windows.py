"""Windows with an end that was not read, and instances read twice: unknown, and never one window's load."""

from __future__ import annotations

import contextlib
import json
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_processes import prometheus_of_the_past
from live_world import ToyPools, VirtualClock
from sagescale.live.config import LiveConfig
from sagescale.live.doctor import check
from sagescale.live.http import HttpError
from sagescale.live.metrics.observe import Observer
from sagescale.live.metrics.presets import PRESETS
from sagescale.live.metrics.reporters import Reporters
from sagescale.live.metrics.scrape import ScrapeReader
from sagescale.live.metrics.source import MetricSource, make_source

VLLM = PRESETS["vllm"]
UNKNOWN = {"prefill": None, "decode": None}


def codes(metrics):
    return {problem.code for problem in metrics.problems}


# --- direct scraping --------------------------------------------------------------------------------


def page(done, running=2.0, began_s=None):
    lines = [
        f'vllm:request_success_total{{model_name="m"}} {done}',
        f'vllm:num_requests_running{{model_name="m"}} {running}',
        'vllm:num_requests_waiting{model_name="m"} 0',
        f'vllm:request_prompt_tokens_sum{{model_name="m"}} {done * 100}',
        f'vllm:request_prompt_tokens_count{{model_name="m"}} {done}',
        f'vllm:request_prompt_tokens_bucket{{model_name="m",le="+Inf"}} {done}',
    ]
    return "\n".join(lines + ([] if began_s is None else [f"process_start_time_seconds {began_s}"])) + "\n"


class Engines:
    """Prefill engines with what they have completed, and an idle one in decode."""

    def __init__(self, *done, discovered=False):
        names = [f"p{number}" for number in range(len(done))]
        self.done = dict(zip(names, map(float, done), strict=True))
        self.silent, self.pages = set(), {}
        keys = (
            {"scrape_discovery_url": "http://list/sd"}
            if discovered
            else {"scrape_prefill": [f"http://{name}/metrics" for name in names],
                  "scrape_decode": ["http://d0/metrics"]}
        )  # fmt: skip
        reader = ScrapeReader(LiveConfig(metrics_preset="vllm", **keys))
        reader._http = SimpleNamespace(get=self.get)
        self.source = MetricSource(reader, Observer(VLLM))
        self.reporters = Reporters(120.0)
        self.at_s = 0.0

    def get(self, url, timeout_s):
        name = url.removeprefix("http://").partition("/")[0]
        if name == "list":
            found = [(one, "decode" if one == "d0" else "prefill") for one in (*self.done, "d0")]
            return SimpleNamespace(
                body=json.dumps([{"targets": [one], "labels": {"job": job}} for one, job in found]).encode()
            )
        if name in self.silent:
            raise HttpError(f"{name} does not answer")
        text = self.pages.get(name) or (page(self.done[name]) if name in self.done else page(0, 0))
        return SimpleNamespace(body=text.encode())

    def grow(self, by=100.0):
        for name in self.done:
            self.done[name] += by

    def collect(self, how="collect"):
        metrics, _ = getattr(self.source, how)(60.0)
        self.at_s += 60.0
        return self.reporters.judge(metrics, UNKNOWN, self.at_s) if how == "collect" else metrics


@contextlib.contextmanager
def engines(*done, **keys):
    made = Engines(*done, **keys)
    try:
        yield made
    finally:
        made.source.close()


def unread(made):
    made.silent = {"p0"}


def without_series(made):
    made.pages["p0"] = "# nothing yet\n"


def without_counters(made):
    made.pages["p0"] = 'vllm:num_requests_running{model_name="m"} 2\n'


def no_number(made):
    made.pages["p0"] = page("NaN")


FAULTS = [unread, without_series, without_counters, no_number]


@pytest.mark.parametrize("how", ["collect", "collect_burst"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("primed", [True, False])
def test_a_read_that_is_missed_is_never_a_lifetime_in_one_window(fault, primed, how):
    with engines(1_000_000, 5000) as made:
        if primed:
            made.source.prime()
            made.grow()
            made.collect(how)
        fault(made)
        made.grow()
        made.source.prime() if not primed else made.collect(how)
        made.silent, made.pages = set(), {}
        made.grow()
        metrics = made.collect(how)
        assert not metrics.usable
        assert "window_incomplete" in codes(metrics)
        assert metrics.values["isl_mean"] is None, "nor do its lengths and times reach anybody"
        made.grow()
        metrics = made.collect(how)
        assert metrics.values["requests"] == 200.0
        assert not metrics.problems


@pytest.mark.parametrize("how", ["collect", "collect_burst"])
def test_what_a_page_that_stood_still_had_not_shown_is_not_one_windows_load(how):
    def show(done, cpu_s):
        made.pages["p0"] = page(done) + f"process_cpu_seconds_total {cpu_s}\n"

    with engines(0, 0) as made:
        show(0, 1.0)
        made.source.prime()
        for done, cpu_s in ((100, 2.0), (100, 2.0), (100, 2.0)):
            made.grow()
            show(done, cpu_s)
            metrics = made.collect(how)
        assert "frozen" in codes(metrics)
        made.grow()
        show(400, 5.0)
        metrics = made.collect(how)
        assert not metrics.usable
        assert "window_incomplete" in codes(metrics)
        made.grow()
        show(500, 6.0)
        metrics = made.collect(how)
        assert metrics.values["requests"] == 200.0
        assert not metrics.problems


def test_after_nobody_could_be_read_the_next_window_is_unknown_too():
    with engines(500, 500) as made:
        made.source.prime()
        made.silent = {"p0", "p1", "d0"}
        made.grow()
        assert codes(made.collect()) == {"source_failed"}
        made.silent = set()
        made.grow()
        assert "window_incomplete" in codes(made.collect())
        made.grow()
        assert made.collect().values["requests"] == 200.0


def test_a_new_instance_that_discovery_lists_counts_from_zero_and_one_with_a_past_does_not():
    with engines(1_000_000, discovered=True) as made:
        made.source.prime()
        made.grow()
        made.done["new"] = 60.0
        assert made.collect().values["requests"] == 100.0 + 60.0 + 2.0
        made.grow()
        made.done["old"] = 4000.0
        assert "window_incomplete" in codes(made.collect())
        made.grow()
        assert made.collect().values["requests"] == 300.0


def test_a_process_that_began_in_the_window_counts_from_zero_wherever_it_is_listed():
    with engines(1000, 0) as made:
        made.silent = {"p1"}
        made.source.prime()
        made.silent = set()
        made.grow()
        made.pages["p1"] = page(300, began_s=time.time() + 1)
        assert made.collect().values["requests"] == 100.0 + 300.0 + 2.0


def test_an_instance_listed_twice_is_read_once():
    live = LiveConfig(
        metrics_preset="vllm", scrape_prefill=["http://p0/metrics"] * 2, scrape_decode=["http://d0/metrics"]
    )
    reader = ScrapeReader(live)
    assert [target.url for target in reader._targets(VLLM, 0.0)] == [
        "http://p0/metrics",
        "http://d0/metrics",
    ]
    reader.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sets(st.integers(0, 4), max_size=2),  # whose read is missed
            st.sampled_from(["", "", "up", "down"]),
            st.integers(100, 140),
        ),
        min_size=3,
        max_size=12,
    )
)
def test_whatever_is_missed_added_and_removed_a_load_that_is_known_is_true(story):
    with engines(1_000_000, 3000, 70_000, discovered=True) as made:
        made.source.prime()
        made.grow()
        made.collect()
        reads = 3
        for missed, change, grown in story:
            if change == "down" and len(made.done) > 1:
                made.done.pop(next(iter(made.done)))
            true = grown * len(made.done)
            made.grow(grown)
            if change == "up":
                reads += 1
                made.done[f"p{reads}"] = grown / 2
                true += grown / 2 + 2.0
            # One that has just begun and is not read yet is not known of.
            made.silent = {name for at, name in enumerate(made.done) if at in missed} - {f"p{reads}"}
            metrics = made.collect()
            if metrics.usable:
                assert metrics.values["requests"] == pytest.approx(true)
        # And two whole windows later it is known again.
        made.silent = set()
        for _ in range(2):
            made.grow()
            metrics = made.collect()
        assert metrics.values["requests"] == 100.0 * len(made.done)


# --- a real Prometheus server, its past made up --------------------------------------------------------

WINDOW_S = 60.0
SCRAPE_S = 15.0
ENDS_S = (600.0, 660.0, 720.0, 780.0)
"""Of four windows, from the beginning of the made-up past on."""


class Past:
    """What Prometheus has scraped of engines that complete ten requests a second."""

    def __init__(self, start_s):
        self.start_s = start_s
        self.lines = {}

    def put(self, name, labels, at_s, value):
        written = ",".join(f'{key}="{text}"' for key, text in labels.items())
        self.lines.setdefault(name, []).append(f"{name}{{{written}}} {value} {self.start_s + at_s:.3f}")

    def scrape(self, job, instance, *, read=lambda at_s: True, since_s=0.0, until_s=1000.0, shift_s=0.0,
               past=0.0, ranks=1, every_s=SCRAPE_S, still=(0.0, 0.0), **labels):  # fmt: skip
        """Scrape an engine of a pool whenever ``read`` says so.

        ``past`` is what it has completed before; while ``still`` its page stays as it is.
        """
        for step in range(int((until_s - since_s) / every_s)):
            at_s = since_s + 1.0 + shift_s + step * every_s
            if (up := read(at_s)) is None:
                continue
            self.put("up", {"job": job, "instance": instance, **labels}, at_s, int(up))
            if not up:
                continue
            shown_s = still[0] if still[0] < at_s < still[1] else at_s
            done = past + 10.0 * (shown_s - since_s)
            process = {"job": job, "instance": instance, **labels}
            self.put("process_cpu_seconds_total", process, at_s, 0.5 * shown_s)
            for rank in range(ranks):
                own = {"job": job, "instance": instance, "engine": str(rank), "model_name": "m", **labels}
                self.put("vllm:request_success_total", own, at_s, done / ranks)
                self.put("vllm:num_requests_running", own, at_s, 20 / ranks)
                self.put("vllm:num_requests_waiting", own, at_s, 0)
                self.put("vllm:request_prompt_tokens_sum", own, at_s, 100 * done / ranks)
                self.put("vllm:request_prompt_tokens_count", own, at_s, done / ranks)
                self.put("vllm:request_generation_tokens_sum", own, at_s, 50 * done / ranks)
                self.put("vllm:request_generation_tokens_count", own, at_s, done / ranks)

    def both(self, name, instances=("0",), **keys):
        for role in ("prefill", "decode"):
            for number in instances:
                self.scrape(f"{name}-{role}", f"{role}-{number}", **keys)

    def text(self):
        return "\n".join(line for lines in self.lines.values() for line in lines) + "\n# EOF\n"


def down(since_s, until_s):
    """Scrapes of a server that is down for a while."""
    return lambda at_s: None if since_s < at_s < until_s else True


def failing(since_s, until_s):
    """Scrapes that fail for a while, by a server that is up."""
    return lambda at_s: not since_s < at_s < until_s


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("past")
    past = Past(time.time() // 7200 * 7200 - 7200)
    past.both("usual", instances="01")
    past.both("ranks", ranks=4)
    past.both("slow", every_s=30.0)
    past.both("missed", instances="01", read=failing(580, 590))  # at the end of a window
    for gap_s in (50, 90, 180, 290):
        past.both(f"gap{gap_s}", instances="01", read=down(620.0 - gap_s, 620.0))
    past.both("still", instances="0")
    past.both("still", instances="1", still=(520.0, 605.0))
    past.both("one", instances="0")
    past.both("one", instances="1", read=failing(500, 620), past=1e6)
    past.both("grown", instances="0")
    past.both("grown", instances="1", since_s=620.0)
    past.both("appeared", instances="0")
    past.both("appeared", instances="1", since_s=620.0, past=1e6)
    for name, differing in (("jobs", {}), ("replicas", {"prometheus_replica": "b"})):
        past.both(name, instances="01", ranks=2)
        for role in ("prefill", "decode"):
            job = f"monitoring/jobs-{role}" if name == "jobs" else f"{name}-{role}"
            past.scrape(job, f"{role}-0", shift_s=4.2, ranks=2, **differing)
    past.both("renamed", until_s=630.0)
    for role in ("prefill", "decode"):
        past.scrape(f"new/renamed-{role}", f"{role}-0", since_s=630.0, past=6300.0)
    with prometheus_of_the_past(folder, past.text()) as url:
        yield SimpleNamespace(url=url, start_s=past.start_s)


def test_the_check_is_not_content_over_a_gap_or_with_what_is_read_twice(server):
    for name, content in (("usual", True), ("ranks", True), ("gap180", False), ("replicas", False)):
        with reading(server, name, 660.0) as source:
            codes_found = {
                finding.what.partition(":")[0]
                for finding in check(source, ToyPools(VirtualClock()), WINDOW_S)
                if finding.level == "bad"
            }
        assert bool(codes_found & {"window_incomplete", "double_counted"}) != content


@contextlib.contextmanager
def reading(server, name, at_s, **keys):
    pools = {f"{role}_pool": f"(.*/)?{name}-{role}" for role in ("prefill", "decode")}
    live = LiveConfig(**({"prometheus_url": server.url, "metrics_preset": "vllm"} | pools | keys))
    source = make_source(live, "prefill")
    source.reader.now_s = lambda deadline=None: server.start_s + at_s
    yield source
    source.close()


def loads(server, name, **keys):
    """What is known of the load of the windows one after another: requests, else what is wrong."""
    found = []
    for end_s in ENDS_S:
        with reading(server, name, end_s, **keys) as source:
            metrics, _ = source.collect(WINDOW_S * keys.get("time_scale", 1.0))
        requests = metrics.values.get("requests")
        # Prometheus' own arithmetic, and where in a scrape interval the window's ends fall.
        known = requests is not None and not metrics.problems
        found.append(round(requests) if known else ",".join(sorted(codes(metrics))))
        if requests is None and "frozen" not in codes(metrics) and "shorter" not in str(metrics.problems):
            unknown = ("isl_mean", "ttft_ms_mean", "ttft_attainment", "osl_mean", "completed")
            assert all(metrics.values.get(field) is None for field in unknown), "never a load for anybody"
            assert metrics.lengths is None
    return found


BAD = "window_incomplete"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("usual", [1200, 1200, 1200, 1200]),
        ("ranks", [600, 600, 600, 600]),
        ("slow", [600, 600, 600, 600]),
        ("missed", [900, 1500, 1200, 1200]),  # as exact as one scrape that failed lets it be
        ("gap50", ["no_series", BAD, 1200, 1200]),
        ("gap90", ["no_series", BAD, 1200, 1200]),
        ("gap180", ["no_series", BAD, 1200, 1200]),
        ("gap290", ["no_series", BAD, 1200, 1200]),
        ("one", [BAD, BAD, 1200, 1200]),
        ("still", ["frozen", BAD, 1200, 1200]),
        ("appeared", [600, BAD, 1200, 1200]),
        ("jobs", ["double_counted"] * 4),
        ("replicas", ["double_counted"] * 4),
    ],
)
def test_what_prometheus_knows_of_windows(server, name, expected):
    assert loads(server, name) == expected


def test_a_new_instance_counts_from_where_it_began(server):
    before, during, after, later = loads(server, "grown")
    assert (before, after, later) == (600, 1200, 1200)
    # It completed 400 in the window's last 40 s, of which 20 run; a scrape is 150.
    assert during == pytest.approx(600 + 400 + 20, abs=150)


def test_gaps_are_found_at_the_pools_own_speed_too(server):
    assert loads(server, "gap90", time_scale=20.0) == ["no_series", BAD, 1200, 1200]


def test_a_job_that_is_renamed_is_no_double(server):
    assert "double_counted" not in ",".join(map(str, loads(server, "renamed")))


@pytest.mark.parametrize(
    ("name", "unknown"),
    [("usual", set()), ("gap90", {600, 660}), ("gap180", {480, 540, 600, 660}), ("one", {540, 600, 660})],
)
def test_the_past_is_held_to_the_same_rule(server, name, unknown):
    with reading(server, name, 780.0) as source:
        past = source.history(WINDOW_S, 8)
    ends = {round(window.end_s - server.start_s): window for window in past}
    for end_s, window in ends.items():
        values = (window.requests, window.isl, window.osl)
        if end_s in unknown:
            assert values == (None, None, None)
        else:
            assert values == (pytest.approx(1200, abs=2), pytest.approx(100), pytest.approx(50))
    assert len(ends) == 8


OWN = {
    "requests": "sum(increase(vllm:request_success_total{job=~'.*NAME-prefill'}[$window]))",
    "isl_mean": "100 + 0 * sum(up)", "osl_mean": "50",
}  # fmt: skip


@pytest.mark.parametrize(("name", "known"), [("usual", [1, 1, 1, 1]), ("gap50", [0, 0, 1, 1])])
def test_what_ones_own_queries_give_over_a_gap_is_unknown_too(server, name, known):
    own = {field: text.replace("NAME", name) for field, text in OWN.items()}
    keys = {"metrics_preset": "trtllm", "metric_queries": own}  # whose names are not there
    for end_s, expected in zip(ENDS_S, known, strict=True):
        with reading(server, name, end_s, **keys) as source:
            metrics, _ = source.collect(WINDOW_S)
        assert metrics.usable == bool(expected)
        assert metrics.usable or "window_incomplete" in codes(metrics)
    with reading(server, name, 780.0, **keys) as source:
        found = [window.requests is not None for window in source.history(WINDOW_S, 7)]
    assert found == [True, True, True, *map(bool, known)]


def test_a_past_that_was_read_twice_is_none(server):
    with reading(server, "replicas", 780.0) as source:
        assert source.history(WINDOW_S, 8) == []
