"""What a search is said to need, against a search that runs."""

import gc
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from searchkit.choices import ChoiceTable
from searchkit.cli import app
from searchkit.console import run
from searchkit.data import streets
from searchkit.footprint import PeakMemory
from searchkit.settings import parse_settings
from searchkit.sizes import Size
from searchkit.spaces import SPACES, Space
from searchkit.spaces.ssr.search_space import SSRSearchSpace
from searchkit.spaces.ssr.supernet import SSRSupernet
from searchkit.training import search_recipe
from searchkit.training.dry_run import Ledger, dry_run
from searchkit.training.plan import (
    UTILISATION,
    Pictures,
    Rates,
    cache_bytes,
    peak_bytes,
    plan,
    thinned,
)
from searchkit.training.search import Searcher
from searchkit.training.search_folder import SearchFolder
from searchkit.training.search_recipe import parse_search_recipe

SIZE = Size(64, 96)
SMALL = {
    "dimensions": ["depth", "spatial", "channel"],
    "depths": [[1, 2], [1, 2]],
    "channels": [24, 40],
    "width_steps": 5,
    "width_step": 2,
}


def small():
    return SSRSupernet(parse_settings(SSRSearchSpace, SMALL, what="space"), 19)


def on_meta():
    with torch.device("meta"):
        return small()


def recipe_of(**changes):
    return parse_search_recipe({"batch": 2, "steps": 3, "decide_every": 100} | changes, where="test")


@pytest.fixture
def searcher_of(search_job):
    samples = [streets.draw(0, index, SIZE) for index in range(16)]
    return lambda recipe, folder: Searcher(search_job(small, recipe, samples, SIZE), SearchFolder(folder))


@pytest.mark.parametrize(
    "changes", [{"batch": 4}, {"batch": 8}, {"batch": 8, "amp": "bf16"}, {"batch": 8, "checkpointing": True}]
)
def test_memory_is_that_of_a_real_step(tmp_path, changes, searcher_of):
    """Of the tensors that live while a search makes its steps, weights counted too."""
    recipe = recipe_of(**changes)
    searcher = searcher_of(recipe, tmp_path)
    gc.collect()
    ledger = Ledger()
    ledger.follow([*searcher.supernet.parameters(), *searcher.supernet.buffers()])
    with ledger:
        assert searcher.run()
    real = ledger.peak_bytes
    assert dry_run(on_meta(), recipe, SIZE).worst.peak_bytes == pytest.approx(real, rel=0.1)


def test_parts_of_the_memory_are_those_of_the_supernet():
    supernet = on_meta()
    needs = dry_run(supernet, recipe_of(), SIZE)
    parameters = sum(p.numel() * 4 for p in supernet.parameters())
    buffers = sum(b.numel() * b.element_size() for b in supernet.buffers())
    for update in (needs.architecture, needs.weight):
        assert update.weights_bytes == parameters + buffers
        # Adam's two, and a count of steps for each parameter.
        assert update.moments_bytes == 2 * parameters + 4 * len(list(supernet.parameters()))
        assert update.peak_bytes == (
            update.weights_bytes + update.moments_bytes + update.gradients_bytes + update.activations_bytes
        )
    assert needs.state_bytes == needs.weight.weights_bytes + needs.weight.moments_bytes
    assert needs.weight.gradients_bytes <= parameters


def test_gradients_are_told_from_activations():
    """Pictures so small that the highest point is near the end of a backward pass, where most gradients are there."""
    supernet = on_meta()
    needs = dry_run(supernet, recipe_of(batch=1), Size(32, 32))
    network = sum(p.numel() * 4 for p in supernet.network_parameters().values())
    architecture = sum(p.numel() * 4 for p in supernet.architecture_parameters().values())
    assert 0.75 * network <= needs.weight.gradients_bytes <= network
    # Those of the weights are gone since the weights moved.
    assert 0 <= needs.architecture.gradients_bytes <= architecture


def test_macs_of_convolutions_forward_and_backward():
    """By hand, of a network of one convolution behind one that is fixed."""
    needs = dry_run(_OneLayer(), recipe_of(), SIZE)
    cells = 2 * (64 // 8) * (96 // 8)
    stem, head = 3 * 8 * 64 * cells, 8 * 19 * cells
    # Weights: both convolutions forward and by weight, the second by input too; architecture: no weight gradients.
    assert needs.weight.macs == 2 * stem + 3 * head
    assert needs.architecture.macs == stem + head + head


class _Gate(ChoiceTable):
    """One choice of eight candidates, with the given logits."""

    def __init__(self, logits):
        super().__init__("gate", "gate", ["0"], [str(column) for column in range(8)])
        self.logits = logits


class _OneLayer(nn.Module):
    """As much of a supernet as a step looks at."""

    head_weights = None

    def __init__(self):
        super().__init__()
        with torch.device("meta"):
            self.stem, self.head = nn.Conv2d(3, 8, 8, stride=8, bias=False), nn.Conv2d(8, 19, 1, bias=False)
            self.gate = nn.Parameter(torch.zeros(8))
        self.tables, self.levels = {"gate": _Gate(self.gate)}, ("gate",)

    def passes(self, weights, *, warmup):
        return (weights,)

    def network_parameters(self):
        return {"stem": self.stem.weight, "head": self.head.weight}

    def architecture_parameters(self):
        return {"gate": self.gate}

    def forward(self, image, weights):
        return self.head(self.stem(image) * weights["gate"].view(1, 8, 1, 1))


def test_the_ledger_sees_what_the_plain_tracker_sees():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    peaks = []
    for kind in (PeakMemory, Ledger):
        network.zero_grad(set_to_none=True)
        with kind() as tracker:
            network(torch.randn(2, 3, 32, 32)).square().mean().backward()
        peaks.append(tracker.peak_bytes)
    assert peaks[0] == peaks[1]


def test_the_ledger_forgets_what_is_gone():
    ledger = Ledger()
    kept = torch.zeros(10)
    (number,) = ledger.follow([kept, None, kept.view(2, 5)])
    with ledger:
        for _ in range(5):
            torch.ones(1000)
    assert ledger.peak_bytes == 40 + 4000
    assert ledger.live_bytes == 40
    assert set(ledger.at_peak) > {number}
    ledger.restart()
    assert (ledger.peak_bytes, ledger.at_peak, ledger.traffic_bytes) == (40, {number: 40}, 0)


def test_it_falls_as_the_search_shrinks():
    found = plan(small, "ssr", recipe_of(), SIZE, Pictures(30, 10))
    assert [row.candidates for row in found.rows] == [None, 5, 2, 1]
    for before, after in zip(found.rows, found.rows[1:], strict=False):
        assert after.alive < before.alive
        assert after.needs.macs < before.needs.macs
        assert after.needs.worst.peak_bytes < before.needs.worst.peak_bytes


def test_one_candidate_alive_is_one_a_choice():
    alive = thinned(on_meta().alive(), 1)
    assert all((mask.sum(axis=1) == 1).all() for mask in alive.values())
    two = thinned(on_meta().alive(), 2)
    assert all((mask[:, 0] & mask[:, -1]).all() for mask in two.values())
    # What is gone does not come back.
    some = {"a": np.array([[False, True, False, True, True], [False] * 5])}
    assert (thinned(some, 2)["a"] == [[False, True, False, False, True], [False] * 5]).all()


def test_steps_disk_and_pictures():
    recipe = recipe_of(steps=None, epochs=3, batch=4, training_pictures=41, stored=2)
    found = plan(small, "ssr", recipe, SIZE, Pictures(1000, 10))
    # 20 or 21 of the pictures are for the architecture, 3 epochs of the rest in batches of 4.
    assert found.pictures == Pictures(41, 10)
    assert found.steps == recipe.length(41) == -(-3 * 21 // 4)
    assert found.disk.caches == 4 * 64 * 96 * (41 * 4 + 10) == cache_bytes(Pictures(41, 10), SIZE, 2)
    assert found.disk.checkpoint == found.needs.state_bytes
    assert found.disk.total == found.disk.caches + 2 * found.disk.checkpoint


def test_a_checkpoint_is_as_large_as_said(tmp_path, searcher_of):
    recipe = recipe_of()
    searcher = searcher_of(recipe, tmp_path)
    assert searcher.run()
    written = sum(path.stat().st_size for path in searcher.folder.checkpoint.glob("*.safetensors"))
    assert dry_run(on_meta(), recipe, SIZE).state_bytes == pytest.approx(written, rel=0.1)


def test_hours_are_those_of_the_slower_of_work_and_traffic():
    needs = SimpleNamespace(macs=10**12, traffic_bytes=10**9)
    rates = Rates("a", "A", "fp32", tera_ops=2.0, bandwidth_gb_s=100.0, memory_gb=16.0)
    assert rates.step_s(needs) == pytest.approx(1.0)
    low, high = rates.hours(needs, 3600)
    assert (low, high) == (pytest.approx(1 / UTILISATION[1]), pytest.approx(1 / UTILISATION[0]))
    assert rates.step_s(SimpleNamespace(macs=1, traffic_bytes=10**12)) == pytest.approx(10.0)


def test_peak_for_messages():
    assert peak_bytes(small, recipe_of(), SIZE) == dry_run(on_meta(), recipe_of(), SIZE).worst.peak_bytes


SET = [f"--set=space.{name}={json.dumps(value)}" for name, value in SMALL.items()]


def said(capsys, *arguments):
    code = run(app, ["plan", "ssr", *arguments])
    return code, *capsys.readouterr()


def test_the_command(capsys):
    code, output, _ = said(
        capsys, "--pictures", "100", "--resolution", "64x96", "--batch", "2", *SET, "--device", "a100"
    )
    assert code == 0
    assert "counted" in output
    assert "not sampled" in output
    assert "predicted for A100" in output
    assert "published" not in output


def test_the_command_as_json(capsys):
    code, output, _ = said(capsys, "--data", "streets", "--resolution", "64x96", *SET, "--json", "-")
    tree = json.loads(output)
    assert code == 0
    assert tree["resolution"] == "64x96"
    assert tree["batch"] == 6
    assert [row["candidates"] for row in tree["counted"]] == ["all", 5, 2, 1]
    assert all(row["sampled"] is None for row in tree["counted"])
    assert tree["predicted"][0]["name"] == "v100"
    assert tree["predicted"][0]["fits_memory"] is True
    assert tree["pictures"]["train"] > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "how many pictures"),
        (["--pictures", "9", "--data", "streets"], "how many pictures"),
        (["--pictures", "9", "--device", "v10"], "unknown device"),
        (["--pictures", "9", "--device", "v100", "--set", "amp=bf16"], "no rate in bf16"),
        (["--pictures", "9", "--resolution", "100x96"], "does not take this size"),
        (["--pictures", "9", "--set", "space.depth=[[1],[1]]"], "space"),
        (["--pictures", "9", "--preset", "nothing"], "unknown preset"),
    ],
)
def test_what_it_refuses(capsys, arguments, message):
    code, output, error = said(capsys, *arguments)
    assert code == 2
    assert not output
    assert message in error


def test_an_unknown_space_is_refused(capsys):
    assert run(app, ["plan", "srr", "--pictures", "9"]) == 2
    assert "ssr" in capsys.readouterr().err


def test_a_space_without_a_supernet_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(type(SPACES.load("ssr")), "supernet", Space.supernet)
    assert run(app, ["plan", "ssr", "--pictures", "9"]) == 2
    assert "no supernet" in capsys.readouterr().err


def test_a_space_without_recipes_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(search_recipe, "presets", lambda space: [])
    assert run(app, ["plan", "ssr", "--pictures", "9"]) == 2
    assert "no recipe of a search" in capsys.readouterr().err


@pytest.mark.slow
def test_the_papers_search_has_the_papers_figures_beside_it(capsys):
    code, output, _ = said(capsys, "--pictures", "2975", "--json", "-")
    tree = json.loads(output)
    assert code == 0
    assert len(tree["published"]) == 2
    whole = tree["counted"][0]
    worst = max(whole["architecture"]["peak_bytes"], whole["weight"]["peak_bytes"])
    # The authors' own code takes 15.6 GB.
    assert 4e9 < worst < 15.6e9
