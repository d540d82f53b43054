"""The Kubernetes API as far as it is needed: one call, with the status it was refused with."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sagescale.errors import InputError
from sagescale.live.actuators.in_time import TimedCalls
from sagescale.live.actuators.protocol import MAX_INSTANCES, ActuatorError
from sagescale.live.secret import foreign_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sagescale.live.config import LiveConfig

_MERGE_PATCH = "application/merge-patch+json"


class ApiRefusedError(ActuatorError):
    """The API answered, and refused; ``status`` is its HTTP status code."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class KubernetesApi:
    """Calls the API; each call ends within what its ``TimedCalls`` has left.

    Args:
        client: The official client's ``ApiClient``.
        timeout_s: How long one job, of any number of calls, may take.
    """

    def __init__(self, client: Any, timeout_s: float) -> None:  # noqa: ANN401  # the client has no types
        self._client = client
        self.jobs = TimedCalls("kubernetes", timeout_s)

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """Return the object that a call answers with.

        Raises:
            ApiRefusedError: the API refused; its status is known.
            ActuatorError: it could not be reached, or did not answer with an object.
        """
        from urllib3.exceptions import HTTPError

        refused = import_module("kubernetes.client.exceptions").ApiException
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = _MERGE_PATCH if method == "PATCH" else "application/json"
        where = f"kubernetes: {method} {path}"
        try:
            answer = self._client.call_api(
                path,
                method,
                query_params=list(query),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                response_type="object",
                _return_http_data_only=True,
                _request_timeout=self.jobs.left_s(),
            )
        except refused as error:
            status = error.status if isinstance(error.status, int) else 0
            raise ApiRefusedError(foreign_text(f"{where}: {status} {error.reason}"), status) from None
        except (HTTPError, OSError, ValueError) as error:
            raise ActuatorError(f"{where}: {type(error).__name__}") from None
        if not isinstance(answer, dict):
            raise ActuatorError(f"{where}: answered with no object")
        return answer

    def close(self) -> None:
        """Close connections."""
        self._client.close()


def part(document: object, *names: str) -> dict[str, Any]:
    """Return an object inside an object; empty where there is none."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def count_in(found: Mapping[str, Any], name: str, where: str) -> int:
    """Return a count; one that is left out is 0, as Kubernetes leaves zeros out.

    Raises:
        ActuatorError: it is no count.
    """
    value = found.get(name) or 0
    if type(value) is not int or not 0 <= value <= MAX_INSTANCES:
        raise ActuatorError(
            f"kubernetes: {where}: {name} is {repr(value)[:60]}; "
            f"expected an integer from 0 to {MAX_INSTANCES}"
        )
    return value


def make_client(live: LiveConfig) -> Any:  # noqa: ANN401  # the client has no types
    """Make the official client, from the kubeconfig or the pod's service account.

    Raises:
        InputError: the extra is not installed, or no cluster is configured.
    """
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
