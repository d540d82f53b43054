"""The policies of examples/policies, found as if their package were installed.

Where it is not, its entry points are written where importlib looks for them: in a folder on the path, of
this process and of those it starts.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "examples" / "policies"


def offer():
    """Make the policies and their keys known; nothing is done where they are."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    groups = project["entry-points"]
    if set(groups["sagescale.policies"]) <= {
        point.name for point in entry_points(group="sagescale.policies")
    }:
        return
    folder = Path(tempfile.mkdtemp(prefix="arena-policies-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    about = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [
        f"[{group}]\n" + "".join(f"{n} = {at}\n" for n, at in points.items())
        for group, points in groups.items()
    ]
    (about / "entry_points.txt").write_text("\n".join(lines))
    added = [str(PACKAGE), str(folder)]
    sys.path[:0] = added
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*added, *([before] if before else [])])
