"""A small HTTP server that answers as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs


class Answering:
    """A small HTTP server; ``answer`` gives (status, body, headers) for a request. A body may be JSON."""

    reasons: ClassVar[dict[int, str]] = {}
    """Words of a status where they are not the usual ones."""

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def respond(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = dict(self.headers)
                request = {"method": self.command, "target": self.path, "headers": headers, "body": body}
                status, data, headers = outer.answer(request)
                data = json.dumps(data).encode() if not isinstance(data, bytes) else data
                with contextlib.suppress(OSError):  # the client may have given up
                    self.send_response(status, outer.reasons.get(status))
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *args):
                pass

        for method in ("GET", "POST", "PUT", "PATCH"):
            setattr(Handler, f"do_{method}", Handler.respond)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Server(Answering):
    """``answers`` maps a path to (status, body, headers) or to a function of the request giving those."""

    def __init__(self) -> None:
        self.answers = {}
        self.asked = []
        super().__init__()

    def answer(self, request):
        path = request["path"] = request["target"].partition("?")[0]
        self.asked.append(request)
        answer = self.answers.get(path, (404, b"nothing here", {}))
        return answer(request) if callable(answer) else answer

    def form(self, index: int = -1) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(self.asked[index]["body"].decode()).items()}


def prometheus(answer, now_s=1_000_000.0):
    """What a Prometheus server answers: its time when asked for it, else ``answer``."""
    time = {"status": "success", "data": {"resultType": "scalar", "result": [now_s, str(now_s)]}}

    def respond(request):
        if parse_qs(request["body"].decode())["query"] == ["time()"]:
            return 200, time, {}
        return answer(request) if callable(answer) else answer

    return respond


def serving():
    return contextlib.closing(Server())
