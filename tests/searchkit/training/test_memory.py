"""A training needs as much memory after many epochs as after two."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from searchkit.data import Sample
from searchkit.sizes import Size
from searchkit.training.recipe import parse_recipe
from searchkit.training.run_folder import RunFolder
from searchkit.training.train import Job, Report, Trainer

SIZE = Size(64, 128)
BATCH, STEPS_AN_EPOCH = 4, 6
# After the first of them all that a training needs has been reserved.
SETTLED, EPOCHS = 2, 6

# Were every step to keep its images and labels. Where it keeps its graph that is many times as much; what was measured
# where nothing is kept is under a twentieth.
LEAK_BYTES = STEPS_AN_EPOCH * BATCH * SIZE.height * SIZE.width * (3 * 4 + 1)


def resident_bytes() -> int:
    gc.collect()
    # What is free, but not yet given back to the system, would come and go by megabytes.
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_does_not_grow_with_the_epochs(tmp_path, tiny_network, one_thread, workers):
    random = np.random.default_rng(0)
    samples = [
        Sample(random.integers(0, 256, (*SIZE, 3), np.uint8), random.integers(0, 5, SIZE, np.uint8))
        for _ in range(BATCH * STEPS_AN_EPOCH)
    ]
    stage = {
        "loss_at": "full",
        "batch": BATCH,
        "epochs": EPOCHS,
        "loss": {"type": "ohem"},
        "optimiser": {"name": "adam", "lr": 1e-3},
        "schedule": {"type": "poly"},
        "augmentation": {"scale": [0.75, 1.25], "jitter": 0.2},
    }
    recipe = {"validate_every": STEPS_AN_EPOCH, "ema_decay": 0.9, "stages": [stage]}
    job = Job(
        network=tiny_network(),
        recipe=parse_recipe(recipe, where="test"),
        resolution=SIZE,
        seed=0,
        train=samples,
        validation=samples[:BATCH],
        identity="f" * 64,
        device=torch.device("cpu"),
        workers=workers,
    )
    resident: dict[int, int] = {}

    def listen(report: Report) -> None:
        # At the end of an epoch this is called before the validation and the checkpoint, so that those of the epochs
        # before are in it.
        epoch, step = divmod(report.total_step, STEPS_AN_EPOCH)
        if step == 0:
            resident[epoch] = resident_bytes()

    assert Trainer(job, RunFolder(tmp_path), listener=listen).run().finished
    grown = (resident[EPOCHS] - resident[SETTLED]) / (EPOCHS - SETTLED)
    assert grown < LEAK_BYTES / 4, resident
