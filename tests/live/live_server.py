"""A small HTTP server that answers as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


class Server:
    """``answers`` maps a path to (status, body, headers) or to a function of the request giving those."""

    def __init__(self) -> None:
        self.answers = {}
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def respond(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                path = self.path.partition("?")[0]
                request = {"method": self.command, "path": path, "headers": dict(self.headers), "body": body}
                outer.asked.append(request)
                answer = outer.answers.get(path, (404, b"nothing here", {}))
                status, data, headers = answer(request) if callable(answer) else answer
                data = json.dumps(data).encode() if not isinstance(data, bytes) else data
                with contextlib.suppress(OSError):  # the client may have given up
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *args):
                pass

        for method in ("GET", "POST", "PATCH"):
            setattr(Handler, f"do_{method}", Handler.respond)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def form(self, index: int = -1) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(self.asked[index]["body"].decode()).items()}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def prometheus(answer, now_s=1_000_000.0):
    """What a Prometheus server answers: its time when asked for it, else ``answer``."""
    time = {"status": "success", "data": {"resultType": "scalar", "result": [now_s, str(now_s)]}}

    def respond(request):
        if parse_qs(request["body"].decode())["query"] == ["time()"]:
            return 200, time, {}
        return answer(request) if callable(answer) else answer

    return respond


@contextlib.contextmanager
def serving():
    server = Server()
    try:
        yield server
    finally:
        server.close()
