"""`searchkit search` in every space but `ssr`, which has tests of its own: refusals, number formats, resuming."""

import json
import math
import os
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from searchkit import cli, console
from searchkit.data import streets
from searchkit.training import history

pytestmark = pytest.mark.usefixtures("one_thread")

SPACES = ("dcnas", "fasterseg", "lgcnet")
# Less than the presets have.
SMALLER = {
    "dcnas": ("space.layers=1", "resolution=[32, 64]"),
    "fasterseg": ("space.widths=[1]", "space.teacher=false"),
    "lgcnet": ("space.length=3", "resolution=[32, 64]"),
}


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setitem(streets.SPLITS, "train", (0, 6))
    monkeypatch.setitem(streets.SPLITS, "val", (1, 2))


@pytest.fixture
def words(tmp_path):
    """`words(space, folder, setting, ...)` is the command of a short search."""

    def made(space, folder, *settings):
        fixed = ["search", space, "--data", "streets", "--preset", "smoke", "--cache", str(tmp_path / "cache")]
        settings = ("steps=4", *SMALLER[space], *settings)
        return [*fixed, "-o", str(tmp_path / folder), *(word for each in settings for word in ("--set", each))]

    return made


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("space", "setting", "wanted"),
    [
        ("dcnas", "strategy.level=conection", "allowed: connection, operator"),
        ("dcnas", "strategy.entropy={conection=1.0}", "allowed: connection, operator, other"),
        ("fasterseg", "strategy.name=ssr & strategy.weight={pth=1.0}", "allowed: branches, path, operator, width"),
        ("lgcnet", "cost={price='macs', weight=1.0, levels={cel=1.0}}", "allowed: cell, fusion"),
        ("dcnas", "space.threshold=2", "less than or equal to 1"),
        ("dcnas", "space.inputs=0", "greater than or equal to 1"),
        ("dcnas", "space.channels=6", "a multiple of 4"),
        ("fasterseg", "space.layers=0", "greater than or equal to 4"),
        ("fasterseg", "space.widths=[2, 1]", "ascending order"),
        ("lgcnet", "space.guidance=gnn", "'none', 'fc' or 'gcn'"),
        ("lgcnet", "space.reductions=[2, 1]", "ascending order"),
        ("lgcnet", "resolution=[16, 16]", "from 32 to 8192"),
        ("fasterseg", "resolution=[36, 36]", "multiples of 8"),
        ("dcnas", "budgets.macs='1'", "at least"),
        ("fasterseg", "budgets.params='1'", "at least"),
        ("lgcnet", "budgets.macs='1'", "at least"),
    ],
)
def test_refused_before_anything_is_written(tmp_path, monkeypatch, capsys, words, space, setting, wanted):
    monkeypatch.chdir(tmp_path)
    given = [word for word in words(space, "run") if word != "--set" and "=" not in word]
    given += [word for each in setting.split(" & ") for word in ("--set", each)]
    assert console.run(cli.app, given) == 2
    assert wanted in said(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("space", ["fasterseg", "lgcnet"])
def test_one_picture_whose_map_is_one_pixel(tmp_path, capsys, words, space):
    """BatchNorm cannot learn from it; two do."""
    given = words(space, "run", "resolution=[32, 32]", "steps=1")
    assert console.run(cli.app, [*given, "--set", "batch=1"]) == 2
    assert "a single pixel, from which BatchNorm cannot learn (got 1; allowed: at least 2)" in said(capsys)
    assert not (tmp_path / "run").exists()
    assert console.run(cli.app, given) == 0
    planned = ["plan", space, "--preset", "smoke", "--pictures", "8", "--resolution", "32x32", "--batch", "1"]
    assert console.run(cli.app, planned) == 2
    assert "a single pixel" in said(capsys)


@pytest.mark.parametrize("space", SPACES)
def test_within_two_limits_that_leave_little(tmp_path, capsys, words, space):
    """By a strategy that removes by lot, which would go anywhere else."""
    given = [*words(space, "run", "steps=2", "decide_every=1", "warmup_steps=0"), "--strategy", "random"]
    limits = []
    for name in ("macs", "params"):
        assert console.run(cli.app, [*given, f"--max-{name}", "1"]) == 2
        value, suffix = re.search(r"at least ([0-9.]+) ([kM]) ", said(capsys)).groups()
        limits += [f"--max-{name}", f"{1.3 * float(value):.6f}{suffix}"]
    assert console.run(cli.app, [*given, *limits]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {name: budget["value"] <= budget["limit"] for name, budget in result["budgets"].items()} == {
        "macs": True,
        "params": True,
    }


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("how", ["amp=bf16", "channels_last=true"])
def test_ways_of_computing(tmp_path, words, space, how):
    """Losses are numbers, what is kept is float32, and the result is whole."""
    assert console.run(cli.app, words(space, "run", how)) == 0
    run = tmp_path / "run"
    rows = history.read(run / "history.jsonl")
    losses = [row[name] for row in rows for name in ("loss", "architecture_loss") if name in row]
    assert len(losses) >= 3
    assert all(math.isfinite(loss) for loss in losses)
    kept = load_file(run / "checkpoint" / "supernet.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32, torch.int64}
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == 4
    assert 0 <= result["miou_after"] <= 1


CUT = """
import json, os, sys
import torch

torch.set_num_threads(1)
from searchkit import cli, console
from searchkit.data import streets
from searchkit.training import search, search_cli, search_end, search_request

streets.SPLITS.update(train=(0, 6), val=(1, 2))
tell = search.Searcher._tell


def cut(words, number):
    def telling(self, *more):
        tell(self, *more)
        if self.position.step == 3:
            os.kill(os.getpid(), number)

    search.Searcher._tell = telling
    return console.run(cli.app, words)


for number, words in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        os._exit(cut(words, number))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def files(run):
    names = {"times.jsonl", "lock"}
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in names}


def test_cut_off_behind_the_third_step_searches_end_in_the_same_bytes(tmp_path, words):
    """By a kill, which throws away what was done since the last decision point, and by Ctrl-C, which does not."""
    commands = {
        "dcnas": lambda folder: words("dcnas", folder, "architecture.lr=1.0"),
        "lgcnet": lambda folder: words("lgcnet", folder, "strategy.name=sgas", "warmup_steps=0"),
    }
    cuts = [(number, commands[space](f"{space}-{number}")) for space in commands for number in (9, 2)]
    for space, command in commands.items():
        assert console.run(cli.app, command(f"{space}-whole")) == 0
    found = subprocess.run(
        [sys.executable, "-c", CUT, json.dumps(cuts)], stdout=subprocess.PIPE, env=os.environ, timeout=600, check=True
    )
    assert [int(line) for line in found.stdout.split()] == [-9, 130] * len(commands)
    for space, command in commands.items():
        whole = files(tmp_path / f"{space}-whole")
        assert "genotype.json" in whole
        for number in (9, 2):
            folder = f"{space}-{number}"
            assert "genotype.json" not in files(tmp_path / folder)
            assert console.run(cli.app, [*command(folder), "--resume"]) == 0
            assert files(tmp_path / folder) == whole, folder
