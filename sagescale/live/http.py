"""HTTP that cannot hang, swell or leak: one deadline, one size limit, no credentials to strangers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sagescale.errors import InputError, SagescaleError
from sagescale.live.secret import read_secret

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    import httpx

    from sagescale.live.config import LiveConfig
    from sagescale.live.secret import Secret

__all__ = ["Credentials", "HttpClient", "HttpError", "Reply", "place_of"]

_MAX_REDIRECTS = 3


class HttpError(SagescaleError):
    """A request failed: refused, late, too large, redirected to a stranger, or answered with an error.

    Attributes:
        status: The server's answer where there was one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to authenticate: a bearer token, or user and password, read anew for every request."""

    bearer_file: str | None = None
    bearer_env: str | None = None
    username: str | None = None
    password_file: str | None = None
    password_env: str | None = None

    @classmethod
    def of_metrics(cls, live: LiveConfig) -> Credentials:
        """Return those of the metric source."""
        return cls(
            live.metrics_bearer_token_file,
            live.metrics_bearer_token_env,
            live.metrics_username,
            live.metrics_password_file,
            live.metrics_password_env,
        )

    def header(self) -> Secret | None:
        """Return the value of the ``Authorization`` header.

        Raises:
            InputError: a secret cannot be read, or the keys contradict one another.
        """
        from base64 import b64encode

        from sagescale.live.secret import Secret

        token = read_secret("metrics_bearer_token", self.bearer_file, self.bearer_env)
        password = read_secret("metrics_password", self.password_file, self.password_env)
        if token is not None:
            if self.username is not None or password is not None:
                raise InputError(
                    "a bearer token and a user name or password are given; expected one of the two"
                )
            return Secret(f"Bearer {token.reveal()}")
        if self.username is None:
            if password is not None:
                raise InputError("a password is given but metrics_username is not; expected both")
            return None
        pair = f"{self.username}:{'' if password is None else password.reveal()}"
        return Secret("Basic " + b64encode(pair.encode()).decode())


class HttpClient:
    """Requests with the configuration's TLS, a deadline each, and a limit on what is read.

    Environment proxies and ``.netrc`` are not consulted: who is talked to, and with which password, is in
    the configuration alone. A redirect is followed within one origin and refused across.

    Raises:
        InputError: a certificate file cannot be used.
    """

    def __init__(self, live: LiveConfig, credentials: Credentials | None = None) -> None:
        import httpx

        self._max_bytes = live.metrics_max_bytes
        self._credentials = credentials or Credentials()
        self._credentials.header()  # a missing secret is refused now, not at the first tick
        self._client = httpx.Client(
            verify=_tls(live), follow_redirects=False, trust_env=False, headers={"User-Agent": "sagescale"}
        )

    def close(self) -> None:
        """Close kept connections."""
        self._client.close()

    def get(self, url: str, *, timeout_s: float, params: Mapping[str, str] | None = None) -> Reply:
        """Get; see ``request``."""
        return self.request("GET", url, timeout_s=timeout_s, params=params)

    def request(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and read its whole answer.

        Raises:
            HttpError: anything but an answer below 400, in time and within the size limit.
        """
        import httpx

        deadline = time.monotonic() + timeout_s
        place = place_of(url)
        sent = dict(headers or {})
        if (secret := self._credentials.header()) is not None:
            sent["Authorization"] = secret.reveal()
        body: Mapping[str, str] | None = form
        for _ in range(_MAX_REDIRECTS + 1):
            left = max(0.001, deadline - time.monotonic())
            try:
                with self._client.stream(
                    method, url, params=params, data=body, content=content, headers=sent, timeout=left
                ) as response:
                    if response.is_redirect:
                        url = _same_origin(url, response, place)
                        params = None
                        continue
                    data = self._read(response, deadline, place)
            except httpx.TimeoutException:
                raise HttpError(f"{place}: no answer within {timeout_s:g} s") from None
            except httpx.HTTPError as error:
                raise HttpError(f"{place}: {_reason(error)}") from None
            if response.status_code >= 400:
                text = " ".join(data[:200].decode("utf-8", "replace").split())
                raise HttpError(f"{place}: answered {response.status_code}: {text}", response.status_code)
            return Reply(response.status_code, data)
        raise HttpError(f"{place}: more than {_MAX_REDIRECTS} redirects")

    def _read(self, response: httpx.Response, deadline: float, place: str) -> bytes:
        data = bytearray()
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) > self._max_bytes:
                raise HttpError(f"{place}: the answer is longer than metrics_max_bytes ({self._max_bytes})")
            if time.monotonic() > deadline:
                raise HttpError(f"{place}: the answer took too long")
        return bytes(data)


def place_of(url: str) -> str:
    """Return an address fit to be shown: without user, password and query, which may be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _same_origin(url: str, response: httpx.Response, place: str) -> str:
    target = response.url.join(response.headers.get("location", ""))
    old = response.url
    if (target.scheme, target.host, target.port) != (old.scheme, old.host, old.port):
        raise HttpError(f"{place}: redirects to another host ({target.host}), which is not followed")
    if response.status_code == 303 or str(target) == url:
        raise HttpError(f"{place}: redirects with {response.status_code}, which is not followed")
    return str(target)


def _reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def _tls(live: LiveConfig) -> ssl.SSLContext | bool:
    import ssl

    if not live.tls_verify and live.tls_client_cert_file is None:
        return False
    if live.tls_ca_file is None and live.tls_client_cert_file is None:
        return True
    try:
        context = ssl.create_default_context(cafile=live.tls_ca_file)
        if not live.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if live.tls_client_cert_file is not None:
            context.load_cert_chain(live.tls_client_cert_file, live.tls_client_key_file)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"tls_ca_file, tls_client_cert_file or tls_client_key_file cannot be used: {error}"
        ) from None
    return context
