"""Actuators: each does what it is told once, within its time, and says so when it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from types import SimpleNamespace

import pytest
from hostile_server import DRIP_S, DRIPS, ENOUGH_S, attacking
from hypothesis import given
from hypothesis import strategies as st
from live_server import serving
from sagescale.errors import InputError
from sagescale.fleet import Pools
from sagescale.live.actuators.callback import CallbackActuator, load_callback
from sagescale.live.actuators.command import CommandActuator
from sagescale.live.actuators.kubernetes import KubernetesActuator, Workload
from sagescale.live.actuators.protocol import ActuatorError, Order, PoolStates, pool_states
from sagescale.live.actuators.webhook import WebhookActuator, signature, signature_holds
from sagescale.live.config import LiveConfig
from sagescale.live.mover import next_sizes
from sagescale.planner import AutoscalerConfig, PoolCounts, Sizes

ORDER = Order("key-1", Sizes(3, 4), Sizes(2, 5), {"reasons": []})


def python(text):
    return [sys.executable, "-c", text]


# --- the order of moves under a budget --------------------------------------------------------------

counts = st.builds(PoolCounts, st.integers(0, 8), st.integers(0, 4), st.integers(0, 4), st.integers(0, 3))


@given(counts, counts, st.integers(0, 12), st.integers(0, 12), st.integers(1, 4), st.integers(8, 40))
def test_no_move_passes_the_budget_or_its_goal(prefill, decode, to_prefill, to_decode, prefill_gpus, budget):
    config = AutoscalerConfig(
        prefill_gpus_per_instance=prefill_gpus, decode_gpus_per_instance=1, max_gpu_budget=budget,
        max_prefill_instances=12, max_decode_instances=12,
    )  # fmt: skip
    goal, states = Sizes(to_prefill, to_decode), Pools(prefill, decode)
    found = next_sizes(goal, states, config.fleet)

    def gpus(p, d):
        return p * prefill_gpus + d

    held = gpus(*(c.ready + c.starting + c.draining + c.waiting for c in (prefill, decode)))
    grown = gpus(*(max(0, to - at) for to, at in zip(found, states.asked, strict=True)))
    assert grown == 0 or held + grown <= budget
    for to, at, want in zip(found, states.asked, goal, strict=True):
        assert min(at, want) <= to <= max(at, want)
        assert to <= want


# --- command ----------------------------------------------------------------------------------------


def test_a_command_gets_the_order_on_standard_input(tmp_path):
    out = tmp_path / "order.json"
    text = f"import sys; open({str(out)!r}, 'w').write(sys.stdin.read())"
    CommandActuator(python(text), (), 60.0).carry_out(ORDER)
    assert json.loads(out.read_text())["targets"] == {"prefill": 3, "decode": 4}


def test_a_command_that_fails_or_hangs_is_reported_in_time():
    with pytest.raises(ActuatorError, match="exit code 3: no quota"):
        CommandActuator(
            python("import sys; sys.exit(print('no quota', file=sys.stderr) or 3)"), (), 60.0
        ).carry_out(ORDER)
    began = time.monotonic()
    with pytest.raises(ActuatorError, match="killed"):
        CommandActuator(python("import time; time.sleep(60)"), (), 0.3).carry_out(ORDER)
    assert time.monotonic() - began < ENOUGH_S


@pytest.fixture
def escaping(tmp_path):
    """The words of a program that leaves its session, holds on to all pipes, and notes its number."""
    note = tmp_path / "pid"
    yield (
        "import subprocess, sys, time; left = subprocess.Popen(['sleep', '60'], start_new_session=True); "
        f"open({str(note)!r}, 'a').write(str(left.pid) + '\\n'); "
    )
    for number in note.read_text().split():
        os.kill(int(number), signal.SIGKILL)


def test_a_program_that_escaped_and_holds_the_pipes_is_not_waited_for(escaping):
    state = json.dumps({"prefill": {"ready": 2}, "decode": {"ready": 3}})
    began = time.monotonic()
    CommandActuator(python(escaping), (), 60.0).carry_out(ORDER)
    found = CommandActuator(["true"], python(f"{escaping} print({state!r})"), 60.0).states()
    assert found == PoolStates(Pools(PoolCounts(2), PoolCounts(3)))
    with pytest.raises(ActuatorError, match="exit code 1: no quota"):
        CommandActuator(python(f"{escaping} sys.exit('no quota')"), (), 60.0).carry_out(ORDER)
    with pytest.raises(ActuatorError, match="not done within 1 s, killed"):
        CommandActuator(python(f"{escaping} time.sleep(60)"), (), 1.0).carry_out(ORDER)
    assert time.monotonic() - began < 55  # of the sixty seconds that what escaped lives


@pytest.mark.parametrize(
    ("words", "limit_s", "match"),
    [
        (["yes"], 60.0, "printed more than 1000000 bytes, killed"),
        (["sh", "-c", "yes >&2"], 0.5, "not done within 0.5 s, killed"),
        (["sh", "-c", "yes | cat; sleep 60"], 60.0, "printed more than"),
        (["sh", "-c", "yes >&2 & exec sleep 60"], 0.5, "not done within"),
    ],
)
def test_a_program_that_prints_for_ever_is_ended_and_costs_no_memory(words, limit_s, match):
    tracemalloc.start()
    try:
        with pytest.raises(ActuatorError, match=match):
            CommandActuator(["true"], words, limit_s).states()
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_program_that_does_not_read_its_order_is_judged_by_its_exit():
    order = Order("key-1", Sizes(3, 4), Sizes(2, 5), {"reasons": ["long"] * 100_000})
    CommandActuator(["true"], (), 60.0).carry_out(order)
    with pytest.raises(ActuatorError, match="killed"):
        CommandActuator(["sleep", "60"], (), 0.3).carry_out(order)
    long = "import sys; sys.exit(len(sys.stdin.read()) != int(sys.argv[1]))"
    size = len(json.dumps(order.to_dict())) + 1
    CommandActuator([*python(long), str(size)], (), 60.0).carry_out(order)


def test_what_a_program_says_is_shown_as_one_clean_line():
    text = "print('\\n\\x1b[2J' + 'x' * 90_000 + '\\u202e', file=sys.stderr); sys.exit(1)"
    with pytest.raises(ActuatorError, match=r"exit code 1: ") as error:
        CommandActuator(python("import sys; " + text), (), 60.0).carry_out(ORDER)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


def test_a_state_command_says_what_there_is():
    state = {"prefill": {"ready": 2, "starting": 1}, "decode": {"ready": 3}}
    found = CommandActuator(["true"], python(f"print({json.dumps(state)!r})"), 60.0).states()
    assert found == PoolStates(Pools(PoolCounts(2, 1), PoolCounts(3)))
    with pytest.raises(ActuatorError, match="not JSON"):
        CommandActuator(["true"], ["echo", "hello"], 60.0).states()
    assert CommandActuator(["true"], (), 60.0).states() is None


def test_a_missing_program_is_refused_at_the_start():
    with pytest.raises(InputError, match="no-such-program"):
        CommandActuator(["no-such-program"], (), 1.0)


@pytest.mark.parametrize(
    "document", [None, [], {}, {"prefill": {"ready": 1}}, {"prefill": {"ready": -1}, "decode": {"ready": 1}},
                 {"prefill": {"ready": True}, "decode": {"ready": 1}},
                 {"prefill": {"ready": "2"}, "decode": {"ready": 1}}]
)  # fmt: skip
def test_a_state_that_is_none_is_refused(document):
    with pytest.raises(ActuatorError):
        pool_states(document, "here")


# --- webhook ----------------------------------------------------------------------------------------


def webhook(server, tmp_path, **keys):
    (tmp_path / "key").write_text("shh")
    live = LiveConfig(
        actuator="webhook", webhook_url=f"{server.url}/hook", webhook_secret_file=str(tmp_path / "key"),
        webhook_state_url=f"{server.url}/state", **keys,
    )  # fmt: skip
    return WebhookActuator(live, sleep=lambda _: None)


def test_a_post_is_signed_and_the_signature_covers_time_and_body(tmp_path):
    with serving() as server:
        server.answers["/hook"] = (200, b"", {})
        actuator = webhook(server, tmp_path)
        actuator.carry_out(ORDER)
        actuator.close()
        headers, body = server.asked[0]["headers"], server.asked[0]["body"]
        at, given = headers["X-Sagescale-Timestamp"], headers["X-Sagescale-Signature"]
        now_s = float(at)
        assert signature_holds("shh", at, body, given, now_s=now_s, age_s=60)
        assert not signature_holds("other", at, body, given, now_s=now_s, age_s=60)
        assert not signature_holds("shh", at, body + b" ", given, now_s=now_s, age_s=60)
        assert not signature_holds("shh", f"{now_s + 1}", body, given, now_s=now_s, age_s=60)
        assert not signature_holds("shh", at, body, given, now_s=now_s + 120, age_s=60)
        assert not signature_holds("shh", "x", body, signature("shh", "x", body), now_s=now_s, age_s=60)
        assert b"shh" not in body


def test_a_post_is_tried_again_under_one_key(tmp_path):
    with serving() as server:
        server.answers["/hook"] = lambda request: (503 if len(server.asked) < 3 else 200, b"", {})
        actuator = webhook(server, tmp_path)
        actuator.carry_out(ORDER)
        actuator.close()
        assert [asked["headers"]["Idempotency-Key"] for asked in server.asked] == ["key-1"] * 3


def test_a_refusal_is_final_and_a_dead_receiver_is_given_up(tmp_path):
    with serving() as server:
        server.answers["/hook"] = (403, b"who are you", {})
        actuator = webhook(server, tmp_path)
        with pytest.raises(ActuatorError, match="403"):
            actuator.carry_out(ORDER)
        assert len(server.asked) == 1
        server.answers["/hook"] = (500, b"", {})
        with pytest.raises(ActuatorError, match="500"):
            actuator.carry_out(ORDER)
        assert len(server.asked) == 4
        actuator.close()


def test_a_key_that_is_gone_for_a_moment_fails_the_order_and_not_the_planner(tmp_path):
    with serving() as server:
        server.answers["/hook"] = (200, b"", {})
        actuator = webhook(server, tmp_path)
        (tmp_path / "key").unlink()
        with pytest.raises(ActuatorError, match="webhook_secret_file"):
            actuator.carry_out(ORDER)
        assert server.asked == []
        (tmp_path / "key").write_text("new")
        actuator.carry_out(ORDER)
        actuator.close()


def test_a_receiver_that_echoes_the_order_gets_no_key_into_a_message(tmp_path):
    with serving() as server:
        server.answers["/hook"] = lambda request: (500, b"\x1b[2J the key is shh" * 100_000, {})
        actuator = webhook(server, tmp_path)
        with pytest.raises(ActuatorError, match=r"answered 500: \?\[2J the key is \*\*\*") as error:
            actuator.carry_out(ORDER)
        assert len(str(error.value)) <= 500
        actuator.close()


def test_the_state_is_read_over_http(tmp_path):
    with serving() as server:
        server.answers["/state"] = (200, {"prefill": {"ready": 1}, "decode": {"ready": 2, "draining": 1}}, {})
        actuator = webhook(server, tmp_path)
        assert actuator.states() == PoolStates(Pools(PoolCounts(1), PoolCounts(2, 0, 1)))
        server.answers["/state"] = (500, b"", {})
        with pytest.raises(ActuatorError):
            actuator.states()
        actuator.close()


# --- callback ---------------------------------------------------------------------------------------


def test_a_callback_is_called_in_time_or_given_up():
    orders = []
    actuator = CallbackActuator(orders.append, 5.0)
    actuator.carry_out(ORDER)
    assert orders[0]["targets"] == {"prefill": 3, "decode": 4}
    assert actuator.states() is None
    given_up = threading.Event()
    slow = CallbackActuator(lambda order: given_up.wait(60.0), 0.05)
    with pytest.raises(ActuatorError, match="not done within"):
        slow.carry_out(ORDER)
    given_up.set()  # it was done no sooner
    with pytest.raises(ActuatorError, match="ZeroDivisionError"):
        CallbackActuator(lambda order: 1 / 0, 5.0).carry_out(ORDER)


def test_calls_that_never_return_do_not_pile_up():
    given_up = threading.Event()
    stuck = CallbackActuator(lambda order: given_up.wait(60.0), 0.01)
    for _ in range(8):
        with pytest.raises(ActuatorError, match="not done within"):
            stuck.carry_out(ORDER)
    with pytest.raises(ActuatorError, match="8 calls have not returned"):
        stuck.carry_out(ORDER)
    given_up.set()


def test_a_stuck_callback_does_not_keep_the_process_alive():
    text = (
        "import threading; from sagescale.live.actuators.callback import CallbackActuator\n"
        "class Ask:\n    states = threading.Event().wait\n"
        "try: CallbackActuator(Ask, 0.01).states()\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run(python(text), capture_output=True, text=True, timeout=300, check=True)
    assert "not done within" in done.stdout


def test_a_callback_that_exits_or_talks_in_colours_is_a_failure_in_one_line():
    def leave(order):
        raise SystemExit(f"\x1b[31m{'no' * 10_000}\n")

    with pytest.raises(ActuatorError, match="SystemExit: ") as error:
        CallbackActuator(leave, 5.0).carry_out(ORDER)
    assert str(error.value).isprintable()
    assert len(str(error.value)) <= 500


def test_a_callback_that_is_none_is_refused():
    for path in ("json", "json:", "no_such_module:f", "json:no_such", "json:__name__"):
        with pytest.raises(InputError, match="actuator_callback"):
            load_callback(path)
    assert load_callback("json:dumps") is json.dumps


# --- kubernetes -------------------------------------------------------------------------------------


class FakeApi:
    """The official client's one method that is used, over a dictionary of scales and a list of pods."""

    def __init__(self, replicas):
        self.replicas, self.pods, self.calls, self.refuse_pods = dict(replicas), {}, [], False

    def call_api(self, path, method, *, query_params, body, **rest):
        self.calls.append((method, path))
        if path.endswith("/pods"):
            if self.refuse_pods:
                from kubernetes.client.exceptions import ApiException

                raise ApiException(status=403, reason="Forbidden")
            return {"items": self.pods[dict(query_params)["labelSelector"]]}
        name = path.split("/")[-2]
        if method == "PATCH":
            self.replicas[name] = body["spec"]["replicas"]
        wanted = self.replicas[name]
        return {"spec": {"replicas": wanted}, "status": {"replicas": wanted, "selector": f"app={name}"}}

    def close(self):
        pass


def pod(*, ready=True, deleted=False, phase="Running"):
    return {
        "metadata": {"deletionTimestamp": "now"} if deleted else {},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def kubernetes(api, **keys):
    pytest.importorskip("kubernetes")
    workloads = {"kubernetes_prefill": "deployments/p", "kubernetes_decode": "leaderworkersets/d"}
    live = LiveConfig(actuator="kubernetes", **(workloads | keys))
    return KubernetesActuator(live, api)


def test_workloads_of_every_kind_have_a_scale_path():
    paths = [
        Workload.parse("k", text).path("ns")
        for text in ("deployments/a", "statefulset/b", "leaderworkersets/c", "example.com/v1beta1/engines/d")
    ]
    assert paths == [
        "/apis/apps/v1/namespaces/ns/deployments/a/scale",
        "/apis/apps/v1/namespaces/ns/statefulsets/b/scale",
        "/apis/leaderworkerset.x-k8s.io/v1/namespaces/ns/leaderworkersets/c/scale",
        "/apis/example.com/v1beta1/namespaces/ns/engines/d/scale",
    ]
    for text in ("a", "pods/a", "deployments/../../x", "deployments/a/b", ""):
        with pytest.raises(InputError):
            Workload.parse("k", text)


def test_the_shrinking_workload_is_patched_first():
    api = FakeApi({"p": 2, "d": 5})
    kubernetes(api).carry_out(ORDER)
    assert api.replicas == {"p": 3, "d": 4}
    patched = [path.split("/")[-2] for method, path in api.calls if method == "PATCH"]
    assert patched == ["d", "p"]


def test_pods_are_counted_by_what_they_do():
    api = FakeApi({"p": 4, "d": 1})
    api.pods = {
        "app=p": [pod(), pod(), pod(ready=False), pod(deleted=True), pod(phase="Failed")],
        "app=d,leaderworkerset.sigs.k8s.io/worker-index=0": [pod(), pod()],
    }
    states = kubernetes(api).states()
    assert states == PoolStates(Pools(PoolCounts(2, 1, 1, 1), PoolCounts(1, 0, 1, 0)))
    assert states.asked == Sizes(4, 1)


def test_without_the_right_to_list_pods_the_scale_speaks():
    api = FakeApi({"p": 2, "d": 3})
    api.refuse_pods = True
    assert kubernetes(api).states() == PoolStates(Pools(PoolCounts(2), PoolCounts(3)), draining_seen=False)


def test_an_api_error_is_a_failure_with_its_status():
    exceptions = pytest.importorskip("kubernetes.client.exceptions")

    def refuse(*given, **keys):
        raise exceptions.ApiException(status=404, reason="Not Found")

    with pytest.raises(ActuatorError, match="404 Not Found"):
        kubernetes(SimpleNamespace(call_api=refuse, close=lambda: None)).carry_out(ORDER)


@pytest.mark.parametrize("attack", ["silence", "headers", "body", "interim answers"])
def test_a_deadline_is_one_for_all_calls_of_the_kubernetes_api(attack):
    client = pytest.importorskip("kubernetes.client")
    with attacking(*DRIPS[attack], DRIP_S) as port:
        settings = client.Configuration()
        settings.host = f"http://127.0.0.1:{port}"
        settings.retries = False
        actuator = kubernetes(client.ApiClient(settings), actuator_timeout_s=0.4)
        began = time.monotonic()
        with pytest.raises(ActuatorError, match="kubernetes: "):
            actuator.states()
        with pytest.raises(ActuatorError, match="kubernetes: "):
            actuator.carry_out(ORDER)
        assert time.monotonic() - began < ENOUGH_S


def test_an_order_that_was_given_up_patches_nothing_later():
    pytest.importorskip("kubernetes")
    answered, before = threading.Event(), set(threading.enumerate())
    api = FakeApi({"p": 2, "d": 5})
    answer, api.call_api = (
        api.call_api,
        lambda *given, **keys: (answered.wait(60.0), answer(*given, **keys))[1],
    )
    with pytest.raises(ActuatorError, match=r"not done within 0\.05 s"):
        kubernetes(api, actuator_timeout_s=0.05).carry_out(ORDER)
    (late,) = set(threading.enumerate()) - before
    answered.set()
    late.join(10.0)
    assert api.replicas == {"p": 2, "d": 5}
