"""Take the pictures of the reports page: ``python docs/tools/images.py FOLDER_OF_TRACES``.

Writes docs/images/report-{run,comparison,decision}.png from the Azure conversation trace, in Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

REPO = Path(__file__).resolve().parents[2]
IMAGES = REPO / "docs" / "images"
WIDTH = 1280
COMMANDS = {
    "run": ["simulate", "--policy", "slo"],
    "comparison": ["compare-predictors", "--predictors", "all", "--policies", "all"],
}


def browser(scheme: str, folder: Path) -> Chrome:
    """Open a browser whose reader prefers light or dark."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder / scheme}"):
        options.add_argument(flag)
    options.add_argument(f"--window-size={WIDTH},900")
    found = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    )
    found.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    return found


def show(driver: Chrome, page: Path, *, height: int | None = None) -> None:
    """Open a page in a window as high as it is, or as said."""
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.get(page.as_uri())
    time.sleep(3)
    high = height or driver.execute_script("return document.documentElement.scrollHeight")
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": WIDTH, "height": high, "deviceScaleFactor": 1, "mobile": False},
    )
    time.sleep(2)


def save(driver: Chrome, name: str) -> None:
    """Write what the window shows, with few colours: a picture of some hundred kilobytes."""
    path = IMAGES / f"report-{name}.png"
    driver.save_screenshot(str(path))
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"wrote {path}")


def main(traces: Path) -> None:
    """Make both pages and take the three pictures."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for name, (command, *options) in COMMANDS.items():
            words = [sys.executable, "-m", "sagescale", command, "azure_llm_2023_conv.csv"]
            words += ["--rate-scale", "8", *options, "--html", str(folder / f"{name}.html")]
            subprocess.run(words, check=True, cwd=traces, stdout=subprocess.DEVNULL)
        light = browser("light", folder)
        for name in COMMANDS:
            show(light, folder / f"{name}.html")
            save(light, name)
        light.quit()
        dark = browser("dark", folder)
        show(dark, folder / "run.html")
        plot = dark.execute_script(
            "const plot = document.querySelector('figure[data-panel=decisions] .plot');"
            "const box = plot.getBoundingClientRect();"
            "return [box.x + 0.42 * box.width, box.y + 0.5 * box.height, box.y]"
        )
        dark.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": plot[0], "y": plot[1]})
        time.sleep(1)
        save(dark, "decision")
        # What is around the panel that is pointed at.
        path = IMAGES / "report-decision.png"
        top = max(0, int(plot[2]) - 420)
        picture = Image.open(path)
        picture.crop((0, top, WIDTH, min(picture.height, top + 760))).save(path, optimize=True)
        dark.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
