"""A server that does what no server should, and goes on until its client has hung up."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from dataclasses import dataclass
from functools import cache

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
DRIP_S = 0.02
ENOUGH_S = 30.0
"""What a busy machine may take for what has a deadline of less than a second; without one it never ends."""


def forever(piece):
    while True:
        yield piece


@cache
def packed(times):
    """Fifty megabytes, packed so many times."""
    return gzip.compress(b"0" * 50_000_000 if times == 1 else packed(times - 1), compresslevel=1)


@dataclass(frozen=True)
class Bomb:
    """Packed when it is asked for: every worker imports this."""

    times: int
    encoding: bytes

    def __iter__(self):
        body = packed(self.times)
        yield OK + b"Content-Encoding: " + self.encoding + b"\r\n"
        yield b"Content-Length: %d\r\n\r\n" % len(body)
        yield body


# What is sent at once, then again and again; the first kind a piece at a time, the second as fast as it goes.
DRIPS = {
    "silence": ([], []),
    "status line": ([b"HTTP/1.1 2"], forever(b"0")),
    "headers": ([OK], forever(b"X-More: of this\r\n")),
    "one header": ([OK + b"X-Long: "], forever(b"x")),
    "interim answers": ([], forever(b"HTTP/1.1 100 Continue\r\n\r\n")),
    "chunk sizes": ([CHUNKED + b"\r\n"], forever(b"0")),
    "chunk extensions": ([CHUNKED + b"\r\n1;"], forever(b"x")),
    "chunks": ([CHUNKED + b"\r\n"], forever(b"1\r\nx\r\n")),
    "trailers": ([CHUNKED + b"\r\n0\r\n"], forever(b"X-More: of this\r\n")),
    "body": ([OK + b"Content-Length: 9999\r\n\r\n"], forever(b"x")),
    "body without an end": ([OK + b"\r\n"], forever(b"x")),
    "gzip header": ([OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08" + b"\0" * 6], forever(b"x")),
    "TLS handshake": ([b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb"], forever(b"\x03")),
}
FLOODS = {
    "headers": ([OK], forever(b"X-More: of this\r\n" * 100)),
    "interim answers": ([], forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)),
    "chunk extensions": ([CHUNKED + b"\r\n1;"], forever(b"x" * 10_000)),
    "chunks": ([CHUNKED + b"\r\n"], forever(b"1\r\nx\r\n" * 1000)),
    "body": ([OK + b"\r\n"], forever(b"x" * 10_000)),
    "error body": ([b"HTTP/1.1 500 Oh\r\n\r\n"], forever(b"x" * 10_000)),
    "gzip": (Bomb(1, b"gzip"), []),
    "gzip in gzip": (Bomb(2, b"gzip, gzip"), []),
    "gzip in gzip, in two headers": (Bomb(2, b"gzip\r\nContent-Encoding: gzip"), []),
    "gzip of gzip said to be one": (Bomb(2, b"deflate, gzip"), []),
    "brotli": (Bomb(1, b"br"), []),
}


@contextlib.contextmanager
def attacking(at_once, again, pause_s=0.0, *, listens=True):
    """Serve one attack to every client; yields the port."""
    at_once = list(at_once)
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)

    def attack(client):
        with client, contextlib.suppress(OSError):
            client.settimeout(0.05)
            if listens:
                client.recv(100_000)
            for piece in at_once:
                client.settimeout(5.0)
                client.sendall(piece)
            for piece in again:
                if stop.wait(pause_s):
                    return
                client.sendall(piece)
            stop.wait()

    def accept():
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                threading.Thread(target=attack, args=(server.accept()[0],), daemon=True).start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield server.getsockname()[1]
    finally:
        stop.set()
        acceptor.join()
        server.close()
