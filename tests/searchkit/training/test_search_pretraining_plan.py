"""What a search in two phases is said to need."""

import gc
import json
from dataclasses import replace

import pytest
import torch

from searchkit.cli import app
from searchkit.console import run
from searchkit.data import streets
from searchkit.settings import parse_settings
from searchkit.sizes import Size
from searchkit.spaces.ssr.search_space import SSRSearchSpace
from searchkit.spaces.ssr.supernet import SSRSupernet
from searchkit.training.dry_run import Ledger, dry_run, dry_run_of_warmup
from searchkit.training.plan import Pictures, Rates, peak_bytes, plan
from searchkit.training.search import Searcher
from searchkit.training.search_folder import SearchFolder
from searchkit.training.search_recipe import parse_search_recipe

SIZE = Size(64, 96)
SMALL = {"dimensions": ["spatial"], "depths": [[1], [1]], "channels": [16, 24], "stem": 8, "width_steps": 2}
#: 20 of 40 pictures: 2 epochs in batches of 5, and 3 in batches of 2.
TWO = {
    "batch": 2,
    "epochs": 5,
    "warmup_epochs": 2,
    "augmentation": {"crop": [32, 48]},
    "pretraining": {"batch": 5, "crop": [64, 64]},
}
RATES = Rates("a", "A", "fp32", tera_ops=2.0, bandwidth_gb_s=100.0, memory_gb=16.0)


def small():
    return SSRSupernet(parse_settings(SSRSearchSpace, SMALL, what="space"), 19)


def on_meta():
    with torch.device("meta"):
        return small()


def recipe_of(**changes):
    return parse_search_recipe(TWO | changes, where="test")


class Thrice(SSRSupernet):
    """Three passes while only the weights learn, as FasterSeg has four."""

    def passes(self, weights, *, warmup):
        return (weights,) * (3 if warmup else 1)


def test_a_step_of_pretraining_is_an_update_of_the_weights():
    found = dry_run_of_warmup(on_meta(), recipe_of(batch=5), Size(64, 64))
    update = dry_run(on_meta(), recipe_of(batch=5), Size(64, 64)).weight
    assert found.macs == update.macs
    # There is no picture of the other update, and there are no labels of it.
    assert update.peak_bytes - found.peak_bytes == 5 * 64 * 64 * (3 * 4 + 1)
    with torch.device("meta"):
        several = Thrice(parse_settings(SSRSearchSpace, SMALL, what="space"), 19)
    assert dry_run_of_warmup(several, recipe_of(batch=5), Size(64, 64)).macs == 3 * update.macs


def test_memory_is_that_of_a_real_step(tmp_path, search_job):
    """Of a search that ends with its pretraining."""
    recipe = parse_search_recipe(
        {"batch": 2, "steps": 3, "warmup_steps": 3, "pretraining": {"batch": 8, "crop": [64, 64]}}, where="test"
    )
    samples = [streets.draw(0, index, SIZE) for index in range(16)]
    searcher = Searcher(search_job(small, recipe, samples, SIZE), SearchFolder(tmp_path))
    gc.collect()
    ledger = Ledger()
    ledger.follow([*searcher.supernet.parameters(), *searcher.supernet.buffers()])
    with ledger:
        assert searcher.run()
    predicted = dry_run_of_warmup(on_meta(), recipe.in_pretraining(), Size(64, 64)).peak_bytes
    assert predicted == pytest.approx(ledger.peak_bytes, rel=0.1)


@pytest.fixture(scope="module")
def found():
    return plan(small, "ssr", recipe_of(), SIZE, Pictures(40, 10), (RATES,))


def test_both_phases_are_counted(found):
    early = found.pretraining
    assert (early.crop, early.batch, early.steps) == (Size(64, 64), 5, 8)
    assert (found.size, found.crop, found.batch, found.steps, found.warmup) == (SIZE, Size(32, 48), 2, 8 + 30, 8)
    assert found.decisions == 3
    assert early.needs == dry_run_of_warmup(on_meta(), recipe_of(batch=5), Size(64, 64))
    assert found.needs == dry_run(on_meta(), recipe_of(), Size(32, 48))
    # Batches of five of 64x64 need more than those of two of 32x48.
    assert found.peak_bytes == early.needs.peak_bytes > found.needs.worst.peak_bytes
    assert found.peak_bytes == peak_bytes(small, recipe_of(), SIZE)


def test_the_greater_memory_is_that_of_either():
    recipe = recipe_of(pretraining={"batch": 2, "crop": [32, 32]}, batch=6)
    found = plan(small, "ssr", recipe, SIZE, Pictures(40, 10))
    assert found.peak_bytes == found.needs.worst.peak_bytes > found.pretraining.needs.peak_bytes
    assert peak_bytes(small, recipe, SIZE) == found.peak_bytes


def test_hours_are_the_sum(found):
    low, high = found.hours(RATES, found.needs)
    early, late = RATES.hours(found.pretraining.needs, 8), RATES.hours(found.needs, 30)
    assert (low, high) == (pytest.approx(early[0] + late[0]), pytest.approx(early[1] + late[1]))
    tree = found.to_tree()
    assert tree["predicted"][0]["hours_if_all_steps_were_so"][0]["hours"] == [low, high]
    assert (tree["pretraining"]["steps"], tree["pretraining"]["crop"], tree["crop"]) == (8, "64x64", "32x48")
    assert tree["pretraining"]["counted"]["macs"] == found.pretraining.needs.macs


def test_memory_that_only_the_pretraining_needs(found):
    for room, fits in ((0, True), (-1, False)):
        device = replace(RATES, memory_gb=(found.peak_bytes + room) / 1e9)
        assert replace(found, devices=(device,)).to_tree()["predicted"][0]["fits_memory"] is fits


def test_without_the_table_a_warmup_is_counted_as_the_search_makes_it():
    """20 steps of the weights alone, at the batch and the crop of the search, which take less than the others."""
    recipe = recipe_of(pretraining=None)
    found = plan(small, "ssr", recipe, SIZE, Pictures(40, 10))
    assert (found.pretraining.crop, found.pretraining.batch, found.pretraining.steps) == (Size(32, 48), 2, 20)
    assert found.steps == 50
    assert found.pretraining.needs.macs < found.needs.macs
    assert found.peak_bytes == found.needs.worst.peak_bytes
    without = plan(small, "ssr", recipe_of(pretraining=None, warmup_epochs=0), SIZE, Pictures(40, 10))
    assert (without.pretraining, without.to_tree()["pretraining"]) == (None, None)
    assert without.hours(RATES, without.needs)[0] > found.hours(RATES, found.needs)[0]


def test_the_command(capsys):
    settings = [f"--set=space.{name}={json.dumps(value)}" for name, value in SMALL.items()]
    settings += ["--set=pretraining={batch=5, crop=[64, 64]}", "--set=augmentation={crop=[32, 64]}"]
    settings += ["--set=epochs=5", "--set=warmup_epochs=2", "--batch=2", "--resolution=64x96"]
    assert run(app, ["plan", "ssr", "--pictures", "40", *settings, "--device", "a100"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "ssr at 64x96 cut to 32x64, batch 2: 30 steps of two updates over 40 pictures, 3 decision points" in output
    assert "before them 8 steps of the weights alone, at 64x64, batch 5: peak" in output
