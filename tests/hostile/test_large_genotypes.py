"""A genotype that is valid and describes a network too large to build is refused before anything is allocated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from searchkit import genotype
from searchkit.networks import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
CHECK = """
import sys
from searchkit.errors import UsageError
from searchkit.networks import resolve
from searchkit.sizes import parse_size
try:
    resolve(sys.argv[1]).check(parse_size(sys.argv[2]))
except UsageError as error:
    print(error)
print("torch" in sys.modules)
"""

WIDE = {"operator": "conv_x2", "width": 256, "stride": 2}
THIN = [{"channels": 1501, "layers": []}, {"channels": 1502, "layers": []}]
DENSE = [{"channels": 4097, "layers": []}, {"channels": 8192, "layers": []}]
# The genotype it is made from, what is changed, the input's size, and what the refusal must say.
TOO_LARGE = {
    "parameters": ("fasterseg", {"shared": [], "branches": [[WIDE, WIDE]]}, "32x32", "at most 500,000,000"),
    "multiply-accumulates": (
        "ssr-baseline1",
        {"stem": 4096, "stages": DENSE},
        "8192x8192",
        "at most 10,000,000,000,000",
    ),
    # The largest layer: 4096 x 4096 x 1500 floats out, 8192 x 8192 x 3 in.
    "activation memory": ("ssr-baseline1", {"stem": 1500, "stages": THIN}, "8192x8192", "101,267,275,776 bytes"),
    # The logits at 1/4 fit, their resize to the input's size does not.
    "activation memory of the logits": ("ssr", {"classes": 64}, "8192x8192", "18,253,611,008 bytes"),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_it_is_refused_without_torch(tmp_path, what):
    base, changes, size, says = TOO_LARGE[what]
    path = tmp_path / "large.json"
    path.write_text(json.dumps(json.loads((SHIPPED / f"{base}.json").read_text()) | changes))
    assert genotype.load(path).space == base.split("-")[0]
    command = [sys.executable, "-c", CHECK, str(path), size]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    message, torch_is_loaded = done.stdout.splitlines()
    assert f"too large: {what.removesuffix(' of the logits')} (got " in message
    assert says in message
    assert torch_is_loaded == "False"
