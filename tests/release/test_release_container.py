"""A container with a read-only file system: what the shipped manifest promises, on a copy of the package.

Each of these compiles the kernel from nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
DEPLOY = REPO / "docs" / "deploy"

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def read_only_package(tmp_path_factory):
    """A copy of the package that nothing can be compiled into, whoever asks."""
    root = tmp_path_factory.mktemp("container")
    for name in ("sagescale", "profiles"):
        shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [root / "sagescale", *(path for path in (root / "sagescale").rglob("*") if path.is_dir())]:
        (folder / "__pycache__").write_text("in the way of the folder that caches lie in")
    return root


def once(root, folder, **environment):
    folder.mkdir()
    words = ["plan", "--dry-run", "--once", "--profile", "h100-llama-3.3-70b-fp8-tp4", "--set=policy=slo"]
    # No HOME, as in a container whose user has none; /dev/null is nobody's to write below.
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-B", "-m", "sagescale", *words],
        env={**kept, "PYTHONPATH": str(root), "HOME": "/dev/null", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_runs_where_nothing_can_be_written_and_says_so_once(read_only_package, tmp_path):
    done = once(read_only_package, tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert "WOULD DO" in done.stdout
    assert done.stderr.count("compiled code cannot be kept") == 1
    assert "NUMBA_CACHE_DIR" in done.stderr


def test_the_manifest_gives_compiled_code_a_place(read_only_package, tmp_path):
    documents = list(yaml.safe_load_all((DEPLOY / "sagescale.yaml").read_text()))
    (pod,) = [item["spec"]["template"]["spec"] for item in documents if item["kind"] == "Deployment"]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    mounts = {
        item["mountPath"]: item["name"] for item in container["volumeMounts"] if not item.get("readOnly")
    }
    volumes = {item["name"]: item for item in pod["volumes"]}
    assert "emptyDir" in volumes[mounts[environment["NUMBA_CACHE_DIR"]]]
    assert "emptyDir" in volumes[mounts["/tmp"]], "the lock of its target"
    done = once(read_only_package, tmp_path / "here", NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "cannot be kept" not in done.stderr
