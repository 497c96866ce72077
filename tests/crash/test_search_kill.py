"""`searchkit search` killed by SIGKILL at random moments and gone on with: the same bytes as a search left alone.

Looked at after every kill: whatever lies in the folder of the search can be read.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from searchkit.files import sha256_file
from searchkit.training import history, search_checkpoint

ROOT = Path(__file__).parents[2]
STEPS = 8
MIDWAY_KILLS = 8
MOST_KILLS = 60

# One process that has imported everything and forks for each command: the kills are to fall into the search itself.
SERVER = """
import json, os, sys, torch, torch._dynamo
torch.set_num_threads(1)
from searchkit import cli, console
from searchkit.data import streets
from searchkit.spaces.ssr import supernet
from searchkit.training import dry_run, search, search_cli, search_end, search_request
streets.SPLITS.update(train=(0, 6), val=(1, 2))
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.dup2(2, 1)
            code = console.run(cli.app, json.loads(line))
        finally:
            os._exit(code)
    print(child, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
    """Runs `searchkit` commands, one at a time, and kills them."""

    def __init__(self, errors):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", SERVER]
        self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=environment, text=True)
        assert self._server.stdout.readline() == "ready\n"

    def _told(self, line):
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()

    def run(self, words, *, killed_after_s=None):
        """The exit code, which is minus SIGKILL for one that was killed."""
        self._told(json.dumps(words))
        process = int(self._server.stdout.readline())
        if killed_after_s is not None:
            time.sleep(killed_after_s)
            os.kill(process, signal.SIGKILL)
        self._told("")
        return int(self._server.stdout.readline())

    def close(self):
        self._server.stdin.close()
        self._server.wait(60)


@pytest.fixture
def commands(tmp_path):
    with open(tmp_path / "errors.txt", "w") as errors:
        found = Commands(errors)
        yield found
        found.close()


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
