"""A pretend Kubernetes API over real HTTP: scales, pods and leases, versions and refusals."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

REASONS = {
    403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired", 429: "TooManyRequests",
    500: "InternalError",
}  # fmt: skip


class Refused(Exception):  # noqa: N818  # an answer, not an error of ours
    def __init__(self, status: int) -> None:
        self.status = status


class Cluster:
    """Deployments by name with their pods, and leases; every write counts the version on.

    ``refuse`` maps a part of ``METHOD PATH`` to the status that such calls get, ``raw`` to what they are
    answered with. ``before`` is called with every call's ``METHOD PATH`` before it is answered, and may
    change anything: somebody else is at work too.
    """

    def __init__(self, **replicas: int) -> None:
        self.version = 100
        self.scales = {name: {"replicas": size, "version": self.next()} for name, size in replicas.items()}
        self.pods = {name: [pod() for _ in range(size)] for name, size in replicas.items()}
        self.leases = {}
        self.refuse, self.calls, self.raw = {}, [], {}
        self.before = lambda call: None
        self.lock = threading.RLock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def respond(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer = outer.answer(self.command, self.path, json.loads(body) if body else None)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                with contextlib.suppress(OSError):
                    self.send_response(status, REASONS.get(status))
                    self.send_header("Content-Type", "application/json")
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

    def client(self):
        from kubernetes import client

        settings = client.Configuration(host=f"http://127.0.0.1:{self.server.server_address[1]}")
        settings.retries = False
        return client.ApiClient(settings)

    def next(self) -> str:
        self.version += 1
        return str(self.version)

    def scale(self, name, size):
        """Scale as somebody else does; pods follow at once."""
        self.scales[name] = {"replicas": size, "version": self.next()}

    @property
    def sizes(self):
        return {name: scale["replicas"] for name, scale in self.scales.items()}

    @property
    def patched(self):
        return [call for call in self.calls if call.startswith("PATCH")]

    def answer(self, method, target, body):
        url = urlsplit(target)
        call = f"{method} {url.path}"
        with self.lock:
            self.calls.append(call)
            self.before(call)
            refused = [status for part, status in self.refuse.items() if part in call]
            if refused:
                return refused[0], {"kind": "Status", "code": refused[0], "message": "no"}
            raw = [data for part, data in self.raw.items() if part in call]
            if raw:
                return 200, raw[0]
            try:
                return 200, self.serve(method, url.path, parse_qs(url.query), body)
            except Refused as refused:
                return refused.status, {"kind": "Status", "code": refused.status, "message": "no"}

    def serve(self, method, path, query, body):
        parts = path.strip("/").split("/")
        if parts[-1] == "pods":
            name = query["labelSelector"][0].partition("=")[2]
            return {"kind": "PodList", "items": self.pods[name]}
        if "leases" in parts:
            return self.lease(method, parts[-1], body)
        name = parts[-2]
        if name not in self.scales:
            raise Refused(404)
        scale = self.scales[name]
        if method == "PATCH":
            if body.get("metadata", {}).get("resourceVersion", scale["version"]) != scale["version"]:
                raise Refused(409)
            self.scale(name, body["spec"]["replicas"])
            scale = self.scales[name]
        status = {"replicas": len(self.pods[name]), "selector": f"app={name}"}
        if not status["replicas"]:
            del status["replicas"]  # as Kubernetes leaves zeros out
        return {
            "metadata": {"name": name, "resourceVersion": scale["version"]},
            "spec": {"replicas": scale["replicas"]} if scale["replicas"] else {},
            "status": status,
        }

    def lease(self, method, name, body):
        found = self.leases.get(name)
        if method == "POST":
            name = body["metadata"]["name"]
            if name in self.leases:
                raise Refused(409)
        elif found is None:
            raise Refused(404)
        if method in {"POST", "PUT"}:
            if (
                method == "PUT"
                and body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]
            ):
                raise Refused(409)
            body["metadata"]["resourceVersion"] = self.next()
            found = self.leases[name] = body
        return found

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def pod(*, ready=True, deleted=False, phase="Running", revision="a"):
    return {
        "metadata": {
            **({"deletionTimestamp": "now"} if deleted else {}), "labels": {"pod-template-hash": revision},
        },
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }  # fmt: skip


@contextlib.contextmanager
def cluster(**replicas):
    found = Cluster(**replicas)
    try:
        yield found
    finally:
        found.close()
