"""The comparison of the C++ runtime with Python's: what is derived from samples, and the program at the other end."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import cpp_runtime
from bench.cpp_runtime import PARTS, Times, measure
from searchkit.errors import UsageError, VerificationError
from searchkit.sizes import Size

ROOT = Path(__file__).parents[2]
RESULT = "bench/results/xeon-2cores-cpp-runtime.json"

# Reads the frame, 2x3, then answers each command with that many lines; `2` is a command it cannot stand.
PROGRAM = """#!{python}
import sys
frame = sys.stdin.buffer.read(18)
for line in sys.stdin.buffer:
    if int(line) == 2:
        break
    for _ in range(int(line)):
        print(sum(frame), 1000, 3000000, 2000, flush=True)
"""


@pytest.fixture
def program(tmp_path):
    """The program's way of being talked to, with something simple at the other end."""
    path = tmp_path / "time_frames"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    with cpp_runtime._program(tmp_path, tmp_path, np.ones((2, 3, 3), np.uint8), 1) as program:
        yield program


def test_a_program_is_sent_a_frame_and_asked_for_turns(program):
    assert program.turn(1) == [(18e-6, 1e-3, 3.0, 2e-3)]
    assert len(program.turn(3)) == 3


def test_a_program_that_ends_is_an_error(program):
    with pytest.raises(VerificationError, match=r"the C\+\+ program ended"):
        program.turn(2)


def test_what_is_derived_from_samples():
    cpp = {"call": [[10.0, 12.0, 11.0], [20.0]], "session": [[9.9, 12.0, 11.0], [10.0]]}
    times = Times("ssr", Size(512, 1024), "label_head", [[22.0, 10.0, 40.0], [10.0]], cpp)
    assert times.ratio() == {
        "median": 1.25,
        "lower_quartile": 0.875,
        "upper_quartile": 1.625,
        "least": 0.5,
        "greatest": 2,
    }
    assert times.overhead()["greatest"] == 0.5
    assert times.overhead()["median"] == pytest.approx(0.005)
    assert times.to_tree()["median_ms"] == {"python": 16.0, "cpp_call": 11.5, "cpp_session": 10.5}


def test_without_the_programs(tmp_path):
    with pytest.raises(UsageError, match="no such program"):
        measure(tmp_path, tmp_path, threads=1, rounds=2, runs=1, tell=lambda _: None)


def row_of(case):
    ratio, outside = case["cpp_over_python"], case["outside_session_share"]["median"]
    return (
        f"| `{case['network']}` | {case['frame']} | {case['median_ms']['cpp_call']:.1f} ms | "
        f"{case['median_ms']['python']:.1f} ms | "
        f"{ratio['median']:.3f} ({ratio['lower_quartile']:.3f} to {ratio['upper_quartile']:.3f}) | "
        f"{100 * outside:.2f} % |"
    )


def test_the_table_of_the_document_is_the_measured_one():
    tree = json.loads((ROOT / RESULT).read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "cpp.md").read_text(encoding="utf-8")
    assert f"`{RESULT}`" in text
    assert re.findall(r"^\| `\w+` \| \d+x\d+ \| .*\|$", text, re.MULTILINE) == [row_of(case) for case in tree["cases"]]
    for case in tree["cases"]:
        kept = case["cpp_ms"]
        times = Times(case["network"], Size(0, 0), case["python_mode"], case["python_ms"], kept)
        assert (case["cpp_over_python"], case["outside_session_share"]) == (times.ratio(), times.overhead())
        assert set(kept) == set(PARTS)
        if case["frame"] == case["model"]:
            assert case["outside_session_share"]["upper_quartile"] < 0.03
