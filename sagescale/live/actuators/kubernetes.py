"""Kubernetes: the scale subresource of anything that has one."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sagescale.errors import InputError
from sagescale.fleet import DISAGGREGATED, PoolCounts, Pools
from sagescale.live.actuators.kubernetes_api import (
    ApiRefusedError,
    KubernetesApi,
    count_in,
    make_client,
    part,
)
from sagescale.live.actuators.lease import Lease
from sagescale.live.actuators.protocol import ActuatorError, PoolStates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sagescale.live.actuators.protocol import Order
    from sagescale.live.config import LiveConfig

_KNOWN = {
    "deployments": "apis/apps/v1",
    "deployment": "apis/apps/v1",
    "statefulsets": "apis/apps/v1",
    "statefulset": "apis/apps/v1",
    "replicasets": "apis/apps/v1",
    "leaderworkersets": "apis/leaderworkerset.x-k8s.io/v1",
    "leaderworkerset": "apis/leaderworkerset.x-k8s.io/v1",
}
_LEADERS = "leaderworkerset.sigs.k8s.io/worker-index=0"
_REVISIONS = (
    "pod-template-hash", "controller-revision-hash", "leaderworkerset.sigs.k8s.io/template-revision-hash",
    "rollouts-pod-template-hash",
)  # fmt: skip
"""The labels by which controllers tell pods of one revision from those of another."""

_FORBIDDEN, _CONFLICT = 403, 409
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Workload:
    """Something with a scale subresource."""

    api: str
    plural: str
    name: str

    @classmethod
    def parse(cls, key: str, text: str) -> Workload:
        """Read ``deployments/NAME`` or ``GROUP/VERSION/PLURAL/NAME``.

        Raises:
            InputError: it is neither; ``key`` is named.
        """
        parts = text.split("/")
        plain = all(part and part.replace("-", "").replace(".", "").isalnum() for part in parts)
        if plain and len(parts) == 2 and parts[0] in _KNOWN:
            return cls(_KNOWN[parts[0]], parts[0] if parts[0].endswith("s") else f"{parts[0]}s", parts[1])
        if plain and len(parts) == 4:
            return cls(f"apis/{parts[0]}/{parts[1]}", parts[2], parts[3])
        raise InputError(
            f"{key} is '{text}'; expected deployments/NAME, statefulsets/NAME, leaderworkersets/NAME or "
            "GROUP/VERSION/PLURAL/NAME"
        )

    def path(self, namespace: str) -> str:
        """Return the path of its scale subresource."""
        return f"/{self.api}/namespaces/{namespace}/{self.plural}/{self.name}/scale"


@dataclass(frozen=True, slots=True)
class _Pool:
    """What was found of one workload: ``rollout`` in words, empty where all pods are of one revision."""

    counts: PoolCounts
    rollout: str = ""
    pods_seen: bool = True


_KEYS = {
    "prefill": "kubernetes_prefill", "decode": "kubernetes_decode", "aggregated": "kubernetes_workload"
}  # fmt: skip


def _workload(live: LiveConfig, key: str) -> Workload:
    text: str | None = getattr(live, key)
    if text is None:
        raise InputError(f"actuator is 'kubernetes' but {key} is not given; expected it too")
    return Workload.parse(key, text)


class KubernetesActuator:
    """Patches ``spec.replicas`` of the pools' workloads; counts their pods by what they are doing.

    A pod is ready, starting, or (deleted but not gone) draining. Where pods may not be listed, the
    counts are those of the scale subresource, which does not know of draining.

    Nothing is patched that somebody else has changed since it was read: every patch names the version it was
    decided on, and the API refuses it otherwise.

    Args:
        live: The configuration.
        client: An ``ApiClient``; by default one made from the kubeconfig or the pod's service account.

    Raises:
        InputError: the extra is not installed, a workload is no workload, or no cluster is configured.
    """

    def __init__(
        self,
        live: LiveConfig,
        client: Any = None,  # noqa: ANN401  # the client has no types
        pools: Sequence[str] = DISAGGREGATED,
    ) -> None:
        self._loads = {pool: _workload(live, _KEYS[pool]) for pool in pools}
        if len(set(self._loads.values())) < len(self._loads):
            raise InputError("kubernetes_prefill and kubernetes_decode are the same workload; expected two")
        self._namespace = live.kubernetes_namespace
        self._context = live.kubernetes_context
        self._timeout_s = live.actuator_timeout_s
        self._client = make_client(live) if client is None else client
        self._api = KubernetesApi(self._client, live.actuator_timeout_s)
        self._confirm: Callable[[], None] = _unguarded

    @property
    def target(self) -> str:
        """The workloads."""
        names = " and ".join(f"{load.plural}/{load.name}" for load in self._loads.values())
        where = f"{self._context}/" if self._context else ""
        return f"kubernetes {where}{self._namespace}: {names}"

    def lease(self) -> Lease:
        """Return the right to scale these workloads, whatever machine or context asks for it.

        From now on nothing is patched without it.
        """
        loads = " ".join(load.path(self._namespace) for load in self._loads.values())
        name = f"sagescale-{hashlib.sha256(loads.encode()).hexdigest()[:16]}"
        lease = Lease(KubernetesApi(self._client, self._timeout_s), self._namespace, name, loads)
        self._confirm = lease.confirm
        return lease

    def states(self) -> PoolStates | None:
        """Count the pods of the workloads."""
        return self._api.jobs.call(self._count)

    def carry_out(self, order: Order) -> None:
        """Patch the workloads that change, the shrinking one first."""
        self._api.jobs.call(self._patch_all, order)

    def close(self) -> None:
        """Close connections."""
        self._api.close()

    def _count(self) -> PoolStates:
        found = {name: self._pool(name, load) for name, load in self._loads.items()}
        return PoolStates(
            Pools.of({name: pool.counts for name, pool in found.items()}),
            rollout="; ".join(pool.rollout for pool in found.values() if pool.rollout),
            draining_seen=all(pool.pods_seen for pool in found.values()),
        )

    def _patch_all(self, order: Order) -> None:
        loads = zip(self._loads.values(), order.sizes, order.current, strict=True)
        for load, size, current in sorted(loads, key=lambda item: item[1] - item[2]):
            self._patch(load, size, current)

    def _patch(self, load: Workload, size: int, current: int) -> None:
        path = load.path(self._namespace)
        for _ in range(_ATTEMPTS):
            scale = self._api.call("GET", path)
            found = count_in(part(scale, "spec"), "replicas", path)
            if found == size:
                return
            if found != current:
                raise ActuatorError(
                    f"kubernetes: {path}: has {found} replicas, not {current}: somebody else changed it; "
                    "left alone"
                )
            version = part(scale, "metadata").get("resourceVersion")
            named = {} if version is None else {"metadata": {"resourceVersion": version}}
            # After the version was read: whoever takes over from now on changes it before we do.
            self._confirm()
            try:
                self._api.call("PATCH", path, {**named, "spec": {"replicas": size}})
            except ApiRefusedError as error:
                if error.status != _CONFLICT:
                    raise
                continue  # changed since it was read, if only in its status
            return
        raise ActuatorError(f"kubernetes: {path}: changed by others at each of {_ATTEMPTS} attempts")

    def _pool(self, name: str, load: Workload) -> _Pool:
        path = load.path(self._namespace)
        scale = self._api.call("GET", path)
        wanted = count_in(part(scale, "spec"), "replicas", path)
        status = part(scale, "status")
        there = count_in(status, "replicas", path)
        selector = status.get("selector")
        if selector and load.plural == "leaderworkersets":
            selector = f"{selector},{_LEADERS}"
        pods = self._pods(str(selector)) if selector else None
        if pods is None:
            up = min(wanted, there)
            # More than wanted are those of a rollout, or still to go.
            return _Pool(PoolCounts(up, wanted - up, max(0, there - wanted)), pods_seen=False)
        ready = starting = draining = 0
        revisions: Counter[tuple[str, ...]] = Counter()
        for pod in pods:
            if part(pod, "status").get("phase") in {"Succeeded", "Failed"}:
                continue
            if part(pod, "metadata").get("deletionTimestamp"):
                draining += 1
                continue
            if _is_ready(pod):
                ready += 1
            else:
                starting += 1
            labels = part(pod, "metadata", "labels")
            revisions[tuple(str(labels.get(label, "")) for label in _REVISIONS)] += 1
        # The controller has not acted on everything yet: pods to come wait, pods to go still drain. Those
        # that a rollout has beyond the size go too, in the end, and occupy GPUs until then.
        surplus = max(0, ready + starting - wanted)
        late = min(starting, surplus)
        counts = PoolCounts(
            ready=ready - (surplus - late),
            starting=starting - late,
            draining=draining + surplus,
            waiting=max(0, wanted - ready - starting),
        )
        if len(revisions) < 2:
            return _Pool(counts)
        each = " + ".join(str(count) for _, count in sorted(revisions.items()))
        return _Pool(counts, f"{name} has {each} pods of {len(revisions)} revisions, {ready} ready")

    def _pods(self, selector: str) -> list[object] | None:
        """Return the pods; ``None`` where they may not be listed, which may change any time."""
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        try:
            items = self._api.call("GET", path, query=[("labelSelector", selector)]).get("items")
        except ApiRefusedError as error:
            if error.status != _FORBIDDEN:
                raise
            return None
        if not isinstance(items, list):
            raise ActuatorError(f"kubernetes: {path}: answered with no list of pods")
        return items


def _is_ready(pod: object) -> bool:
    conditions = part(pod, "status").get("conditions")
    return isinstance(conditions, list) and any(
        isinstance(item, dict) and item.get("type") == "Ready" and item.get("status") == "True"
        for item in conditions
    )


def _unguarded() -> None:
    """Allow every patch: no lease was taken."""
