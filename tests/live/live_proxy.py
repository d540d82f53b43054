"""A proxy that can be made to lie, drip, flood or say nothing: what stands between a planner and its world."""

from __future__ import annotations

import functools
import gzip
import http.client
import json
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
        rewrite: Changes what a metric page says; None leaves it.
        orders: Every scale command that was answered with 200.
    """

    def __init__(self, port: int) -> None:
        self.mode = "pass"
        self.rewrite: Callable[[str], str] | None = None
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
        if self.rewrite is not None and path.endswith("/metrics"):
            data = self.rewrite(data.decode()).encode()
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
        headers = {**self.headers, "Connection": "close", "Accept-Encoding": "identity"}
        try:
            status, kind, data = self.owner.forward(self.command, self.path, headers, body)
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # as if the proxy were not there
            return
        self._whole(status, data, {"Content-Type": kind})

    do_GET = do_POST = _serve

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


def _lines(page: str, names: tuple[str, ...], value: Callable[[str, float], float]) -> str:
    """Change the values of some metrics of a page."""
    changed = []
    for line in page.split("\n"):
        series, _, number = line.rpartition(" ")
        if series.partition("{")[0].removeprefix("vllm:") in names:
            line = f"{series} {value(series, float(number))!r}"  # noqa: PLW2901  # changed on the way
        changed.append(line)
    return "\n".join(changed)


def negative_running(page: str) -> str:
    """Engines that say they work on less than nothing."""
    return _lines(page, ("num_requests_running",), lambda *_: -15.0)


def lengths_grow(share: float) -> Callable[[str], str]:
    """Make a page whose sums of lengths grow by a share only of what they should, while requests go on."""
    since: dict[str, float] = {}

    def rewrite(page: str) -> str:
        names = (
            ("request_prompt_tokens_sum", "request_generation_tokens_sum")
            if share == 0
            else ("request_generation_tokens_sum",)
        )
        return _lines(
            page, names, lambda series, now: (at := since.setdefault(series, now)) + (now - at) * share
        )

    return rewrite
