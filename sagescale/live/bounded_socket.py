"""The sockets of one request: everything they do together ends at one deadline and reads a bounded amount.

A timeout for each read is no deadline: a server that sends a byte now and then never lets one run out.
Every wait, for a name, a connection, a handshake, a header or a chunk, gets what is left of the whole.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable


class AnswerTooLongError(Exception):
    """More bytes came than the budget has."""


class Budget:
    """What one request may still take: time, and bytes as they come over the wire, headers included."""

    def __init__(self, timeout_s: float, max_bytes: int) -> None:
        self._deadline_s = time.monotonic() + timeout_s
        self.bytes_left = max_bytes

    def left_s(self) -> float:
        """Return the seconds left.

        Raises:
            TimeoutError: there are none.
        """
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def take(self, size: int) -> None:
        """Count bytes that came.

        Raises:
            AnswerTooLongError: they are more than were left.
        """
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise AnswerTooLongError


class BoundedBackend(httpcore.NetworkBackend):
    """Opens connections within a budget; the timeouts that callers give are ignored."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a host that answers.

        Raises:
            OSError: the host has no address, none answers, or not in time (``TimeoutError``).
        """
        del timeout, local_address, socket_options
        found = _addresses(host, port, self._budget.left_s())
        failure = OSError(f"no address for {host}")
        for tried, (family, kind, protocol, address) in enumerate(found):
            sock = socket.socket(family, kind, protocol)
            try:
                # An address that swallows packets must leave time for the next.
                sock.settimeout(self._budget.left_s() / (len(found) - tried))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return _BoundedStream(sock, self._budget)
        raise failure


class _BoundedStream(httpcore.NetworkStream):
    def __init__(self, sock: socket.socket, budget: Budget) -> None:
        self._sock = sock
        self._budget = budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        self._sock.settimeout(self._budget.left_s())
        data = self._sock.recv(min(max_bytes, self._budget.bytes_left + 1))
        self._budget.take(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        left = memoryview(buffer)
        while left:
            self._sock.settimeout(self._budget.left_s())
            try:
                left = left[self._sock.send(left) :]
            except TimeoutError:
                raise
            except OSError as error:
                # A server may answer, and close, before it has read everything; the answer counts.
                raise httpcore.WriteError(str(error)) from None

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        del timeout
        try:
            self._sock.settimeout(self._budget.left_s())
            return _BoundedStream(
                ssl_context.wrap_socket(self._sock, server_hostname=server_hostname), self._budget
            )
        except BaseException:
            self.close()
            raise

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401  # what the interface says
        return self._sock if info == "socket" else None


_Address = tuple[int, int, int, Any]

_lookups: dict[tuple[str, int], Future[list[_Address]]] = {}
_lookups_lock = threading.Lock()


def _addresses(host: str, port: int, left_s: float) -> list[_Address]:
    """Return a host's addresses, waiting for the resolver no longer than that.

    The system's resolver takes no deadline, so a thread asks it. It ends when the resolver gives up; until
    then whoever wants the same name waits with it, so that there is one such thread a name at most.
    """
    try:
        return _ask_resolver(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # a name
    with _lookups_lock:
        lookup = _lookups.get((host, port))
        if lookup is None:
            lookup = Future()
            threading.Thread(target=_look_up, args=(host, port, lookup), daemon=True).start()
            _lookups[host, port] = lookup
    return lookup.result(left_s)


def _look_up(host: str, port: int, lookup: Future[list[_Address]]) -> None:
    try:
        lookup.set_result(_ask_resolver(host, port))
    except Exception as error:  # noqa: BLE001  # raised again where the answer is waited for
        lookup.set_exception(error)
    finally:
        with _lookups_lock:
            del _lookups[host, port]


def _ask_resolver(host: str, port: int, flags: int = 0) -> list[_Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]
