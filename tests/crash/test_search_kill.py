"""`searchkit search` killed by SIGKILL at random moments and gone on with: the same bytes as a search left alone.

Looked at after every kill: whatever lies in the folder of the search can be read.
"""

from __future__ import annotations

import json
import random
import signal
import time
from xml.etree import ElementTree

import pytest

from searchkit.files import sha256_file
from searchkit.training import history, search_checkpoint

STEPS = 8
MIDWAY_KILLS = 8
MOST_KILLS = 60

WARM_UP = """
from searchkit.data import streets
from searchkit.spaces.ssr import supernet
from searchkit.training import dry_run, search, search_cli, search_end, search_request
streets.SPLITS.update(train=(0, 6), val=(1, 2))
"""


@pytest.fixture
def words(tmp_path):
    """`words(run)` is the command: a small space that shrinks at each of its decisions."""
    fixed = ["search", "ssr", "--data", "streets", "--preset", "smoke", "--cache", str(tmp_path / "cache")]
    for setting in (
        *("space.depths=[[1, 2], [1]]", "space.width_steps=1", "space.stem=8", "space.channels=[12, 16]"),
        *(f"steps={STEPS}", "decide_every=1", "warmup_steps=0", "architecture.lr=2.0", "stop_when_discrete=false"),
    ):
        fixed += ["--set", setting]
    return lambda run: [*fixed, "--max-macs", "1G", "-o", str(run)]


def files(run):
    names = {"times.jsonl", "lock"}
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in names}


def check_readable(run):
    """Read whatever is there; returns how many steps are saved."""
    for name in ("config.json", "result.json", "decisions.json", "genotype.json"):
        if (run / name).exists():
            assert json.loads((run / name).read_text())["schema"] == 1
    if (run / "search.svg").exists():
        ElementTree.parse(run / "search.svg")
    for name in ("history.jsonl", "choices.jsonl", "times.jsonl"):
        steps = [row["step"] for row in history.read(run / name)]
        assert steps == sorted(steps)
    if not (run / "checkpoint").exists():
        return 0
    saved = search_checkpoint.read_state(run / "checkpoint")
    for name, sha256 in saved.sha256.items():
        assert sha256_file(run / "checkpoint" / name) == sha256
    return saved.position.step


@pytest.mark.slow
def test_killed_at_random_moments_a_search_ends_in_the_same_bytes(tmp_path, commands, words):
    whole = tmp_path / "whole"
    assert commands.run(words(whole)) == 0, (tmp_path / "errors.txt").read_text()
    expected = files(whole)
    assert {"genotype.json", "searched.safetensors", "history.jsonl", "choices.jsonl", "search.svg"} < set(expected)
    removed = [row["removed"] for row in history.read(whole / "history.jsonl") if "removed" in row]
    assert sum(count > 0 for count in removed) >= 3, "the search is to shrink more than once"
    # Once more, with the samples decoded: so long a whole search takes.
    began = time.monotonic()
    assert commands.run(words(tmp_path / "timed")) == 0
    duration_s = time.monotonic() - began
    moments = random.Random(5)
    midway = kills = finished = 0
    run = tmp_path / "run-0"
    while midway < MIDWAY_KILLS or not finished:
        resume = ["--resume"] if (run / "config.json").exists() else []
        moment = moments.uniform(0, duration_s) if midway < MIDWAY_KILLS else None
        code = commands.run([*words(run), *resume], killed_after_s=moment)
        saved = check_readable(run) if run.exists() else 0
        if code == 0:
            assert files(run) == expected
            finished += 1
            run = tmp_path / f"run-{finished}"
            continue
        assert code == -signal.SIGKILL, (tmp_path / "errors.txt").read_text()
        kills += 1
        midway += 0 < saved < STEPS
        assert kills < MOST_KILLS, "too few kills fell between the first and the last step"
