"""A pretend Kubernetes API over real HTTP: scales, pods and leases, versions and refusals."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from live_server import Answering


class Refused(Exception):  # noqa: N818  # an answer, not an error of ours
    def __init__(self, status: int) -> None:
        self.status = status


class Cluster(Answering):
    """Deployments by name with their pods, and leases; every write counts the version on.

    ``refuse`` maps a part of ``METHOD PATH`` to the status that such calls get, ``raw`` to what they are
    answered with. ``before`` is called with every call's ``METHOD PATH`` before it is answered, and may
    change anything: somebody else is at work too.
    """

    reasons: ClassVar[dict[int, str]] = {
        403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired", 429: "TooManyRequests",
        500: "InternalError",
    }  # fmt: skip

    def __init__(self, **replicas: int) -> None:
        self.version = 100
        self.scales = {name: {"replicas": size, "version": self.next()} for name, size in replicas.items()}
        self.pods = {name: [pod() for _ in range(size)] for name, size in replicas.items()}
        self.leases = {}
        self.refuse, self.calls, self.raw = {}, [], {}
        self.before = lambda call: None
        self.lock = threading.RLock()
        super().__init__()

    def client(self):
        from kubernetes import client

        settings = client.Configuration(host=self.url)
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

    def answer(self, request):
        url = urlsplit(request["target"])
        body = json.loads(request["body"]) if request["body"] else None
        status, answer = self.answered(request["method"], url, body)
        return status, answer, {"Content-Type": "application/json"}

    def answered(self, method, url, body):
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


def pod(*, ready=True, deleted=False, phase="Running", revision="a"):
    return {
        "metadata": {
            **({"deletionTimestamp": "now"} if deleted else {}), "labels": {"pod-template-hash": revision},
        },
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }  # fmt: skip


def cluster(**replicas):
    return contextlib.closing(Cluster(**replicas))
