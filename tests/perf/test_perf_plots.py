"""Plots show the fitted curves, the measured points and the operating point, in every rendering."""

from __future__ import annotations

import io
import re

import pytest
from sagescale.cli.profile_figure import profile_figure
from sagescale.perf import ProfileModel, list_profiles, load_profile
from sagescale.perf.catalogue import GPUS, MODELS
from sagescale.perf.roofline import estimate_profile
from sagescale.report.figures import Axis, Panel, Series
from sagescale.report.html import render_plots
from sagescale.report.picture import png_picture
from sagescale.report.text_plots import panel_text

NAME = "h200-llama-3.1-8b-bf16"


@pytest.fixture(scope="module")
def figure():
    return profile_figure(load_profile(NAME), target_itl_ms=15.0)


@pytest.fixture(scope="module")
def panels(figure):
    return figure.panels


def lines(panel):
    return [series for series in panel.series if not series.mark]


def marked(panel, name="measured"):
    return {series.group: series.points() for series in panel.series if series.mark and series.name == name}


def chosen(panel):
    return [points[0] for points in marked(panel, "most tokens within the target").values()]


def drawn(*series):
    return Panel("t", "T", "", series, x=Axis(title="x", log=True), y=Axis(title="y", log=True))


def curve(name, *points, **look):
    x, y = zip(*points, strict=True)
    return Series(name, x, y, group=name, colour="blue", **look)


class TestPanels:
    @pytest.mark.parametrize("name", list_profiles())
    def test_lines_are_the_model_and_points_the_measurements(self, name):
        profile = load_profile(name)
        model = ProfileModel(profile)
        ttft, loads, *_ = profile_figure(profile, target_itl_ms=50.0).panels
        assert all(y == model.ttft_ms(x) for x, y in lines(ttft)[0].points())
        assert len(marked(ttft)["TTFT"]) == profile.prefill.measured.batch.count(1)
        for curve in lines(loads):
            context = float(curve.name.removeprefix("context ").replace(",", ""))
            assert all(y == pytest.approx(model.itl_ms(x, context)) for x, y in curve.points())

    def test_curves_stop_at_the_slots_and_the_memory(self):
        profile = load_profile("h200-llama-3.1-8b-fp8")
        _, loads, contexts, _ = profile_figure(profile, target_itl_ms=50.0).panels
        assert max(x for curve in lines(loads) for x in curve.x) == 256
        longest = lines(loads)[-1]
        assert max(longest.x) * 13585 <= profile.decode.max_kv_tokens
        assert max(lines(contexts)[-1].x) * 256 <= profile.decode.max_kv_tokens

    def test_the_operating_point_is_the_planners(self, panels):
        model = ProfileModel(load_profile(NAME))
        best = model.decode_throughput_per_gpu(15.0, 64)
        assert chosen(panels[3])[0] == (best.itl_ms, best.tokens_per_s_per_gpu)
        assert all(itl <= 15.0 for itl, _ in chosen(panels[3]))
        (level,) = panels[3].levels
        assert (level.axis, level.value, level.words) == ("x", 15.0, "target 15 ms")

    def test_no_point_is_chosen_where_none_meets_the_target(self):
        assert not chosen(profile_figure(load_profile(NAME), target_itl_ms=1.0).panels[3])

    def test_an_estimate_has_lines_and_no_points(self):
        profile = estimate_profile(MODELS["Llama-3.1-8B"], GPUS["h200"])
        for panel in profile_figure(profile, target_itl_ms=20.0).panels:
            assert lines(panel)
            assert not marked(panel)


class TestTerminal:
    def test_a_straight_line_runs_from_corner_to_corner(self):
        line = curve("rise", (1.0, 1.0), (10.0, 10.0))
        measured = curve("rise", (10.0, 10.0), mark="circle")
        text = panel_text(drawn(line, measured), 60).plain.splitlines()
        assert text[0] == "T: y over x"
        assert text[1].endswith("a")
        assert re.fullmatch(r"\s+1\S* │[\u2800-\u28ff].*", text[14])
        assert text[16].split()[0] == "1"
        assert text[16].split()[-1].startswith(("9", "10"))

    def test_every_panel_fits_the_width_it_is_given(self, panels):
        for width in (40, 80, 120):
            for panel in panels:
                lines = panel_text(panel, width).plain.splitlines()
                assert all(len(line) <= width for line in lines[1:17])

    def test_the_target_and_the_operating_point_are_drawn(self, panels):
        text = panel_text(panels[3], 100).plain
        assert "┊ target 15 ms" in text
        assert text.count("★") > 1

    def test_flat_and_lone_values_are_drawn(self):
        for points in (((1.0, 5.0), (2.0, 5.0)), ((1.0, 5.0),)):
            assert panel_text(drawn(curve("flat", *points)), 40).plain


class TestPictures:
    def test_the_png_has_the_size_it_should_and_is_not_empty(self, figure):
        from matplotlib.image import imread

        picture = imread(io.BytesIO(png_picture(figure, "title")))
        assert picture.shape[:2] == (1350, 2250)
        assert picture[..., :3].std() > 0.05

    def test_the_page_needs_no_network_and_holds_every_curve(self, figure):
        page = render_plots(figure, title="my <profile>", version="1", texts=["fitted"])
        assert not re.search(r"<(script|link)[^>]*(src|href)=", page)
        assert "my &lt;profile" in page.replace("\\u003c", "<").replace("&amp;", "&")
        for panel in figure.panels:
            assert panel.title in page
            assert all(f'"name":"{series.name}"' in page for series in panel.series)
            assert all(f'"group":"{series.group}"' in page for series in panel.series)
        assert '"words":"target 15 ms"' in page
        assert "most tokens within the target" in page
