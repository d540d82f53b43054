"""The emulator's face: metric pages, service discovery, state, and scale commands over HTTP."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import generate_latest

from sagescale.declare import Located, declared, fill, setting
from sagescale.errors import InputError
from sagescale.live.actuators.webhook import signature_holds
from sagescale.live.emulator.engine_metrics import EnginePage
from sagescale.planner import Sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagescale.live.emulator.cluster import EmulatedCluster, Outcome
    from sagescale.live.secret import Secret

logger = logging.getLogger(__name__)

_MAX_BODY = 1_000_000
_MAX_DISCARDED = 10 * _MAX_BODY
_BEAT_S = 0.02
_SIGNATURE_AGE_S = 300.0
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_INDEX = """sagescale emulator
  GET  /metrics             every instance's metrics on one page, labelled instance and job
  GET  /instances/N/metrics one instance's own page
  GET  /sd                  the instances, for Prometheus' http_sd_configs
  GET  /state               pools by state, requests, GPU-hours, the most GPUs held at any instant
  POST /scale               {"targets": {"prefill": P, "decode": D}}, or an order of `sagescale plan`;
                            {"targets": {"aggregated": N}} where serving is aggregated
  POST /start               begin, where it was started with --wait; {"at": SECONDS_SINCE_1970} begins then
  POST /fault               {"kind": "none|error|slow|frozen|nan|half|reset|double", "value": SECONDS}
                            {"kind": "ranks", "value": COUNT}, {"kind": "miss", "instance": NAME},
                            {"kind": "crash", "instance": NAME, "value": SECONDS_LISTED_AFTER}
"""

FAULTS = ("none", "error", "slow", "frozen", "nan", "half", "reset", "ranks", "double", "crash", "miss")

_OF_ONE = frozenset({"crash", "miss"})
"""What happens to one instance."""

_ONCE = _OF_ONE | {"reset"}
"""What happens once, and leaves the fault in force as it is."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault by name.

    ``error`` answers 500, ``slow`` comes ``value`` seconds late, ``frozen`` repeats one page,
    ``nan`` has no numbers, ``half`` leaves out every other instance; ``ranks`` starts
    every engine anew with ``value`` data-parallel ranks, each with series of its own under the label
    ``engine``, and anew without them when it ends; ``double`` lists
    every instance a second time, under the job ``ROLE-again``.

    ``reset`` has every instance count again from nothing, once. Two happen to one ``instance``, once:
    ``crash`` loses it with its page and its counts, while discovery lists it for ``value`` more seconds of
    the trace and its requests are routed again; ``miss`` does not answer the next time its page is read.
    """

    kind: str = setting("none", doc="What is made wrong.", choices=FAULTS, needed=True)
    value: float = setting(0.0, doc="By how much, as the kind has it.", at_least=0, at_most=600)
    instance: str = setting("", doc="To which instance, by name, like decode-3.")

    @classmethod
    def parse(cls, document: object) -> Fault:
        """Read ``{"kind": K, "value": V, "instance": I}``.

        Raises:
            InputError: it is something else.
        """
        given = document if isinstance(document, dict) else {"kind": document}
        known = {name: Located(given[name], "fault") for name in declared(cls) if name in given}
        fault = fill(cls, Located(known, "fault"))
        if bool(fault.instance) != (fault.kind in _OF_ONE):
            raise InputError(
                f"fault: instance is {fault.instance[:40]!r}; expected the name of one, like decode-3, with "
                f"{' and '.join(sorted(_OF_ONE))}, and none with other faults"
            )
        if fault.kind == "ranks" and fault.value not in range(2, 65):
            raise InputError(f"fault: value is {fault.value:g}; expected 2 to 64 ranks")
        return fault


@dataclass(frozen=True, slots=True)
class Pace:
    """The trace's time: ``speed`` times the clock's, standing still around the ticks if wished.

    Speed multiplies delays too: at 12x a planner that needs half a second to be asked, to decide and to be
    obeyed comes six seconds late. With ``tick_pause`` the trace stands still from half that share of an
    interval before each multiple of it to half of it after, and makes up for it in between. What is
    scraped, decided and ordered meanwhile is then of the tick's own instant, as in a simulation.

    Attributes:
        speed: seconds of the trace in a second of the clock, on average.
        interval_s: between ticks, in the trace's time.
        tick_pause: share of the interval stood still; 0 is even speed.
    """

    speed: float
    interval_s: float = 60.0
    tick_pause: float = 0.0

    def trace_s(self, clock_s: float) -> float:
        """Return the trace's time so long after its beginning; before it, a time before 0."""
        even_s = clock_s * self.speed
        if self.tick_pause == 0:
            return even_s
        tick, phase_s = divmod(even_s, self.interval_s)
        moving_s = self.interval_s * (1.0 - self.tick_pause)
        moved_s = min(max(phase_s - (self.interval_s - moving_s) / 2, 0.0), moving_s)
        if moved_s == moving_s:
            return (tick + 1) * self.interval_s  # exactly: it is where a simulation ticks
        return tick * self.interval_s + moved_s / (1.0 - self.tick_pause)


class Emulator:
    """A cluster that lives in scaled real time, behind an HTTP server.

    Args:
        cluster: The cluster, at its beginning.
        address: Where to listen; port 0 takes any free one.
        pace: How the trace's time follows the clock.
        labels: Labels of every engine's series, e.g. ``model_name``.
        secret: Scale commands must be signed with it.
        wait: Begin only at ``POST /start``.

    Raises:
        InputError: the address cannot be listened on.
    """

    def __init__(
        self,
        cluster: EmulatedCluster,
        address: tuple[str, int],
        *,
        pace: Pace,
        labels: Mapping[str, str],
        secret: Secret | None = None,
        wait: bool = False,
    ) -> None:
        self._cluster = cluster
        self._pace = pace
        self._labels = labels
        self._secret = secret
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._began_s = None if wait else time.time()
        self._fault = Fault()
        self._frozen: dict[str, str] = {}
        self._missed: set[str] = set()  # instances whose next page does not come
        self._dead: dict[str, float] = {}  # crashed instances, and until when they are listed
        self._done_keys: dict[str, Sizes] = {}
        emulator = self

        class Handler(_Handler):
            owner = emulator

        try:
            self._server = _Server(address, Handler)
        except OSError as error:
            raise InputError(f"{address[0]}:{address[1]}: cannot be listened on: {error.strerror}") from None
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        """The port listened on."""
        return int(self._server.server_address[1])

    def run(self) -> None:
        """Serve until ``stop``."""
        server = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        server.start()
        try:
            while not self._stop.wait(_BEAT_S):
                with self._lock:
                    self._catch_up()
        finally:
            self._server.shutdown()
            self._server.server_close()

    def stop(self) -> None:
        """End ``run``; may be called from a signal handler or another thread."""
        self._stop.set()

    def outcome(self) -> Outcome:
        """Sum up how it went so far."""
        with self._lock:
            return self._cluster.outcome()

    # --- what the handler calls ----------------------------------------------------------------

    def page(self, instance: str | None) -> str | None:
        """Return the metric page of one instance, or of all; ``None`` if there is no such instance.

        Raises:
            InputError: the fault in force is an error, or this read is one to be missed.
        """
        fault = self._fault
        if fault.kind == "error":
            raise InputError("an emulated failure")
        missed = self._missed & {instance} if instance else set(self._missed)
        self._missed -= missed
        if instance in missed:
            raise InputError("an emulated read that is missed")
        with self._lock:
            self._catch_up()
            engines = self._cluster.engines()
            if fault.kind == "half":
                engines = [engine for number, engine in enumerate(engines) if number % 2]
            engines = [engine for engine in engines if engine.name not in missed]
            if instance is not None:
                engines = [engine for engine in engines if engine.name == instance]
                if not engines:
                    return None
            ranks = int(fault.value) if fault.kind == "ranks" else 1
            numbers = EnginePage(engines, self._labels, with_instance=instance is None, ranks=ranks)
        page = generate_latest(numbers).decode()
        if fault.kind == "frozen":
            return self._frozen.setdefault(instance or "", page)
        if fault.kind == "slow":
            time.sleep(fault.value)
        if fault.kind == "nan":
            return re.sub(r"^([^#].*) \S+$", r"\1 NaN", page, flags=re.MULTILINE)
        return page

    def discovery(self, host: str) -> list[dict[str, Any]]:
        """Return the instances in the form of Prometheus' HTTP service discovery."""
        with self._lock:
            self._catch_up()
            listed = {engine.name: engine.role for engine in self._cluster.engines()}
            serving = self._cluster.serving()
            for name, until_s in list(self._dead.items()):
                if self._cluster.now_s < until_s:
                    listed[name] = name.partition("-")[0]
                else:
                    del self._dead[name]
        jobs = list(listed.items())
        if self._fault.kind == "double":
            jobs += [(name, f"{role}-again") for name, role in jobs]
        return [
            {
                "targets": [host],
                "labels": {
                    "__metrics_path__": f"/instances/{name}/metrics",
                    "job": job,
                    "instance": name,
                    "__meta_sagescale_state": serving.get(name, "stopped"),
                },
            }
            for name, job in jobs
        ]

    def state(self) -> dict[str, Any]:
        """Return pools, requests and costs in plain JSON types."""
        with self._lock:
            self._catch_up()
            pools = self._cluster.pools()
            outcome = self._cluster.outcome()
        return {
            **{name: asdict(pool) for name, pool in pools.items()},
            "time_s": outcome.time_s,
            "speed": self._pace.speed,
            "requests": {"arrived": outcome.arrived, "completed": outcome.completed},
            "attainment": outcome.attainment,
            "gpu_hours": {**outcome.gpu_hours, "total": sum(outcome.gpu_hours.values())},
            "max_gpus_used": outcome.max_gpus_used,
            "finished": outcome.finished,
        }

    def scale(self, document: object, key: str | None) -> None:
        """Set both targets.

        Raises:
            InputError: the command is none.
        """
        targets = document.get("targets") if isinstance(document, dict) else None
        sizes = []
        pools = self._cluster.config.pools
        example = ", ".join(f'"{pool.name}": {at}' for at, pool in enumerate(pools, 1))
        for pool in pools:
            value = targets.get(pool.name) if isinstance(targets, dict) else None
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= pool.most:
                raise InputError(
                    f"targets.{pool.name} is {str(value)[:40]}; expected an integer from 0 to {pool.most}, "
                    f'as in {{"targets": {{{example}}}}}'
                )
            sizes.append(value)
        asked = Sizes(*sizes, names=self._cluster.config.pool_names)
        with self._lock:
            self._catch_up()
            if key is not None and self._done_keys.get(key) == asked:
                return  # carried out before
            self._cluster.scale(asked)
            if key is not None:
                self._done_keys[key] = asked
                if len(self._done_keys) > 1000:
                    del self._done_keys[next(iter(self._done_keys))]
        said = ", ".join(f"{pool}={size}" for pool, size in asked.items())
        logger.info("at %.1f s: scaled to %s", self._cluster.now_s, said)

    def begin(self, document: object) -> None:
        """Begin now, or at a time.

        Raises:
            InputError: the time is none.
        """
        at_s = document.get("at", time.time()) if isinstance(document, dict) else time.time()
        if isinstance(at_s, bool) or not isinstance(at_s, int | float):
            raise InputError(f"at is {str(at_s)[:40]}; expected seconds since 1970")
        with self._lock:
            if self._began_s is None:
                self._began_s = float(at_s)

    def set_fault(self, document: object) -> None:
        """Put a fault in force in place of the one before, or let one happen that does not last.

        Raises:
            InputError: there is no such fault, or no such instance.
        """
        fault = Fault.parse(document)
        if fault.kind in _ONCE:
            with self._lock:
                self._catch_up()
                if fault.kind == "reset":
                    self._cluster.reset()
                    return
                known = any(engine.name == fault.instance for engine in self._cluster.engines())
                if fault.kind == "miss" and known:
                    self._missed.add(fault.instance)
                elif fault.kind == "crash" and self._cluster.crash(fault.instance):
                    self._dead[fault.instance] = self._cluster.now_s + fault.value
                else:
                    raise InputError(f"fault instance {fault.instance!r}: there is none that serves")
            return
        self._frozen.clear()
        if "ranks" in {fault.kind, self._fault.kind}:
            with self._lock:
                self._catch_up()
                self._cluster.reset()  # engines have other ranks once they are started anew
        self._fault = fault

    def signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a command comes from somebody who knows the secret, if there is one."""
        if self._secret is None:
            return True
        return signature_holds(
            self._secret.reveal(),
            headers.get("X-Sagescale-Timestamp", ""),
            body,
            headers.get("X-Sagescale-Signature", ""),
            now_s=time.time(),
            age_s=_SIGNATURE_AGE_S,
        )

    def _catch_up(self) -> None:
        if self._began_s is not None:
            self._cluster.advance(self._pace.trace_s(time.time() - self._began_s))


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # every instance is read at once; who finds no room tries again in a second

    def handle_error(self, request: object, client_address: object) -> None:
        # Whoever asked has gone, or sent nonsense: no reason for a traceback among the emulator's own words.
        del request
        logger.debug("%s: the connection ended early", client_address)


class _Handler(BaseHTTPRequestHandler):
    owner: Emulator
    protocol_version = "HTTP/1.1"
    timeout = 30  # of a connection that says nothing

    def do_GET(self) -> None:  # the base class dispatches by this name
        path = self.path.partition("?")[0]
        try:
            if path == "/metrics":
                self._answer(200, _TEXT, self.owner.page(None) or "")
            elif path.startswith("/instances/") and path.endswith("/metrics"):
                page = self.owner.page(path.removeprefix("/instances/").removesuffix("/metrics"))
                if page is None:
                    self._answer(404, "text/plain", "no such instance\n")
                else:
                    self._answer(200, _TEXT, page)
            elif path == "/sd":
                host = self.headers.get("Host", f"127.0.0.1:{self.owner.port}")
                self._json(200, self.owner.discovery(host))
            elif path == "/state":
                self._json(200, self.owner.state())
            elif path == "/":
                self._answer(200, "text/plain", _INDEX)
            else:
                self._answer(404, "text/plain", "no such page\n")
        except InputError as error:
            self._answer(500, "text/plain", f"{error}\n")

    def do_POST(self) -> None:  # the base class dispatches by this name
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _MAX_BODY:
            self.close_connection = True
            # Who is still sending when the connection closes does not get to read the answer.
            left = min(int(length), _MAX_DISCARDED) if length.isdigit() else 0
            while left > 0 and (piece := self.rfile.read(min(left, _MAX_BODY))):
                left -= len(piece)
            self._json(413 if length.isdigit() else 411, {"error": "expected a short body of known length"})
            return
        body = self.rfile.read(int(length))
        actions = {"/start": self.owner.begin, "/fault": self.owner.set_fault}
        path = self.path.partition("?")[0]
        if path != "/scale" and path not in actions:
            self._json(404, {"error": "no such command"})
            return
        if not self.owner.signed(dict(self.headers.items()), body):
            self._json(401, {"error": "not signed, or not with the right key"})
            return
        try:
            document = json.loads(body or b"{}")
            if path == "/scale":
                self.owner.scale(document, self.headers.get("Idempotency-Key"))
            else:
                actions[path](document)
        except InputError as error:
            self._json(400, {"error": str(error)})
        except (ValueError, RecursionError):
            self._json(400, {"error": "the body is not JSON"})
        else:
            self._json(200, self.owner.state())

    def _json(self, status: int, document: object) -> None:
        self._answer(status, "application/json", json.dumps(document) + "\n")

    def _answer(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        logger.debug("%s %s", self.address_string(), format % args)
