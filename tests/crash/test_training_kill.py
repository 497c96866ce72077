"""`searchkit train` killed by SIGKILL at random moments and gone on with: the same bytes as a run left alone.

Looked at after every kill: whatever lies in the run's folder, and in the cache's, can be read.
"""

from __future__ import annotations

import json
import random
import signal
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from searchkit.files import sha256_file
from searchkit.pictures import read_picture
from searchkit.training import checkpoint, history
from searchkit.training.cache import open_cache
from searchkit.training.cache_listing import list_caches

TINY = {
    "schema": 1,
    "space": "ssr",
    "classes": 2,
    "pool": "average",
    "mid_norm": False,
    "stem": 8,
    "stages": [
        {"channels": 12, "layers": []},
        {"channels": 16, "layers": [{"dilation": 1, "spatial": 1, "mid": 8, "out": 8}]},
    ],
    "head": {"type": "classifier"},
    "provenance": {"name": "tiny"},
}
# Of the preset `smoke`, both stages together.
STEPS = 6
MIDWAY_KILLS = 12
MOST_KILLS = 60

WARM_UP = """
from searchkit.data import folder
from searchkit.training import cache, train, train_cli
"""


DESCRIPTION = """
name = "yard"
masks = "index"
classes = [{ name = "path", colour = [10, 20, 30] }, { name = "grass", colour = [40, 50, 60] }]
[splits.train]
images = "p/*.png"
masks = "m/*.png"
[splits.val]
images = "p/*0.png"
masks = "m/*0.png"
"""


@pytest.fixture
def words(tmp_path):
    """`words(run, cache)` is the command, on 40 small pictures of noise."""
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    noise = np.random.default_rng(0)
    for kind, shape, end in (("p", (32, 64, 3), 256), ("m", (32, 64), 2)):
        (tmp_path / "yard" / kind).mkdir(parents=True)
        for index in range(40):
            pixels = noise.integers(0, end, shape, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "yard" / kind / f"{index}.png")
    (tmp_path / "yard" / "dataset.toml").write_text(DESCRIPTION)
    fixed = ["train", str(tmp_path / "tiny.json"), "--data", f"folder:{tmp_path / 'yard'}", "--preset", "smoke"]
    fixed += ["--resolution", "32x64"]
    return lambda run, cache: [*fixed, "--cache", str(cache), "-o", str(run)]


def files(run):
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }


def check_readable(run, cache):
    """Read whatever is there; returns how many steps are saved."""
    for found in list_caches(cache):
        assert found.state in ("finished", "unfinished")
        if found.state == "finished":
            open_cache(found.path, verify=True)
    for path in run.glob("*.safetensors"):
        assert load_file(path)
    if (run / "config.json").exists():
        assert json.loads((run / "config.json").read_text())["schema"] == 1
    if (run / "plots.svg").exists():
        ElementTree.parse(run / "plots.svg")
    if (run / "validation.png").exists():
        read_picture(run / "validation.png")
    steps = [row["step"] for row in history.read(run / "history.jsonl")]
    assert steps == sorted(steps)
    if not (run / "checkpoint").exists():
        return 0
    saved = checkpoint.read_position(run / "checkpoint").total_step
    for name, sha256 in json.loads((run / "checkpoint" / "state.json").read_text())["sha256"].items():
        assert sha256_file(run / "checkpoint" / name) == sha256
    return saved


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_in_the_same_bytes(tmp_path, commands, words):
    whole, cache = tmp_path / "whole", tmp_path / "cache"
    began = time.monotonic()
    assert commands.run(words(whole, cache)) == 0, (tmp_path / "errors.txt").read_text()
    duration_s = time.monotonic() - began
    expected = files(whole)
    assert {"weights.safetensors", "last.safetensors", "history.jsonl", "plots.svg", "validation.png"} < set(expected)
    moments = random.Random(3)
    midway = kills = finished = 0
    run, cache = tmp_path / "run-0", tmp_path / "cache-0"
    while midway < MIDWAY_KILLS or not finished:
        resume = ["--resume"] if (run / "config.json").exists() else []
        # The first kills of a run may fall anywhere; after enough of them it is left to end.
        moment = moments.uniform(0, duration_s) if midway < MIDWAY_KILLS else None
        code = commands.run([*words(run, cache), *resume], killed_after_s=moment)
        saved = check_readable(run, cache)
        if code == 0:
            assert files(run) == expected
            finished += 1
            run, cache = tmp_path / f"run-{finished}", tmp_path / f"cache-{finished}"
            continue
        assert code == -signal.SIGKILL, (tmp_path / "errors.txt").read_text()
        kills += 1
        midway += 0 < saved < STEPS
        assert kills < MOST_KILLS, "too few kills fell between the first and the last step"
