"""The figures in docs/native.md are those of the measurement it names, cell by cell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[3]
WAYS = ("onnxruntime", "pytorch", "native avx512", "native avx2", "native plain", "native, 2 threads")


def rows(tree):
    """A line a case: the median of the turns' medians, and how many times as fast as ONNX Runtime."""
    for case in tree["cases"]:
        cells = [case["logits"], case["labels"]]
        for way in WAYS:
            ratio = case["times_as_fast_as_onnxruntime"][way]["median"]
            cells.append(f"{median(case['turns_ms'][way]):.1f} ms, {ratio:.2g}x")
        yield f"| {' | '.join(cells)} |"


def test_the_table_is_the_measured_one():
    text = (ROOT / "docs" / "native.md").read_text(encoding="utf-8")
    path = re.search(r"`(bench/results/[^`]+\.json)`", text)
    assert path is not None
    found = list(rows(json.loads((ROOT / path[1]).read_text(encoding="utf-8"))))
    assert len(found) == 3
    (table,) = re.findall(r"^\| logits \| labels .*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table.splitlines() == found
