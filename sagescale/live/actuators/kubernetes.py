"""Kubernetes: the scale subresource of anything that has one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sagescale.errors import InputError
from sagescale.live.actuators.in_time import TimedCalls
from sagescale.live.actuators.protocol import ActuatorError, PoolStates
from sagescale.planner import PoolCounts

if TYPE_CHECKING:
    from sagescale.live.actuators.protocol import Order
    from sagescale.live.config import LiveConfig

__all__ = ["KubernetesActuator", "Workload"]

_KNOWN = {
    "deployments": "apis/apps/v1",
    "deployment": "apis/apps/v1",
    "statefulsets": "apis/apps/v1",
    "statefulset": "apis/apps/v1",
    "replicasets": "apis/apps/v1",
    "leaderworkersets": "apis/leaderworkerset.x-k8s.io/v1",
    "leaderworkerset": "apis/leaderworkerset.x-k8s.io/v1",
}
_PATCH = "application/merge-patch+json"
_LEADERS = "leaderworkerset.sigs.k8s.io/worker-index=0"


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


class KubernetesActuator:
    """Patches ``spec.replicas`` of two workloads; counts their pods by what they are doing.

    A pod is ready, starting, or (deleted but not gone) draining. Where pods may not be listed, the
    counts are those of the scale subresource, which does not know of draining.

    Args:
        live: The configuration.
        api: An ``ApiClient``; by default one made from the kubeconfig or the pod's service account.

    Raises:
        InputError: the extra is not installed, a workload is no workload, or no cluster is configured.
    """

    def __init__(self, live: LiveConfig, api: Any = None) -> None:  # noqa: ANN401  # the client has no types
        assert live.kubernetes_prefill is not None
        assert live.kubernetes_decode is not None
        self._workloads = (
            Workload.parse("kubernetes_prefill", live.kubernetes_prefill),
            Workload.parse("kubernetes_decode", live.kubernetes_decode),
        )
        if self._workloads[0] == self._workloads[1]:
            raise InputError("kubernetes_prefill and kubernetes_decode are the same workload; expected two")
        self._namespace = live.kubernetes_namespace
        self._context = live.kubernetes_context
        self._api = _client(live) if api is None else api
        self._pods_listed = True
        self._calls = TimedCalls("kubernetes", live.actuator_timeout_s)

    @property
    def target(self) -> str:
        """Both workloads."""
        names = " and ".join(f"{load.plural}/{load.name}" for load in self._workloads)
        where = f"{self._context}/" if self._context else ""
        return f"kubernetes {where}{self._namespace}: {names}"

    def states(self) -> PoolStates | None:
        """Count the pods of both workloads."""
        return self._calls.call(self._count)

    def carry_out(self, order: Order) -> None:
        """Patch the workloads that change, the shrinking one first."""
        self._calls.call(self._patch, order)

    def _count(self) -> PoolStates:
        prefill, decode = self._workloads
        return PoolStates(self._counts(prefill), self._counts(decode))

    def _patch(self, order: Order) -> None:
        loads = zip(self._workloads, order.sizes, order.current, strict=True)
        for load, size, _ in sorted(loads, key=lambda item: item[1] - item[2]):
            scale = self._call("GET", load.path(self._namespace))
            if scale.get("spec", {}).get("replicas") != size:
                self._call("PATCH", load.path(self._namespace), {"spec": {"replicas": size}})

    def close(self) -> None:
        """Close connections."""
        self._api.close()

    def _counts(self, load: Workload) -> PoolCounts:
        scale = self._call("GET", load.path(self._namespace))
        wanted = int(scale.get("spec", {}).get("replicas") or 0)
        there = int(scale.get("status", {}).get("replicas") or 0)
        selector = scale.get("status", {}).get("selector")
        if selector and load.plural == "leaderworkersets":
            selector = f"{selector},{_LEADERS}"
        pods = self._pods(selector) if selector and self._pods_listed else None
        if pods is None:
            up = min(wanted, there)
            return PoolCounts(ready=up, starting=max(0, wanted - up))
        ready = starting = draining = 0
        for pod in pods:
            status = pod.get("status", {})
            if status.get("phase") in {"Succeeded", "Failed"}:
                continue
            conditions = {item.get("type"): item.get("status") for item in status.get("conditions") or []}
            if pod.get("metadata", {}).get("deletionTimestamp"):
                draining += 1
            elif conditions.get("Ready") == "True":
                ready += 1
            else:
                starting += 1
        # The controller has not acted on everything yet: pods to come wait, pods to go still drain.
        surplus = max(0, ready + starting - wanted)
        late = min(starting, surplus)
        return PoolCounts(
            ready=ready - (surplus - late),
            starting=starting - late,
            draining=draining + surplus,
            waiting=max(0, wanted - ready - starting),
        )

    def _pods(self, selector: str) -> list[dict[str, Any]] | None:
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        try:
            items = self._call("GET", path, query=[("labelSelector", selector)]).get("items")
        except ActuatorError as error:
            if "403" not in str(error):
                raise
            self._pods_listed = False
            return None
        return items if isinstance(items, list) else None

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        query: list[tuple[str, str]] | None = None,
    ) -> dict[str, Any]:
        from urllib3.exceptions import HTTPError

        refused = import_module("kubernetes.client.exceptions").ApiException

        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = _PATCH
        try:
            answer = self._api.call_api(
                path,
                method,
                query_params=query or [],
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                response_type="object",
                _return_http_data_only=True,
                _request_timeout=self._calls.left_s(),
            )
        except refused as error:
            raise ActuatorError(f"kubernetes: {method} {path}: {error.status} {error.reason}") from None
        except (HTTPError, OSError) as error:
            raise ActuatorError(f"kubernetes: {method} {path}: {type(error).__name__}") from None
        return answer if isinstance(answer, dict) else {}


def _client(live: LiveConfig) -> Any:  # noqa: ANN401  # the client has no types
    try:
        client, config = import_module("kubernetes.client"), import_module("kubernetes.config")
    except ImportError:
        raise InputError(
            "actuator is 'kubernetes' but its client is not installed; run: "
            "pip install 'sagescale[kubernetes]'"
        ) from None
    settings = client.Configuration()
    try:
        config.load_kube_config(context=live.kubernetes_context, client_configuration=settings)
    except (config.ConfigException, OSError) as error:
        if live.kubernetes_context is not None:
            raise InputError(f"kubernetes_context is '{live.kubernetes_context}': {error}") from None
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            raise InputError(f"kubernetes: neither a kubeconfig nor a service account: {error}") from None
    return client.ApiClient(settings)
