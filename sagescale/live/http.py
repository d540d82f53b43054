"""HTTP that cannot hang, swell or leak: one deadline, one size limit, no credentials to other hosts."""

from __future__ import annotations

import functools
import zlib
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sagescale.errors import InputError, SagescaleError
from sagescale.live.secret import Secret, foreign_text, read_secret

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping

    import httpx

    from sagescale.live.bounded_socket import Budget
    from sagescale.live.config import LiveConfig

_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_FRAMING_BYTES = 65_536
"""Beyond the answer itself, with an eighth of that: for headers and the sizes of chunks."""

_HEADERS = {"User-Agent": "sagescale", "Accept": "*/*", "Accept-Encoding": "gzip", "Connection": "close"}


class HttpError(SagescaleError):
    """A request failed: refused, late, too large, redirected to another host, or answered with an error.

    Attributes:
        status: The server's answer where there was one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(foreign_text(message, 500))
        self.status = status


class _UnreadableError(Exception):
    """An answer that cannot be unpacked."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer."""

    status: int
    body: bytes


def metrics_authorization(live: LiveConfig) -> Secret | None:
    """Return the ``Authorization`` header of the metric source: a bearer token, or user and password.

    Raises:
        InputError: a secret cannot be read, or the keys contradict one another.
    """
    token = read_secret("metrics_bearer_token", live.metrics_bearer_token_file, live.metrics_bearer_token_env)
    password = read_secret("metrics_password", live.metrics_password_file, live.metrics_password_env)
    if token is not None:
        if live.metrics_username is not None or password is not None:
            raise InputError("a bearer token and a user name or password are given; expected one of the two")
        if not token.reveal().isascii() or not token.reveal().isprintable():
            raise InputError("metrics_bearer_token holds what no header may; expected printable ASCII alone")
        return Secret(f"Bearer {token.reveal()}")
    if live.metrics_username is None:
        if password is not None:
            raise InputError("a password is given but metrics_username is not; expected both")
        return None
    pair = f"{live.metrics_username}:{'' if password is None else password.reveal()}"
    packed = Secret(b64encode(pair.encode()).decode())
    return Secret(f"Basic {packed.reveal()}")


class HttpClient:
    """Requests with the configuration's TLS, a deadline each, and a limit on what is read.

    The deadline is one for the whole request, from looking up the name to the last byte, redirects included;
    the limit counts what comes over the wire and, separately, what that decodes to. Each request has a
    connection of its own, so that nothing a server sent too much is taken for its next answer.

    Environment proxies and ``.netrc`` are not consulted: who is talked to, and with which password, is in
    the configuration alone. A redirect is followed within one origin and refused across.

    Args:
        live: TLS, limits and, for whoever reads them, secrets.
        authorization: Returns the ``Authorization`` header, anew for every request.

    Raises:
        InputError: a certificate file or a secret cannot be used.
    """

    def __init__(
        self, live: LiveConfig, authorization: Callable[[LiveConfig], Secret | None] | None = None
    ) -> None:
        self._live = live
        self._max_bytes = live.metrics_max_bytes
        self._authorization = authorization
        if authorization is not None:
            authorization(live)  # a missing secret is refused now, not at the first tick
        self._tls = _tls(live)

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
            HttpError: anything but a success, in time and within the size limit.
            InputError: a secret cannot be read any more.
        """
        import httpcore
        import httpx

        from sagescale.live.bounded_socket import AnswerTooLongError, Budget

        budget = Budget(timeout_s, self._max_bytes + self._max_bytes // 8 + _FRAMING_BYTES)
        place = place_of(url)
        sent = {**_HEADERS, **(headers or {})}
        if self._authorization is not None and (secret := self._authorization(self._live)) is not None:
            sent["Authorization"] = secret.reveal()
        try:
            request = httpx.Request(method, url, params=params, data=form, content=content, headers=sent)
            for _ in range(_MAX_REDIRECTS + 1):
                status, found, data = self._exchange(request, budget)
                if status in _REDIRECTS and "location" in found:
                    request.url = _same_origin(request.url, found["location"], status, place)
                    continue
                if not 200 <= status < 300:
                    raise HttpError(f"{place}: answered {status}: {foreign_text(data, 200)}", status)
                return Reply(status, data)
        except AnswerTooLongError:
            raise HttpError(
                f"{place}: the answer is longer than metrics_max_bytes ({self._max_bytes})"
            ) from None
        except TimeoutError:
            raise HttpError(f"{place}: no answer within {timeout_s:g} s") from None
        except _UnreadableError as error:
            raise HttpError(f"{place}: {error}") from None
        except httpcore.LocalProtocolError:
            # Its text quotes what was to be sent.
            raise HttpError(f"{place}: the request cannot be sent: a header holds what none may") from None
        except (OSError, ValueError, httpx.InvalidURL, httpcore.ProtocolError) as error:
            raise HttpError(f"{place}: {str(error).strip() or type(error).__name__}") from None
        raise HttpError(f"{place}: more than {_MAX_REDIRECTS} redirects")

    def _exchange(self, request: httpx.Request, budget: Budget) -> tuple[int, httpx.Headers, bytes]:
        import httpcore
        import httpx

        from sagescale.live.bounded_socket import BoundedBackend

        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        connection = httpcore.HTTPConnection(
            url.origin, ssl_context=self._tls, network_backend=BoundedBackend(budget)
        )
        with (
            connection,
            connection.stream(
                request.method, url, headers=request.headers.raw, content=request.read()
            ) as response,
        ):
            headers = httpx.Headers(response.headers)
            encoding = headers.get("content-encoding", "identity").strip().lower()
            return response.status, headers, self._decoded(response.iter_stream(), encoding)

    def _decoded(self, pieces: Iterable[bytes], encoding: str) -> bytes:
        """Join an answer's pieces, unpacked if they are packed; never more than is allowed is unpacked.

        An answer packed twice, or in another way, is one that was not asked for.
        """
        from sagescale.live.bounded_socket import AnswerTooLongError

        if encoding not in {"identity", "", "gzip", "x-gzip"}:
            raise _UnreadableError(f"the answer is encoded as '{encoding}'; expected plain or gzip, once")
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if "gzip" in encoding else None
        data = bytearray()
        for piece in pieces:
            try:
                data += piece if unpack is None else unpack.decompress(piece, self._max_bytes + 1 - len(data))
            except zlib.error as error:
                raise _UnreadableError(f"the answer is not gzip: {error}") from None
            if len(data) > self._max_bytes:
                raise AnswerTooLongError
        if unpack is not None and data and (not unpack.eof or unpack.unused_data):
            raise _UnreadableError("the answer is not one whole gzip stream")
        return bytes(data)


def place_of(url: str) -> str:
    """Return an address fit to be shown: without user, password and query, which may be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _same_origin(old: httpx.URL, location: str, status: int, place: str) -> httpx.URL:
    new = old.join(location)
    if (new.scheme, new.host, new.port) != (old.scheme, old.host, old.port):
        raise HttpError(f"{place}: redirects to another host ({new.host}), which is not followed")
    if status == 303 or new == old:
        raise HttpError(f"{place}: redirects with {status}, which is not followed")
    return new


@functools.cache  # for all clients: to read the usual authorities takes longer than most requests
def _usual_tls(*, verify: bool) -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context(verify=verify, trust_env=False)


def _tls(live: LiveConfig) -> ssl.SSLContext:
    import ssl

    if live.tls_client_cert_file is None and (not live.tls_verify or live.tls_ca_file is None):
        return _usual_tls(verify=live.tls_verify)
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
