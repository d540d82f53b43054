"""An emulated cluster whose engines are a manager's instances: everything on a laptop, without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sagescale.control_plane.instances import TYPES, ExecutionInstance, ExecutionInstanceType, PoolName
from sagescale.control_plane.metrics import MetricsCollector
from sagescale.errors import SagescaleError
from sagescale.live.config import LiveConfig
from sagescale.live.http import HttpClient

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHECK_S = 0.05
_UNLIMITED = [
    word
    for key in ("max_prefill_instances", "max_decode_instances", "max_gpu_budget")
    for word in ("--set", f"{key}=10000")
]


class EmulatedPlatform:
    """Creates and removes the engines of a running ``sagescale emulate`` through its commands.

    It takes sizes and chooses itself which engine drains, as a Kubernetes Deployment does.

    Args:
        url: The emulator.
        speed: Its ``--speed``.
    """

    def __init__(self, url: str, speed: float) -> None:
        self.url = url
        self.speed = speed
        self._http = HttpClient(LiveConfig())
        self._turn = threading.Condition(threading.RLock())
        self._known: dict[str, ExecutionInstance] = {}
        self._creating = dict.fromkeys(TYPES, 0)

    def begin(self) -> None:
        """Let the traffic begin, where the emulator was started with ``--wait``."""
        self._ask("/start", {})

    def metrics(self) -> MetricsCollector:
        """Return a collector that reads the registered engines' own pages, in the emulator's time."""
        return MetricsCollector(metrics_preset="vllm", time_scale=self.speed)

    def instances(self) -> list[ExecutionInstance]:
        """Return the engines that are ready now and have not been returned before."""
        return [made for pool in TYPES for made in self._new(pool)]

    def create_instance(self, kind: ExecutionInstanceType) -> ExecutionInstance:
        """Launch an engine and wait until it is ready."""
        pool = kind.pool
        assert pool is not None
        with self._turn:
            self._resize(pool, 1)
            self._creating[pool] += 1
        found: list[ExecutionInstance] = []
        try:
            while not found:
                time.sleep(_CHECK_S)
                found = self._new(pool, 1)
        finally:
            with self._turn:
                self._creating[pool] -= 1
                self._turn.notify_all()
        return found[0]

    def remove_instance(self, instance: ExecutionInstance) -> ExecutionInstance:
        """Have one engine of the instance's pool drain, wait until it has, and say which it was."""
        pool = instance.instance_type.pool
        assert pool is not None
        with self._turn:
            # The emulator would rather cancel one that is starting, and somebody waits for that.
            self._turn.wait_for(lambda: self._creating[pool] == 0)
            before = self._ready(pool)
            self._resize(pool, -1)
            (gone,) = before - self._ready(pool)
        while self._engines().get(gone, "stopped") != "stopped":
            time.sleep(_CHECK_S)
        return self._known[gone]

    def _new(self, pool: PoolName, at_most: int | None = None) -> list[ExecutionInstance]:
        with self._turn:
            names = sorted(self._ready(pool) - self._known.keys(), key=lambda name: int(name.split("-")[1]))
            made = [self._instance(pool, name) for name in names[:at_most]]
            self._known |= {instance.instance_id: instance for instance in made}
        return made

    def _instance(self, pool: PoolName, name: str) -> ExecutionInstance:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return ExecutionInstance(
            name,
            host=parts.hostname,
            port=parts.port,
            instance_type=TYPES[pool],
            metrics_path=f"/instances/{name}/metrics",
        )

    def _ready(self, pool: PoolName) -> set[str]:
        engines = self._engines()
        return {name for name, state in engines.items() if state == "ready" and name.startswith(pool)}

    def _engines(self) -> dict[str, str]:
        labels = [entry["labels"] for entry in self._ask("/sd")]
        return {label["instance"]: label["__meta_sagescale_state"] for label in labels}

    def _resize(self, pool: PoolName, change: int) -> None:
        state = self._ask("/state")
        targets = {
            name: state[name]["ready"] + state[name]["starting"] + state[name]["waiting"] for name in TYPES
        }
        targets[pool] += change
        self._ask("/scale", {"targets": targets})

    def _ask(self, path: str, document: object = None) -> Any:  # noqa: ANN401  # JSON
        """GET, or POST a document."""
        method, content = ("GET", None) if document is None else ("POST", json.dumps(document).encode())
        headers = {"Content-Type": "application/json"}
        reply = self._http.request(method, self.url + path, timeout_s=30.0, content=content, headers=headers)
        return json.loads(reply.body)


@contextmanager
def emulated(trace: str, *options: str, speed: float = 60.0) -> Iterator[EmulatedPlatform]:
    """Run ``sagescale emulate TRACE --wait`` for as long as the context lasts.

    Limits and budget are the manager's; those of the emulator are too large to matter.

    Args:
        trace: A trace's name or path.
        options: Further words of the command line, e.g. ``"--set", "startup_delay_s=30"``.
        speed: Seconds of the trace in a second of the clock.

    Raises:
        SagescaleError: the emulator did not start; the message is its own.
    """
    words = [sys.executable, "-m", "sagescale", "emulate", trace, "--port", "0", "--wait"]
    words += ["--speed", str(speed), *_UNLIMITED, *options]
    process = subprocess.Popen(  # noqa: S603  # our own command
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    with process:
        said = []
        url = None
        for line in process.stdout:
            said.append(line)
            if line.startswith("metrics "):
                url = line.split()[1].removesuffix("/metrics")
                break
        try:
            if url is None:
                raise SagescaleError("".join(said).strip().removeprefix("error: "))
            yield EmulatedPlatform(url, speed)
        finally:
            process.terminate()
