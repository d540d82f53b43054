"""The page in a real browser: headless Chromium, driven as a person would use it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from report_documents import TICKS, attacked, comparison, document, faulty, run, three_pools, timeline
from sagescale.document import ResultDocument, from_keys
from sagescale.report.html import write_html
from sagescale.report.html.run import run_figure
from typer.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium and chromedriver (apt-get install chromium chromium-driver)",
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


def panel_names(made: Any) -> list[str]:
    found = from_keys(ResultDocument, made)
    return [panel.name for panel in run_figure(found, found.runs[0]).panels]


NAMES = panel_names(document())


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    yield browser
    browser.quit()


@pytest.fixture
def opened(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens a document's page; at the end nothing may have been complained about.

    A page that is open already is brought back to how it opened: browsers take a while over five megabytes.
    """

    def open_page(made: Any, scheme: str = "light") -> Any:
        if getattr(driver, "shows", None) == (made, scheme):
            driver.execute_script("location.hash = ''; show(); views.get(shown).range = null; redraw()")
            return driver
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        path = tmp_path_factory.mktemp("page") / "report.html"
        write_html(path, from_keys(ResultDocument, made))
        driver.get(path.as_uri())
        driver.shows = (made, scheme)
        return driver

    yield open_page
    assert driver.get_log("browser") == []


def drawn(driver: Any) -> dict[str, int]:
    """Points of each panel that is on the page and has been painted."""
    panels = driver.execute_script(
        """return [...document.querySelectorAll("figure.panel")]
          .filter((figure) => figure.offsetParent && figure.querySelector(".main-svg .cartesianlayer .xy"))
          .filter((figure) => figure.querySelector(".scatterlayer path, .scatterlayer .points path"))
          .map((figure) => [figure.dataset.panel, Number(figure.dataset.points)])"""
    )
    return dict(panels)


def wait(driver: Any, found: Callable[[Any], Any]) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 60, poll_frequency=0.05).until(found)


def painted(driver: Any, names: list[str]) -> dict[str, int]:
    """Wait until these panels and no others are painted, as they are in turns; return their points."""
    wait(driver, lambda d: list(drawn(d)) == names)
    return drawn(driver)


def point_at(driver: Any, panel: str, share: float) -> None:
    """Move the mouse to a share of the plotted width of a panel."""
    from selenium.webdriver.common.action_chains import ActionChains

    plot = driver.find_element("css selector", f"section:not([hidden]) [data-panel={panel}] .plot")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    wide = plot.size["width"]
    offset = 52 + share * (wide - 64) - wide / 2
    ActionChains(driver).move_to_element_with_offset(plot, round(offset), 0).perform()


def test_print_is_light_and_leaves_the_screen_as_it_was(opened):
    driver = opened(document(), "dark")
    printed = driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    assert len(printed["data"]) > 20_000
    assert not driver.execute_script("return document.body.classList.contains('printing')")
    painted(driver, NAMES)


def test_colours_follow_the_reader_s_choice_as_it_changes(opened):
    driver = opened(document(), "dark")
    background = "return getComputedStyle(document.querySelector('.plot .main-svg')).background.slice(0, 18)"
    dark = driver.execute_script(background)
    media = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    wait(driver, lambda d: d.execute_script(background) != dark)
    driver.shows = None
    painted(driver, NAMES)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_every_panel_of_a_run_is_drawn(opened, scheme):
    panels = painted(opened(document(), scheme), NAMES)
    assert all(points > 0 for points in panels.values())


def test_pointing_at_a_decision_tells_its_reasons_and_every_panel_s_values(opened):
    driver = opened(document())
    point_at(driver, "decisions", 4 / (TICKS + 0.5))
    bubble = wait(
        driver, lambda d: d.find_element("css selector", "[data-panel=decisions] .bubble").text
    ).splitlines()
    assert bubble[0] == "00:04:00"
    assert bubble[1] == "prefill stays at 1, decode 2 → 3"
    assert bubble[2].startswith("expects 2")
    assert bubble[-2:] == ["• scale up", "• correction at its bound"]
    legend = driver.find_element("css selector", "[data-panel=decode] .legend").text.split()
    assert legend == ["ready2", "starting1", "draining0", "decided3"]
    cursors = driver.execute_script(
        "return new Set([...document.querySelectorAll('.cursor')].map((c) => c.style.left + c.hidden)).size"
    )
    assert cursors == 1


def test_a_decision_between_ticks_is_told_at_the_tick_next_to_it(opened):
    driver = opened(document())
    assert "emergency" in driver.find_element("css selector", "[data-panel=decisions] .legend").text
    point_at(driver, "decisions", 75 / (60 * (TICKS + 0.5)))
    bubble = wait(driver, lambda d: d.find_element("css selector", "[data-panel=decisions] .bubble").text)
    assert "▲ 00:01:15 between decisions: prefill 1 → 2; surge" in bubble.splitlines()


def test_zooming_one_panel_zooms_all(opened):
    driver = opened(document())
    ranges = """return [...document.querySelectorAll(".plot")].map((p) => p.layout.xaxis.range
      .map((end) => typeof end === "number" ? end : Date.parse(end.replace(" ", "T") + "Z")))"""
    plot = driver.find_element("css selector", "[data-panel=ttft] .plot")
    driver.execute_script("Plotly.relayout(arguments[0], {'xaxis.range': [120000, 600000]})", plot)
    wait(driver, lambda d: d.execute_script(ranges) == [[120_000, 600_000]] * len(NAMES))


def test_a_legend_hides_and_shows_its_line(opened):
    driver = opened(document())
    entry = driver.find_element("css selector", "[data-panel=ttft] .legend button")
    lines = (
        "return document.querySelectorAll('[data-panel=ttft] .scatterlayer .trace path.js-line[d]').length"
    )
    before = driver.execute_script(lines)
    entry.click()
    wait(driver, lambda d: d.execute_script(lines) == before - 1)
    entry.click()
    wait(driver, lambda d: d.execute_script(lines) == before)


@pytest.mark.parametrize("width", [700, 1200, 1560])
def test_captions_keep_inside_their_panels_and_plots_beside_each_other_are_level(opened, width):
    driver = opened(document())
    screen = {"width": width, "height": 1400, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        boxes = driver.execute_script(
            """return [...document.querySelectorAll("figure.panel")].map((figure) => {
              const edges = (css) => [...figure.querySelectorAll(css)].map((e) => e.getBoundingClientRect());
              const [whole, entries] = [figure.getBoundingClientRect(), edges(".legend > *")];
              return {
                left: Math.min(...entries.map((e) => e.left)),
                right: Math.max(...entries.map((e) => e.right)),
                title: edges("figcaption b")[0].right, plot: edges(".plot")[0].top,
                end: whole.right, top: whole.top,
              };
            })"""
        )
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert len(boxes) == len(NAMES)
    for box in boxes:
        assert box["title"] <= box["left"]
        assert box["right"] <= box["end"] + 0.5
    rows = {box["top"] for box in boxes}
    assert len({box["plot"] for box in boxes}) == len(rows)


def test_a_third_pool_is_drawn(opened):
    made = three_pools()
    driver = opened(made)
    painted(driver, panel_names(made))
    point_at(driver, "decisions", 4 / (TICKS + 0.5))
    bubble = wait(driver, lambda d: d.find_element("css selector", "[data-panel=decisions] .bubble").text)
    assert bubble.splitlines()[1] == "prefill stays at 1, decode 2 → 3, spare stays at 1"


def test_faults_are_drawn(opened):
    driver = opened(faulty())
    assert "fault" in driver.find_element("css selector", "[data-panel=decode] .legend").text.split()
    point_at(driver, "decode", 7 / (TICKS + 0.5))
    bubble = wait(driver, lambda d: d.find_element("css selector", "[data-panel=decode] .bubble").text)
    assert "× crash, 9 requests restarted" in bubble


def test_a_comparison_leads_to_its_runs_and_back(opened):
    driver = opened(comparison())
    wait(driver, lambda d: drawn(d) == {"comparison": 5})
    driver.find_element("link text", "classic/kalman").click()
    painted(driver, NAMES)
    assert driver.find_element("css selector", "section:not([hidden]) h2").text == "classic/kalman"
    driver.back()
    wait(driver, lambda d: drawn(d) == {"comparison": 5})


def test_a_point_of_the_comparison_leads_to_its_run(opened):
    from selenium.webdriver.common.action_chains import ActionChains

    driver = opened(comparison())
    point = driver.find_elements("css selector", "[data-panel=comparison] .points path.point")[-1]
    ActionChains(driver).move_to_element(point).click().perform()
    painted(driver, NAMES)
    assert driver.find_element("css selector", "section:not([hidden]) h2").text == "reactive"


def test_a_run_is_opened_by_its_address(opened):
    driver = opened(comparison())
    driver.get(f"{driver.current_url.partition('#')[0]}#run-2")
    driver.refresh()
    painted(driver, NAMES)
    assert driver.find_element("css selector", "section:not([hidden]) h2").text == "classic/constant"


def test_the_table_sorts_by_any_column_both_ways(opened):
    driver = opened(comparison())

    def order() -> list[int]:
        return driver.execute_script(
            "return [...document.querySelectorAll('#ranking tbody tr')].map((row) => Number(row.dataset.run))"
        )

    button = driver.find_element("css selector", "#ranking th[data-key=regret] button")
    button.click()
    assert order() == [2, 1, 3, 4, 0]
    button.click()
    assert order() == [4, 3, 1, 2, 0]
    driver.find_element("css selector", "#ranking th[data-key=name] button").click()
    assert order() == [0, 3, 2, 1, 4]


@pytest.mark.parametrize("made", [document(), comparison()], ids=["run", "comparison"])
def test_an_attack_is_shown_and_does_nothing(opened, made):
    driver = opened(attacked(made))
    if "comparison" in made:
        wait(driver, lambda d: drawn(d) == {"comparison": 5})
        driver.find_element("css selector", "#ranking tbody tr a").click()
    painted(driver, NAMES)
    point_at(driver, "decisions", 0.5)
    bubble = wait(
        driver,
        lambda d: d.find_element("css selector", "section:not([hidden]) [data-panel=decisions] .bubble").text,
    )
    assert "<img src=x onerror" in bubble
    assert driver.execute_script("return window.attacked === undefined && !document.querySelector('img')")


def test_two_days_of_ticks_are_drawn(opened):
    panels = painted(opened(document(run(timeline=timeline(2880)))), NAMES)
    assert panels["load"] == 3 * 2880


def test_a_run_of_a_trace_that_has_a_date_is_drawn_by_the_clock(opened):
    made = document()
    made["trace"]["started_at"] = "2026-11-24T09:00:00+01:00"
    driver = opened(made)
    point_at(driver, "load", 0.5)
    bubble = driver.find_element("css selector", "[data-panel=load] .bubble")
    wait(driver, lambda _: "2026-11-24 09:" in bubble.text)
    ends = driver.execute_script(
        "return document.querySelector('.plot').layout.xaxis.range.map((end) => +end)"
    )
    assert ends[0] == 1_795_510_800_000


def test_a_run_without_ticks_is_a_page_without_complaints(opened):
    made = document()
    made["runs"][0]["timeline"] = {key: [] for key in made["runs"][0]["timeline"]}
    driver = opened(made)
    wait(driver, lambda d: len(d.find_elements("css selector", ".main-svg")) >= len(NAMES))


def test_simulate_writes_the_page(driver, tmp_path):
    from sagescale.cli.app import app

    out = tmp_path / "run.html"
    result = CliRunner().invoke(app, ["simulate", "steady", "--html", str(out)])
    assert result.exit_code == 0, result.output
    driver.get(out.as_uri())
    driver.shows = None
    painted(driver, NAMES)
    assert driver.get_log("browser") == []


def test_a_page_of_plots_is_painted_and_its_legend_hides_a_curve_with_its_marks(driver, tmp_path):
    from sagescale.cli.profile_figure import profile_figure
    from sagescale.perf import load_profile
    from sagescale.report.html import render_plots

    figure = profile_figure(load_profile("h200-llama-3.1-8b-bf16"), target_itl_ms=15.0)
    out = tmp_path / "profile.html"
    out.write_text(render_plots(figure, title="a profile", version="1", texts=["fitted"]))
    driver.get(out.as_uri())
    driver.shows = None
    painted(driver, [panel.name for panel in figure.panels])
    last = f"[data-panel={figure.panels[-1].name}]"
    traces = f"document.querySelector('{last} .plot')._fullData"
    shown = f"return {traces}.filter((each) => each.visible === true).length"
    before = driver.execute_script(shown)
    driver.find_element("css selector", f"{last} .legend button").click()
    # Its line, what was measured, and the star.
    wait(driver, lambda d: d.execute_script(shown) == before - 3)
    assert driver.get_log("browser") == []
