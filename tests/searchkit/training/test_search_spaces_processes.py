"""`searchkit search` of every space by two processes: they stay in step, also where one of them lacks a gradient."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file

SPACES = ("dcnas", "fasterseg", "lgcnet")

WORKER = """
import os, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from torch import nn

torch.set_num_threads(1)
from searchkit import cli, console
from searchkit.data import streets
from searchkit.training import distributed, search_end

streets.SPLITS.update(train=(0, 8), val=(1, 2))
root, ports, spaces = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(",")


def gradients():
    # First in this process alone, second in the other alone, third in both, fourth in none; of odd shapes.
    world, _ = distributed.start(torch.device("cpu"))
    made = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (5,), (1,), (4,))]
    made[world.rank].grad = torch.full_like(made[world.rank], 2.0 + world.rank)
    made[2].grad = torch.full((1,), 10.0 * (1 + world.rank))
    distributed.average_gradients(made, world)
    found = {str(index): p.grad for index, p in enumerate(made) if p.grad is not None}
    save_file(found, root / f"gradients{world.rank}.safetensors")
    distributed.stop()


os.environ["MASTER_PORT"] = ports.pop()
gradients()
conclude = search_end.conclude
for space, port in zip(spaces, ports):
    os.environ["MASTER_PORT"] = port

    def concluded(searcher, *more):
        found = conclude(searcher, *more)
        state = {name: tensor.contiguous() for name, tensor in searcher.supernet.state_dict().items()}
        alive = {f"alive.{name}": torch.from_numpy(mask) for name, mask in searcher.supernet.alive().items()}
        save_file(state | alive, root / f"{space}{searcher.job.world.rank}.safetensors")
        return found

    search_end.conclude = concluded
    words = ["search", space, "--data", "streets", "--preset", "smoke", "--cache", str(root / "cache")]
    words += ["--set", "batch=4", "--set", "steps=3", "-o", str(root / space)]
    assert console.run(cli.app, words) == 0
"""


def free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """What two processes have left."""
    root = tmp_path_factory.mktemp("processes")
    ports = ",".join(free_ports(len(SPACES) + 1))
    processes = []
    for rank in (0, 1):
        extra = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", WORKER, str(root), ports, ",".join(SPACES)]
        processes.append(subprocess.Popen(command, env=os.environ | extra))
    try:
        assert [process.wait(timeout=240) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return root


def test_a_gradient_that_one_process_lacks_is_nothing_there(root):
    for rank in (0, 1):
        found = load_file(root / f"gradients{rank}.safetensors")
        assert {name: tensor.unique().tolist() for name, tensor in found.items()} == {"0": [1.0], "1": [1.5], "2": [15]}


@pytest.mark.parametrize("space", SPACES)
def test_two_processes_end_in_one_network(root, space):
    """What lives, all weights and all statistics are the same in both, and one of them has written the network."""
    first, second = (load_file(root / f"{space}{rank}.safetensors") for rank in (0, 1))
    assert set(first) == set(second)
    assert any(name.startswith("alive.") for name in first)
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []
    result = json.loads((root / space / "result.json").read_text())
    assert result["steps"] == 3
    assert json.loads((root / space / "genotype.json").read_text())["space"] == space
    lines = [json.loads(line) for line in (root / space / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "decision" in line] == [2, 3]
