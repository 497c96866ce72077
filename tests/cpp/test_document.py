"""The command blocks of docs/cpp.md, in their order, in one folder, as somebody who reads it would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREFIX = "/opt/searchkit"
_LIMIT_S = 1200


def blocks():
    text = (ROOT / "docs/cpp.md").read_text(encoding="utf-8")
    return re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_blocks_of_the_document(build, tmp_path):
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, run in {"searchkit": "-m searchkit", "bench": "-m bench", "python": ""}.items():
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {run} "$@"\n')
        script.chmod(0o755)
    environment = os.environ | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    # A checkout in which the headers have been fetched already, and a prefix that anybody may write to.
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("deploy", "tests"):
        (checkout / name).symlink_to(ROOT / name)
    (checkout / "build").mkdir()
    (checkout / "build" / "headers").symlink_to(build / "headers")
    found = blocks()
    assert len(found) >= 3
    script = "\n".join(["set -eu", *found]).replace(PREFIX, str(tmp_path / "prefix"))
    done = subprocess.run(
        ["bash", "-c", script], cwd=checkout, env=environment, capture_output=True, text=True, timeout=_LIMIT_S
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "prefix" / "include" / "searchkit" / "runtime.h").is_file()
    labels = (checkout / "street-labels.ppm").read_bytes()
    assert labels.startswith(b"P6\n")
    assert "p50" in done.stdout or "50 %" in done.stdout or "50th" in done.stdout
