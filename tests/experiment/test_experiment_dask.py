"""A real Dask scheduler and two worker processes give the document that a serial run gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from experiment_world import compared, variants, wave, without_timing, workload, written
from sagescale.experiment.compare import Comparison, compare
from sagescale.experiment.execute import open_backend

HERE = Path(__file__).resolve().parent


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the scheduler ended"
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("the scheduler did not listen within a minute")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and end it where it does not: a busy machine can hold up Dask's own goodbyes."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and two workers, processes of their own as on a cluster."""
    distributed = pytest.importorskip("distributed", reason="the extra sagescale[dask] is not installed")
    folder = tmp_path_factory.mktemp("dask")
    port = free_port()
    paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "DASK_DISTRIBUTED__WORKER__DAEMON": "False",
    }
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        processes.append(process)
        return process

    address = f"tcp://127.0.0.1:{port}"
    scheduler = start("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    try:
        wait_for_port(port, scheduler)
        for name in ("one", "two"):
            start("dask_worker", address, "--name", name, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        with distributed.Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        yield address
    finally:
        for process in reversed(processes):
            end(process)


@pytest.mark.filterwarnings("default")  # Dask's own warnings are not ours to fail on
def test_a_cluster_gives_the_document_of_a_serial_run(cluster):
    comparison = Comparison(variants(), ("classic",), ("constant", "kalman"), replicates=2)
    with open_backend("dask", 1, cluster) as backend:
        assert backend.jobs == 2
        over_there = written(compare(workload(wave(1000)), comparison, backend))
    here = compared(wave(1000), predictors=("constant", "kalman"), replicates=2)
    assert not over_there["comparison"]["failed"]
    assert json.dumps(without_timing(over_there)) == json.dumps(without_timing(here))
