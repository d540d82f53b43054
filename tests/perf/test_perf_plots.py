"""Plots show the fitted curves, the measured points and the operating point, in every rendering."""

from __future__ import annotations

import io
import re

import pytest
from sagescale.cli.profile_plots import html_page, panel_text, png_picture
from sagescale.perf import ProfileModel, list_profiles, load_profile
from sagescale.perf.catalogue import GPUS, MODELS
from sagescale.perf.panels import Curve, Panel, profile_panels
from sagescale.perf.roofline import estimate_profile

NAME = "h200-llama-3.1-8b-bf16"


@pytest.fixture(scope="module")
def panels():
    return profile_panels(load_profile(NAME), target_itl_ms=15.0)


class TestPanels:
    @pytest.mark.parametrize("name", list_profiles())
    def test_lines_are_the_model_and_points_the_measurements(self, name):
        profile = load_profile(name)
        model = ProfileModel(profile)
        ttft, loads, *_ = profile_panels(profile, target_itl_ms=50.0)
        assert all(y == model.ttft_ms(x) for x, y in ttft.curves[0].line)
        assert len(ttft.curves[0].measured) == profile.prefill.measured.batch.count(1)
        for curve in loads.curves:
            context = float(curve.label.removeprefix("context ").replace(",", ""))
            assert all(y == pytest.approx(model.itl_ms(x, context)) for x, y in curve.line)

    def test_curves_stop_at_the_slots_and_the_memory(self):
        profile = load_profile("h200-llama-3.1-8b-fp8")
        _, loads, contexts, _ = profile_panels(profile, target_itl_ms=50.0)
        assert max(x for curve in loads.curves for x, _ in curve.line) == 256
        longest = loads.curves[-1]
        assert max(x for x, _ in longest.line) * 13585 <= profile.decode.max_kv_tokens
        assert max(x for x, _ in contexts.curves[-1].line) * 256 <= profile.decode.max_kv_tokens

    def test_the_operating_point_is_the_planners(self, panels):
        model = ProfileModel(load_profile(NAME))
        chosen = [curve.chosen for curve in panels[3].curves]
        best = model.decode_throughput_per_gpu(15.0, 64)
        assert chosen[0] == (best.itl_ms, best.tokens_per_s_per_gpu)
        assert all(itl <= 15.0 for itl, _ in chosen)
        assert panels[3].target == (15.0, "target 15 ms")

    def test_no_point_is_chosen_where_none_meets_the_target(self):
        panel = profile_panels(load_profile(NAME), target_itl_ms=1.0)[3]
        assert all(curve.chosen is None for curve in panel.curves)

    def test_an_estimate_has_lines_and_no_points(self):
        profile = estimate_profile(MODELS["Llama-3.1-8B"], GPUS["h200"])
        for panel in profile_panels(profile, target_itl_ms=20.0):
            assert all(curve.line and not curve.measured for curve in panel.curves)


class TestTerminal:
    def test_a_straight_line_runs_from_corner_to_corner(self):
        line = Curve("rise", ((1.0, 1.0), (10.0, 10.0)), measured=((10.0, 10.0),))
        text = panel_text(Panel("T", "x", "y", (line,)), 60).plain.splitlines()
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
        flat = Curve("flat", ((1.0, 5.0), (2.0, 5.0)))
        assert panel_text(Panel("T", "x", "y", (flat,)), 40).plain
        lone = Curve("lone", ((1.0, 5.0),))
        assert panel_text(Panel("T", "x", "y", (lone,)), 40).plain


class TestPictures:
    def test_the_png_has_the_size_it_should_and_is_not_empty(self, panels):
        from matplotlib.image import imread

        picture = imread(io.BytesIO(png_picture(panels, "title")))
        assert picture.shape[:2] == (1350, 2250)
        assert picture[..., :3].std() > 0.05

    def test_the_page_needs_no_network_and_holds_every_curve(self, panels):
        page = html_page(panels, "my <profile>")
        assert not re.search(r"<(script|link)[^>]*(src|href)=", page)
        assert "my &lt;profile" in page.replace("\\u003c", "<").replace("&amp;", "&")
        for panel in panels:
            assert panel.title in page
            assert all(f'"name":"{curve.label}"' in page for curve in panel.curves)
            assert all(f"{curve.label}, measured" in page for curve in panel.curves if curve.measured)
        assert '"name":"target 15 ms"' in page
        assert "most tokens within the target" in page
