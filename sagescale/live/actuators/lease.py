"""The right to scale, held in the cluster: one planner at a time, on whatever machine."""

from __future__ import annotations

import math
import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sagescale.live.actuators.kubernetes_api import ApiRefusedError, count_in, part
from sagescale.live.actuators.protocol import ActuatorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.live.actuators.kubernetes_api import KubernetesApi

_DURATION_S = 15
_RENEW_S = 5.0
_GIVEN_UP_S = 10.0
"""Without a renewal for so long we no longer take it for ours: well before anybody else may."""

_FORBIDDEN, _NOT_FOUND, _CONFLICT = 403, 404, 409


class Lease:
    """A ``coordination.k8s.io/v1`` Lease, held and renewed as Kubernetes' own controllers do.

    Whether another holder still lives is decided by this machine's clock alone: how long ago its lease was
    seen to change. No two clocks are compared. Every change names the version it was decided on, so that
    of two who take it at once one is refused.

    Args:
        api: The cluster.
        namespace: Where the Lease lies.
        name: Its name.
        about: What it is the right to, for people who find it.
        monotonic: A clock, in seconds.
    """

    def __init__(
        self,
        api: KubernetesApi,
        namespace: str,
        name: str,
        about: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._folder = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._folder}/{name}"
        self._name, self._about, self._monotonic = name, about, monotonic
        self.me = f"{socket.gethostname()}_{secrets.token_hex(4)}"
        self.holder = ""
        """Who holds it, as last seen."""
        self._seen: tuple[object, float] = (None, 0.0)
        self._renewed_s = -math.inf
        self.lasts_s = float(_DURATION_S)
        """How long its holder may leave it alone before it is taken for gone."""
        self._one_at_a_time = threading.Lock()
        self._ended = threading.Event()

    @property
    def name(self) -> str:
        """Where it lies."""
        return f"lease {self._path}"

    def holds(self) -> bool:
        """Say whether it is ours, by what is known here: renewed less than ten seconds ago."""
        return self._monotonic() - self._renewed_s < _GIVEN_UP_S

    def acquire(self) -> bool:
        """Take or renew it; say whether it is ours now.

        Raises:
            ActuatorError: the API refuses or cannot be reached.
        """
        try:
            with self._one_at_a_time:
                return self._api.jobs.call(self._acquire)
        except ApiRefusedError as error:
            if error.status != _FORBIDDEN:
                raise
            raise ActuatorError(
                f"{error}; one planner at a time may scale: give the role get, create and update on leases "
                "(docs/deploy/sagescale.yaml)"
            ) from None

    def confirm(self) -> None:
        """Make sure right before acting, by renewing it, that it is still ours.

        Raises:
            ActuatorError: it is not, or nobody can say.
        """
        if not self.acquire():
            raise ActuatorError(f"kubernetes: {self.name} is held by {self.holder}: nothing is changed")

    def keep(self) -> None:
        """Renew it from now on in a thread of its own; where it was lost, get it back once it is free."""
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def release(self) -> None:
        """Give it back, so that the next need not wait; where that fails it runs out by itself."""
        self._ended.set()
        try:
            with self._one_at_a_time:
                self._api.jobs.call(self._give_back)
        except ActuatorError:
            return

    def _keep(self) -> None:
        while not self._ended.wait(_RENEW_S):
            try:
                self.acquire()
            except ActuatorError:
                continue  # it runs out by the clock; the loop says so

    def _acquire(self) -> bool:
        began_s = self._monotonic()
        try:
            lease = self._api.call("GET", self._path)
        except ApiRefusedError as error:
            if error.status != _NOT_FOUND:
                raise
            return self._write("POST", self._folder, {}, began_s)
        spec = part(lease, "spec")
        self.holder = str(spec.get("holderIdentity") or "")
        if self.holder in {"", self.me}:
            return self._write("PUT", self._path, lease, began_s)
        self._renewed_s = -math.inf
        state = (self.holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if state != self._seen[0]:
            self._seen = (state, began_s)
        self.lasts_s = float(count_in(spec, "leaseDurationSeconds", self._path) or _DURATION_S)
        if began_s - self._seen[1] < self.lasts_s:
            return False
        return self._write("PUT", self._path, lease, began_s)

    def _write(self, method: str, path: str, lease: dict[str, Any], began_s: float) -> bool:
        spec, now = part(lease, "spec"), datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
        mine = spec.get("holderIdentity") == self.me
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._name,
                "annotations": {"sagescale/scales": self._about},
                # Without a version a PUT overwrites whatever is there.
                **({"resourceVersion": version} if (version := _version(lease)) else {}),
            },
            "spec": {
                "holderIdentity": self.me,
                "leaseDurationSeconds": _DURATION_S,
                "acquireTime": spec.get("acquireTime") if mine else now,
                "renewTime": now,
                "leaseTransitions": count_in(spec, "leaseTransitions", self._path) + (not mine),
            },
        }
        try:
            self._api.call(method, path, body)
        except ApiRefusedError as error:
            if error.status != _CONFLICT:
                raise
            self._renewed_s = -math.inf  # somebody was quicker
            return False
        self.holder, self._renewed_s = self.me, began_s
        return True

    def _give_back(self) -> None:
        lease = self._api.call("GET", self._path)
        self._renewed_s = -math.inf
        if part(lease, "spec").get("holderIdentity") == self.me:
            free = {**part(lease, "spec"), "holderIdentity": ""}
            self._api.call("PUT", self._path, {**lease, "spec": free})


def _version(lease: dict[str, Any]) -> str:
    return str(part(lease, "metadata").get("resourceVersion") or "")
