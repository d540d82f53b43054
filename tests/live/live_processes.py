"""Real processes for the end-to-end tests: an emulator, a Prometheus server, a planner; loopback only."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sagescale.live.lock import TargetLock

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-m", "sagescale"]
REPO = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, object] = {
    "adjustment_interval_sec": 60,
    "target_itl_ms": 6,  # tight enough that the decode pool moves too
    "load_predictor_type": "moving_average",
    "load_headroom": 1.3,
}
# Others to try: SAGESCALE_E2E_SET="adjustment_interval_sec=30 load_headroom=1" make e2e
SETTINGS |= dict(text.split("=", 1) for text in os.environ.get("SAGESCALE_E2E_SET", "").split())
INTERVAL_S = 5.0  # of the clock
SPEED = float(str(SETTINGS["adjustment_interval_sec"])) / INTERVAL_S
SCRAPE_S = 0.4


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def post_json(url: str, document: object) -> Any:
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def wait_for(condition: Any, what: str, timeout_s: float = 60.0, every_s: float = 0.1) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        time.sleep(every_s)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


def keys(values: dict[str, object]) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


@dataclass
class Process:
    """One process of ours, its output in a file, ended with its object."""

    name: str
    folder: Path
    words: list[str]
    running: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        path = self.folder / f"{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1"}
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.running = subprocess.Popen(
                self.words, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def end(self, how: int = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        assert self.running is not None
        self.running.send_signal(how)
        return self.running.wait(timeout_s)

    def stop(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.running.kill()
            self.running.wait(20)


@contextmanager
def prometheus_of_the_past(folder: Path, samples: str) -> Iterator[str]:
    """A real Prometheus server that holds such samples, in OpenMetrics' text; gives its URL."""
    program, tool = shutil.which("prometheus"), shutil.which("promtool")
    if program is None or tool is None:
        pytest.skip("no Prometheus server here: apt-get install prometheus")
    (folder / "past").write_text(samples)
    subprocess.run(
        [tool, "tsdb", "create-blocks-from", "openmetrics", folder / "past", folder / "db"],
        check=True,
        capture_output=True,
    )
    port = free_port()
    (folder / "none.yml").write_text("{}\n")
    words = [program, f"--config.file={folder}/none.yml", f"--storage.tsdb.path={folder}/db",
             "--storage.tsdb.retention.time=30d",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]  # fmt: skip
    process = Process("prometheus", folder, words)
    process.start()
    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: get_json(f"{url}/api/v1/query?query=1"), "Prometheus answers", 60)
    try:
        yield url
    finally:
        process.stop()


@dataclass
class World:
    """An emulator scraped by a Prometheus server."""

    folder: Path
    speed: float
    processes: list[Process] = field(default_factory=list)
    emulator_port: int = field(default_factory=free_port)
    prometheus_port: int = field(default_factory=free_port)
    prometheus: Process | None = None
    began_s: float = 0.0

    @property
    def emulator_url(self) -> str:
        return f"http://127.0.0.1:{self.emulator_port}"

    @property
    def prometheus_url(self) -> str:
        return f"http://127.0.0.1:{self.prometheus_port}"

    def spawn(self, name: str, words: list[str]) -> Process:
        process = Process(name, self.folder, words)
        process.start()
        self.processes.append(process)
        return process

    def start_emulator(self, trace: Path, *options: str, settings: dict[str, object]) -> Process:
        words = [
            *COMMAND,
            "emulate",
            str(trace),
            "--port",
            str(self.emulator_port),
            "--speed",
            str(self.speed),
        ]
        process = self.spawn("emulator", [*words, "--wait", *options, *keys(settings)])
        wait_for(lambda: get_json(f"{self.emulator_url}/state"), "the emulator answers", 240)
        return process

    def start_prometheus(
        self, scrape_s: float, *, discovery: bool = False, target: str | None = None, jobs: str = ""
    ) -> Process:
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("no Prometheus server here: apt-get install prometheus")
        interval = f"{round(scrape_s * 1000)}ms"
        target = target or f"127.0.0.1:{self.emulator_port}"
        where = (
            f"  http_sd_configs: [{{url: 'http://{target}/sd', refresh_interval: 1s}}]\n"
            if discovery
            else f"  static_configs: [{{targets: ['{target}']}}]\n"
        )
        (self.folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\n"
            f"scrape_configs:\n- job_name: emulator\n  honor_labels: true\n{where}{jobs}"
        )
        words = [
            program,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{self.prometheus_port}",
            "--log.level=warn",
        ]
        self.prometheus = self.spawn("prometheus", words)
        self.wait_for_prometheus()
        return self.prometheus

    def wait_for_prometheus(self) -> None:
        url = f"{self.prometheus_url}/api/v1/query?query=up"
        wait_for(lambda: get_json(url)["data"]["result"], "Prometheus has scraped", 60)

    def live_settings(self) -> dict[str, object]:
        return {
            "prometheus_url": self.prometheus_url,
            "time_scale": self.speed,
            "actuator": "webhook",
            "webhook_url": f"{self.emulator_url}/scale",
            "webhook_state_url": f"{self.emulator_url}/state",
            "journal": self.folder / "journal.sqlite",
            "lock_dir": self.folder,
            "exporter_port": 0,
            "warm_start_windows": 0,
        }

    def state(self) -> Any:
        return get_json(f"{self.emulator_url}/state")

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()


def codes(tick):
    return {problem.code for problem in tick.problems}


def begin(world, planner_settings, interval_s=INTERVAL_S):
    """Start emulator and planner so that the planner's first tick ends the trace's first interval."""
    lock = TargetLock(f"webhook {planner_settings['webhook_url']}", str(world.folder))
    lock.acquire_or_refuse()
    words = [*COMMAND, "plan", "--standby", "--log", "json", *keys(planner_settings)]
    planner = world.spawn("planner", words)
    wait_for(lambda: "standing by" in planner.log, "the planner stands by", 60)
    world.began_s = (math.floor(time.time() / interval_s) + 2) * interval_s
    post_json(f"{world.emulator_url}/start", {"at": world.began_s})
    time.sleep(max(0.0, world.began_s - time.time()) + 0.05)
    lock.release()
    wait_for(lambda: '"started"' in planner.log, "the planner took over", interval_s)
    return planner
