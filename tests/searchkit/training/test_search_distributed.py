import os
import socket
import subprocess
import sys

from safetensors.torch import load_file

# Two processes, each with its share of the batch: what they learn and remove must be the same in both.
WORKER = """
import importlib.util, sys
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import save_file
spec = importlib.util.spec_from_file_location("toy", sys.argv[1])
toy = importlib.util.module_from_spec(spec)
sys.modules["toy"] = toy
spec.loader.exec_module(toy)
from searchkit.data import streets
from searchkit.genotype import Provenance
from searchkit.sizes import Size
from searchkit.strategies import STRATEGIES
from searchkit.training import distributed
from searchkit.training.search import Searcher
from searchkit.training.search_end import conclude
from searchkit.training.search_folder import SearchFolder
from searchkit.training.search_job import SearchJob
from searchkit.training.search_recipe import parse_search_recipe

torch.set_num_threads(1)
world, device = distributed.start(torch.device("cpu"))
size = Size(32, 64)
samples = [streets.draw(0, index, size) for index in range(8)]
kind = STRATEGIES.load(sys.argv[3])
recipe = {
    "batch": 4, "steps": 8, "decide_every": 3, "architecture": {"lr": 0.5}, "stop_when_discrete": False,
    "weights": {"optimiser": {"name": "sgd", "lr": 0.05}},
}
job = SearchJob(
    lambda: toy.ToySupernet(19), lambda levels: kind(kind.settings_type(), levels),
    parse_search_recipe(recipe, where="test"), size, 0, samples, samples[:1], "f" * 64, device, world=world,
)
folder = Path(sys.argv[2])
searcher = Searcher(job, SearchFolder(folder))
searcher.run()
conclude(searcher, Provenance())
state = {name: tensor.contiguous() for name, tensor in searcher.supernet.state_dict().items()}
save_file(state, folder / f"rank{world.rank}.safetensors")
distributed.stop()
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(conftest, folder, strategy, rank, port):
    folder.mkdir(exist_ok=True)
    extra = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", WORKER, conftest, str(folder), strategy]
    return subprocess.Popen(command, env=os.environ | extra)


def test_two_processes_learn_and_remove_the_same(tmp_path, toy_supernet_type):
    conftest = sys.modules[toy_supernet_type.__module__].__file__
    runs = {strategy: free_port() for strategy in ("ssr", "gumbel")}
    processes = [start(conftest, tmp_path / name, name, rank, port) for name, port in runs.items() for rank in (0, 1)]
    assert [process.wait(timeout=80) for process in processes] == [0] * 4
    for name in runs:
        first, second = (load_file(tmp_path / name / f"rank{rank}.safetensors") for rank in (0, 1))
        assert set(first) == set(second)
        assert all((first[key] == second[key]).all() for key in first)
        # One of them wrote.
        lines = (tmp_path / name / "history.jsonl").read_bytes().splitlines()
        assert sum(b'"decision"' in line for line in lines) == 3
        assert (tmp_path / name / "genotype.json").exists()
