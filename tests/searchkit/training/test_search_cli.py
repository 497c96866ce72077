"""`searchkit search` as a new user meets it: words in, files and messages out."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from searchkit import cli, console
from searchkit.data import streets
from searchkit.spaces import SPACES, Space
from searchkit.training import search_checkpoint, search_computing
from searchkit.training.cache_folder import locked

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = [
    *("--set", "space.depths=[[1, 2], [1]]", "--set", "space.width_steps=1", "--set", "space.stem=8"),
    *("--set", "space.channels=[12, 16]", "--dimensions", "depth,dilation,channel"),
]


@pytest.fixture
def few_streets(monkeypatch):
    monkeypatch.setitem(streets.SPLITS, "train", (0, 6))
    monkeypatch.setitem(streets.SPLITS, "val", (1, 2))


@pytest.fixture
def words(tmp_path, few_streets):
    """`words("--seed", "1")` is the command."""
    fixed = ["search", "ssr", "--data", "streets", "--preset", "smoke", "--cache", str(tmp_path / "cache"), *SPACE]
    return lambda *more: [*fixed, "-o", str(tmp_path / "run"), *more]


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


def test_a_search_and_what_one_does_with_it(tmp_path, words, capsys):
    run = tmp_path / "run"
    assert console.run(cli.app, words("--json", str(tmp_path / "r.json"))) == 0
    tree = json.loads((tmp_path / "r.json").read_text())
    assert tree["finished"]
    assert tree["steps"] == 6
    assert "GMACs" in capsys.readouterr().out
    wanted = {"genotype.json", "searched.safetensors", "search.svg", "decisions.json", "history.jsonl", "result.json"}
    assert wanted <= {path.name for path in run.iterdir()}
    assert json.loads((run / "genotype.json").read_text())["provenance"]["strategy"] == "ssr"
    # Once more in the same folder, and going on with what is over.
    assert console.run(cli.app, words()) == 2
    assert "--resume" in said(capsys)
    assert console.run(cli.app, words("--resume")) == 0
    assert console.run(cli.app, words("--resume", "--seed", "9")) == 2
    assert "another seed" in said(capsys)
    assert console.run(cli.app, words("--resume", "--strategy", "darts")) == 2
    # The network: shown, trained; and exported with the weights that the search leaves.
    assert console.run(cli.app, ["show", str(run / "genotype.json"), "--resolution", "64x128"]) == 0
    train = ["train", str(run / "genotype.json"), "--data", "streets", "--preset", "smoke", "--resolution", "64x128"]
    assert console.run(cli.app, [*train, "--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "trained")]) == 0
    export = ["export", str(run / "searched.json"), "--weights", str(run / "searched.safetensors")]
    code = console.run(cli.app, [*export, "--resolution", "64x128", "-o", str(tmp_path / "bundle")])
    assert code == 0, said(capsys)


def test_searched_weights_are_the_supernets(tmp_path, words):
    """The supernet of one network and that network give the same answers."""
    from searchkit.networks import resolve
    from searchkit.spaces import SPACES
    from searchkit.supernet import weights_of
    from searchkit.weights import load_weights

    assert console.run(cli.app, words()) == 0
    run = tmp_path / "run"
    saved = search_checkpoint.read_state(run / "checkpoint")
    network = resolve(str(run / "searched.json"))
    built = network.build().eval()
    load_weights(built, run / "searched.safetensors", digest=network.digest)
    recipe = json.loads((run / "config.json").read_text())["recipe"]
    supernet = SPACES.load("ssr").supernet(recipe["space"], 19)
    from safetensors.torch import load_file

    supernet.shrink(search_checkpoint.alive_in(saved, supernet, run))
    supernet.load_state_dict(load_file(run / "checkpoint" / "supernet.safetensors"))
    tables = json.loads((run / "decisions.json").read_text())["tables"]
    alive = supernet.alive()
    for name, table in supernet.tables.items():
        for index, row in enumerate(table.rows):
            if row in tables[name]:
                alive[name][index] &= [c == tables[name][row]["candidate"] for c in table.candidates]
    supernet.shrink(supernet.closed(alive))
    image = torch.randn(1, 3, 64, 128)
    with torch.no_grad():
        expected = supernet.eval()(image, weights_of(supernet.alive()))
        assert torch.allclose(built(image), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        (["--strategy", "sr"], 2, "Did you mean"),
        (["--preset", "smok"], 2, "unknown preset (got 'smok'; allowed: demo, paper, smoke)"),
        (["--recipe", "missing.toml"], 2, "both a preset and a recipe"),
        (["--data", "street"], 2, "Did you mean streets"),
        (["--device", "cuda:9"], 7, "no such GPU"),
        (["--resolution", "63x128"], 2, "does not take this size"),
        (["--resume"], 2, "no run to resume"),
        (["--json", "nowhere/x.json"], 4, "folder does not exist"),
        (["--split", "third"], 2, "half"),
        (["--dimensions", "depth,colour"], 2, "space.dimensions"),
        (["--set", "space.depth=3"], 2, "space.depth"),
        (["--set", "strategy.treshold=0.2"], 2, "threshold"),
        (["--set", "stepps=3"], 2, "steps"),
        (["--set", "steps"], 2, "FIELD=VALUE"),
        (["--max-macs", "many"], 2, "--max-macs"),
        (["--max-macs", "1"], 2, "at least"),
        (["--max-params", "100"], 2, "at least"),
        (["--max-latency", "5ms"], 2, "table"),
        (["--max-latency", "5ms", "--latency-table", "nowhere.json"], 3, "nowhere.json"),
        (["--budget-resolution", "tiny", "--max-macs", "1G"], 2, "tiny"),
    ],
)
def test_refusals_come_before_anything_is_written(tmp_path, monkeypatch, capsys, words, arguments, code, wanted):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert console.run(cli.app, words(*arguments)) == code
    assert wanted in said(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_space_without_a_supernet(words, capsys, monkeypatch):
    monkeypatch.setattr(type(SPACES.load("ssr")), "supernet", Space.supernet)
    assert console.run(cli.app, words()) == 2
    assert "no supernet" in said(capsys)


def test_two_searches_in_one_folder(tmp_path, words, capsys):
    with locked(tmp_path / "run", wait=False):
        assert console.run(cli.app, words()) == 2
    assert f"process {os.getpid()} is searching in this folder" in said(capsys)
    # Nothing is lost: the lock alone is no run, and another search may begin.
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["lock"]
    assert console.run(cli.app, words()) == 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out(tmp_path, monkeypatch, capsys, words, error):
    def full(*_arguments):
        raise error

    monkeypatch.setattr("searchkit.training.search.heads_loss", full)
    assert console.run(cli.app, words()) == 6
    text = said(capsys)
    assert "memory ran out" in text
    assert "GiB of tensors, as `searchkit plan` counts" in text
    assert search_checkpoint.read_state(tmp_path / "run" / "checkpoint").position.step == 0


def test_other_errors_of_pytorch_are_no_lack_of_memory(monkeypatch, words):
    def wrong(*_arguments):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("searchkit.training.search.heads_loss", wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        console.run(cli.app, words())


def test_a_network_over_its_limit(tmp_path, monkeypatch, capsys, words):
    from searchkit.costs.budget import Budget

    monkeypatch.setattr(Budget, "met", lambda self, genotype: (False, 2 * self.limit))
    assert console.run(cli.app, words("--max-macs", "50M")) == 6
    assert "breaks a limit" in said(capsys)
    assert (tmp_path / "run" / "nearest.json").exists()
    assert not (tmp_path / "run" / "genotype.json").exists()


def test_limits_hold_at_their_own_resolution(tmp_path, words):
    assert console.run(cli.app, words("--max-macs", "1.5G", "--budget-resolution", "512x1024")) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["budgets"]["macs"]["value"] <= 1.5e9
    from searchkit.networks import resolve
    from searchkit.sizes import Size

    found = resolve(str(tmp_path / "run" / "genotype.json")).genotype
    assert found.cost(Size(512, 1024)).conv_macs == result["budgets"]["macs"]["value"]


def test_bfloat16_sets_the_supernets_own_format(words, monkeypatch):
    seen = []
    real = search_computing.configured
    monkeypatch.setattr(
        "searchkit.training.search.configured", lambda net, *more: (real(net, *more), seen.append(net.compute_dtype))[0]
    )
    assert console.run(cli.app, words("--set", "amp=bf16", "--set", "checkpointing=true", "--set", "steps=2")) == 0
    assert set(seen) == {torch.bfloat16}


RUN_FEW = """
import sys
from searchkit import cli, console
from searchkit.data import streets
streets.SPLITS.update(train=(0, 6), val=(1, 2))
sys.exit(console.run(cli.app, sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state(tmp_path, words, number, code):
    run = tmp_path / "run"
    long = words("--set", "steps=100000", "--set", "decide_every=100000")
    process = subprocess.Popen([sys.executable, "-c", RUN_FEW, *long], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and (run / "history.jsonl").exists() is False:
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == code, text
    assert "go on with --resume" in text
    assert search_checkpoint.read_state(run / "checkpoint").position.step >= 20
