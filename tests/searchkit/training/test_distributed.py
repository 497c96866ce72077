import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from searchkit.errors import UsageError
from searchkit.training.distributed import ALONE, World, synchronised

# No dropout in this space: what is drawn for each process differs by design.
GENOTYPE = {
    "schema": 1,
    "space": "fasterseg",
    "classes": 19,
    "stem_width": 2,
    "head_width": 2,
    "shared": [],
    "branches": [
        [{"operator": "conv", "width": 1, "stride": 2}],
        [{"operator": "zoomed_conv", "width": 1, "stride": 2}, {"operator": "skip", "width": 1, "stride": 2}],
    ],
    "provenance": {"name": "tiny"},
}

WORKER = """
import json, sys
from pathlib import Path
import torch
from searchkit.data import streets
from searchkit.genotype import parse
from searchkit.networks import from_genotype
from searchkit.sizes import Size
from searchkit.training import distributed
from searchkit.training.recipe import parse_recipe
from searchkit.training.run_folder import RunFolder
from searchkit.training.train import Job, Trainer

torch.set_num_threads(1)
world, device = distributed.start(torch.device("cpu"))
size = Size(64, 64)
samples = [streets.draw(0, index, size) for index in range(5)]
stage = {
    "loss_at": "full", "batch": 4, "steps": 4, "loss": {"type": "cross_entropy"},
    "optimiser": {"name": "sgd", "lr": 0.05}, "schedule": {"type": "poly"}, "clip_norm": 1.0,
    "augmentation": {"scale": [0.5, 1.5]},
}
network = from_genotype(parse(Path(sys.argv[1]).read_bytes(), where="test"))
torch.manual_seed(7)
teacher = network.build().eval().requires_grad_(False)
job = Job(
    network,
    parse_recipe({"stages": [stage], "ema_decay": 0.5}, where="test"),
    size, 0, samples, samples[:1], "f" * 64, device, teacher=teacher, world=world,
)
trainer = Trainer(job, RunFolder(Path(sys.argv[2])))
trainer.run()
state = {name: tensor.contiguous() for name, tensor in trainer.model.state_dict().items()}
from safetensors.torch import save_file
save_file(state, Path(sys.argv[2]) / f"rank{world.rank}.safetensors")
distributed.stop()
"""


def start(tmp_path, rank: int, size: int, port: int):
    genotype = tmp_path / "tiny.json"
    genotype.write_text(json.dumps(GENOTYPE))
    folder = tmp_path / f"of{size}"
    folder.mkdir(exist_ok=True)
    extra = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = os.environ | (extra if size > 1 else {})
    return subprocess.Popen([sys.executable, "-c", WORKER, str(genotype), str(folder)], env=environment)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_two_processes_are_one_with_the_joined_batch(tmp_path):
    port = free_port()
    processes = [start(tmp_path, 0, 1, 0), start(tmp_path, 0, 2, port), start(tmp_path, 1, 2, port)]
    assert [process.wait(timeout=80) for process in processes] == [0, 0, 0]
    alone = load_file(tmp_path / "of1" / "rank0.safetensors")
    for rank in (0, 1):
        shared = load_file(tmp_path / "of2" / f"rank{rank}.safetensors")
        assert set(shared) == set(alone)
        for name, tensor in alone.items():
            assert torch.allclose(shared[name].double(), tensor.double(), rtol=0, atol=1e-5), name
    # Both validated and kept weights once.
    assert (tmp_path / "of2" / "history.jsonl").read_bytes().count(b"miou") == 1


def test_a_batch_that_cannot_be_shared_out():
    World(0, 2).check_batch(4)
    with pytest.raises(UsageError, match="multiple of 2"):
        World(0, 2).check_batch(5)


def test_alone_nothing_is_changed():
    model = nn.Sequential(nn.BatchNorm2d(3))
    assert synchronised(model, ALONE)[0] is model[0]
    assert type(model[0]) is nn.BatchNorm2d
    assert ALONE.mean(0.5) == 0.5
    assert ALONE.any(True)
    assert not ALONE.any(False)


def test_names_of_parameters_stay():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = synchronised(model, World(0, 2)).state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
