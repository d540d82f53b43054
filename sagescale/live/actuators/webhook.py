"""A web service of the operator's own: the order as signed JSON."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.fleet import DISAGGREGATED
from sagescale.live.actuators.protocol import ActuatorError, parse_pool_states
from sagescale.live.http import HttpClient, HttpError, place_of
from sagescale.live.secret import read_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sagescale.live.actuators.protocol import Order, PoolStates
    from sagescale.live.config import LiveConfig

_RETRY_S = 0.5


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return the value of ``X-Sagescale-Signature``: HMAC-SHA256 over ``TIMESTAMP.BODY``.

    The timestamp (``X-Sagescale-Timestamp``, seconds since 1970) is signed too, so that an old order
    cannot be sent again by somebody who listened.
    """
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


def signature_holds(
    secret: str, timestamp: str, body: bytes, given: str, *, now_s: float, age_s: float
) -> bool:
    """Check a signature as a receiver should: right, and not older or newer than ``age_s``."""
    try:
        at_s = float(timestamp)
    except ValueError:
        return False
    return abs(now_s - at_s) <= age_s and hmac.compare_digest(
        signature(secret, timestamp, body).encode(), given.encode()
    )


class WebhookActuator:
    """Posts orders; reads the pools' state where a URL for it is given.

    A post that fails or is not answered is tried again under the same ``Idempotency-Key``. Answers
    below 500 that are errors are final: the receiver has understood and refused.

    Raises:
        InputError: the secret or a certificate cannot be read.
    """

    def __init__(
        self,
        live: LiveConfig,
        pools: Sequence[str] = DISAGGREGATED,
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        assert live.webhook_url is not None
        self._pools = pools
        self._live = live
        self._url = live.webhook_url
        self._http = HttpClient(live)
        self._sleep = sleep
        self._secret()

    @property
    def target(self) -> str:
        """Where orders go."""
        return f"webhook {place_of(self._url)}"

    def states(self) -> PoolStates | None:
        """Ask the state URL, where there is one."""
        url = self._live.webhook_state_url
        if url is None:
            return None
        try:
            reply = self._http.get(url, timeout_s=self._live.actuator_timeout_s)
        except HttpError as error:
            raise ActuatorError(str(error)) from None
        return parse_pool_states(reply.body, place_of(url), self._pools)

    def carry_out(self, order: Order) -> None:
        """Post the order until it is taken, at most ``webhook_attempts`` times within the time limit."""
        live = self._live
        body = json.dumps(order.to_dict()).encode()
        deadline = time.monotonic() + live.actuator_timeout_s
        problem = "not tried"
        for attempt in range(live.webhook_attempts):
            if attempt:
                self._sleep(min(_RETRY_S * 2 ** (attempt - 1), max(0.0, deadline - time.monotonic())))
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                self._http.request(
                    "POST", self._url, timeout_s=left, content=body, headers=self._headers(order, body)
                )
            except InputError as error:
                # A key that is being replaced may be missing for a moment.
                problem = str(error)
            except HttpError as error:
                problem = str(error)
                if error.status is not None and error.status < 500 and error.status != 429:
                    break
            else:
                return
        raise ActuatorError(problem)

    def close(self) -> None:
        """Do nothing: no connection outlives its request."""

    def _secret(self) -> str | None:
        secret = read_secret("webhook_secret", self._live.webhook_secret_file, self._live.webhook_secret_env)
        return None if secret is None else secret.reveal()

    def _headers(self, order: Order, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": order.key}
        if (secret := self._secret()) is not None:
            timestamp = f"{time.time():.3f}"
            headers["X-Sagescale-Timestamp"] = timestamp
            headers["X-Sagescale-Signature"] = signature(secret, timestamp, body)
        return headers
