"""A proxy between a planner and its world that can be made to lie, drip, flood or say nothing."""

from __future__ import annotations

import functools
import gzip
import http.client
import json
import math
import re
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTILE = ("hang", "slow_headers", "continues", "drip", "bomb", "flood", "error", "nonsense", "nested")
_BEAT_S = 0.05


@dataclass(frozen=True, slots=True)
class Order:
    """A scale command that was carried out: when, under which key, and what it asked for."""

    at_s: float
    key: str
    prefill: int
    decode: int


class Proxy:
    """Hands requests on to one server of this machine, unless told to do something worse.

    Attributes:
        mode: ``pass``; ``refuse`` closes the connection; or one of ``HOSTILE``.
        lies: What it makes of metric pages.
        again: Whether it also answers under ``/again``, for a second job that reads the same engines.
        orders: Every scale command that was answered with 200.
    """

    def __init__(self, port: int) -> None:
        self.mode = "pass"
        self.lies = Lies()
        self.again = False
        self._lock = threading.Lock()
        self.orders: list[Order] = []
        self._target = port
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def stop(self) -> None:
        self.mode = "refuse"
        self._server.shutdown()
        self._server.server_close()

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=10)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if method == "POST" and path == "/scale" and answer.status == 200:
            targets = json.loads(body)["targets"]
            key = headers.get("Idempotency-Key", "")
            self.orders.append(Order(time.time(), key, targets["prefill"], targets["decode"]))
        if path.endswith("/metrics") and answer.status == 200:
            with self._lock:
                data = self.lies(path, data.decode()).encode()
        return answer.status, answer.headers.get("Content-Type", "text/plain"), data


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked has gone: that is what they should do."""


class _Handler(BaseHTTPRequestHandler):
    owner: Proxy
    protocol_version = "HTTP/1.1"
    timeout = 30

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mode = self.owner.mode
        if mode != "pass":
            self.close_connection = True
            getattr(self, f"_{mode}")(lambda: self.owner.mode == mode)
            return
        path = self.path.removeprefix("/again")
        if path != self.path and not self.owner.again:
            self._whole(503, b"", {})
            return
        headers = {**self.headers, "Connection": "close", "Accept-Encoding": "identity"}
        try:
            status, kind, data = self.owner.forward(self.command, path, headers, body)
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # as if the proxy were not there
            return
        if path != self.path:
            data = re.sub(rb'job="(\w+)"', rb'job="\1-again"', data)
        self._whole(status, data, {"Content-Type": kind})

    def do_GET(self) -> None:  # the base class dispatches by these names
        self._serve()

    def do_POST(self) -> None:  # the base class dispatches by these names
        self._serve()

    def _whole(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, going_on: Callable[[], bool]) -> None:
        del going_on

    def _hang(self, going_on: Callable[[], bool]) -> None:
        while going_on():
            time.sleep(_BEAT_S)

    def _slow_headers(self, going_on: Callable[[], bool]) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while going_on():
            self.wfile.write(b"X-More: 1\r\n")
            time.sleep(_BEAT_S)

    def _continues(self, going_on: Callable[[], bool]) -> None:
        while going_on():
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(_BEAT_S)

    def _drip(self, going_on: Callable[[], bool]) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while going_on():
            self.wfile.write(b" ")
            time.sleep(_BEAT_S)

    def _bomb(self, going_on: Callable[[], bool]) -> None:
        del going_on
        self._whole(200, _bomb(), {"Content-Type": "application/json", "Content-Encoding": "gzip, gzip"})

    def _flood(self, going_on: Callable[[], bool]) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while going_on():
            self.wfile.write(b" " * 65536)

    def _error(self, going_on: Callable[[], bool]) -> None:
        del going_on
        self._whole(500, b"\x1b[31mit broke\n" * 10_000, {})

    def _nonsense(self, going_on: Callable[[], bool]) -> None:
        del going_on
        self._whole(200, b'{"status": "success", "data": {"result": [{"metric": 3}]}, "prefill": []}', {})

    def _nested(self, going_on: Callable[[], bool]) -> None:
        del going_on
        self._whole(200, b"[" * 100_000, {})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        """Say nothing."""


@functools.cache
def _bomb() -> bytes:
    """A quarter of a gigabyte of blanks, in about a kilobyte."""
    return gzip.compress(gzip.compress(b" " * 250_000_000, 1), 9)


class Lies:
    """What a proxy makes of the pages of engines: their running requests, and how their sums of lengths grow.

    Attributes:
        running: What every engine says it works on; None is the truth.
        prompt: The share of their growth by which sums of prompt lengths grow.
        generation: The same of output lengths. A sum goes on from where it is when the lie ends.
    """

    def __init__(self) -> None:
        self.running: float | None = None
        self.prompt = self.generation = 1.0
        self._sums: dict[str, tuple[float, float]] = {}  # what was true, and what was said

    def __call__(self, path: str, page: str) -> str:
        """Rewrite the metric page that lies there."""
        told = []
        for line in page.split("\n"):
            series, _, number = line.rpartition(" ")
            name = series.partition("{")[0]
            if name == "vllm:num_requests_running" and self.running is not None:
                number = str(self.running)
            elif name == "vllm:request_prompt_tokens_sum":
                number = self._sum(path + series, float(number), self.prompt)
            elif name == "vllm:request_generation_tokens_sum":
                number = self._sum(path + series, float(number), self.generation)
            told.append(f"{series} {number}" if series else number)
        return "\n".join(told)

    def _sum(self, series: str, now: float, share: float) -> str:
        if math.isnan(now):
            return "NaN"
        # A series that is first read while it lies has lied from the start.
        true, said = self._sums.get(series, (now, now) if share == 1.0 else (0.0, 0.0))
        said = now if now < true else said + (now - true) * share
        self._sums[series] = now, said
        return repr(said)
