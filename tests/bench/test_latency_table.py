"""Latency tables measured here: every operator of a space, whole networks beside their sums."""

import itertools
import random

import numpy as np
import pytest
import torch

from bench.cli import main
from bench.latency_table import OperatorModel, additivity, check_here, measure, sampled
from bench.latency_table import Setting as TableSetting
from deploy.backends import BACKENDS
from searchkit.costs.budget import latency_budget
from searchkit.costs.latency import load_table
from searchkit.errors import UsageError
from searchkit.genotype import Provenance
from searchkit.settings import parse_settings
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.ssr.expected import shapes_of_space
from searchkit.spaces.ssr.network import SSRNet
from searchkit.spaces.ssr.operator_modules import module_of
from searchkit.spaces.ssr.operators import shapes_of
from searchkit.spaces.ssr.search_space import SSRSearchSpace
from searchkit.supernet import weights_of

SIZE = Size(64, 128)
TINY = {
    "dimensions": ["depth", "spatial", "channel"],
    "depths": [[1], [1, 2]],
    "stem": 8,
    "channels": [16, 24],
    "width_step": 8,
    "width_steps": 1,
}


def space():
    return parse_settings(SSRSearchSpace, TINY, what="space")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The table that the command writes, and its path."""
    path = tmp_path_factory.mktemp("table") / "tiny.json"
    settings = [f"--set={name}={str(value).replace(chr(39), chr(34))}" for name, value in TINY.items()]
    arguments = ["latency-table", "ssr", "--resolution", "64x128", "--threads", "1", "-o", str(path)]
    assert main([*arguments, "--networks", "3", *settings]) == 0
    return load_table(str(path)), path


def test_every_operator_of_the_space_is_in_it_once(measured):
    table, _ = measured
    assert set(table.entries_ms) == set(shapes_of_space(space(), 19, SIZE))
    assert all(0 < value < 1000 for value in table.entries_ms.values())


def test_it_says_what_it_was_measured_on(measured):
    table, _ = measured
    assert (table.runtime, table.precision, table.batch, table.threads) == ("onnxruntime", "fp32", 1, 1)
    assert table.runtime_version == BACKENDS.load("onnxruntime").probe().version
    assert table.network_input == SIZE
    assert table.date
    assert "median" in table.protocol
    assert table.conditions["session_mode"] == "default"
    assert table.additivity.networks == 3
    assert -1 <= table.additivity.pearson <= 1
    assert 0 < table.additivity.ratio_low <= table.additivity.ratio <= table.additivity.ratio_high


def test_a_search_can_go_by_it(measured):
    table, _ = measured
    with torch.device("meta"):
        supernet = SPACES.load("ssr").supernet(TINY, 19)
    budget = latency_budget("1000ms", table, SIZE)
    least = budget.least(supernet, supernet.alive())
    values = [budget.met(genotype)[1] for genotype in sampled(supernet, 8, seed=1)]
    assert 0 < least <= min(values)
    cheapest = supernet.cheapest(supernet.alive(), budget.price, SIZE)
    assert budget.met(supernet.derive(cheapest, Provenance()))[1] == pytest.approx(least, rel=1e-12)
    assert float(budget.expected(supernet, weights_of(cheapest))) == pytest.approx(least, rel=1e-12)


def test_it_is_of_this_machine_and_no_other(measured):
    from dataclasses import replace

    table, _ = measured
    check_here(table)
    with pytest.raises(UsageError, match="another device"):
        check_here(replace(table, device="RTX 9090"))
    with pytest.raises(UsageError, match="another device"):
        check_here(replace(table, runtime_version="0.0.1"))
    check_here(replace(table, device="RTX 9090"), other_device=True)


def test_an_operator_makes_the_map_that_the_next_one_reads():
    for shape in shapes_of_space(space(), 19, SIZE).values():
        module, taken = module_of(shape)
        assert not module.training
        out = module(torch.rand(taken))
        # Convolutions and BatchNorms are counted as the shape says; no weight is missing.
        assert sum(p.numel() for p in module.parameters()) == shape.operator().params
        assert torch.isfinite(out).all()


def test_operators_in_a_row_are_the_network():
    """Of a network without searched residuals between unequal widths: the modules' maps are those of its layers."""
    with torch.device("meta"):
        supernet = SPACES.load("ssr").supernet(TINY | {"dimensions": ["spatial"], "depths": [[1], [1]]}, 19)
    genotype = sampled(supernet, 1, seed=0)[0]
    network = SSRNet(genotype).eval()
    seen = []
    blocks = [network.stem, *network.stage4, *network.stage8]
    for block in blocks:
        block.register_forward_hook(lambda module, given, result: seen.append(tuple(result.shape)))
    network(torch.rand(1, 3, *SIZE))
    found = []
    for shape in itertools.islice(shapes_of(genotype, SIZE), 100):
        module, taken = module_of(shape)
        if type(shape).__name__ in ("Downsampler", "Conv1x3"):
            found.append(tuple(module(torch.rand(taken)).shape))
    assert found == seen


def test_the_exported_operator_is_the_operator():
    shapes = list(shapes_of_space(space(), 19, SIZE).values())
    kinds = {type(shape).__name__: shape for shape in shapes}
    strided = [shape for shape in shapes if getattr(shape, "spatial", 1) == 2]
    for shape in (*kinds.values(), strided[0], strided[-1]):
        model = OperatorModel(*module_of(shape))
        x = model.example()
        with BACKENDS.load("onnxruntime").open(model, device="cpu", threads=1) as session:
            session.load(x.numpy())
            session.execute()
            session.synchronize()
            with torch.no_grad():
                torch.testing.assert_close(torch.from_numpy(session.output()), model.module(x), rtol=1e-4, atol=1e-5)


def test_sampled_networks_are_valid_and_repeatable():
    with torch.device("meta"):
        supernet = SPACES.load("ssr").supernet(TINY, 19)
    first, again, other = (sampled(supernet, 6, seed) for seed in (1, 1, 2))
    assert [g.digest for g in first] == [g.digest for g in again] != [g.digest for g in other]
    assert {len(g.stages[1].layers) for g in (*first, *other)} == {1, 2}


def test_additivity_of_known_numbers():
    rng = random.Random(0)
    measured_ms = [1 + rng.random() for _ in range(20)]
    exact = additivity([0.9 * value for value in measured_ms], measured_ms)
    assert exact.pearson == pytest.approx(1)
    assert (exact.ratio, exact.ratio_low, exact.ratio_high) == (pytest.approx(0.9),) * 3
    mixed = additivity([3.0, 2.0, 1.0], [1.0, 2.0, 4.0])
    assert mixed.pearson == pytest.approx(np.corrcoef([3, 2, 1], [1, 2, 4])[0, 1])
    assert (mixed.ratio_low, mixed.ratio, mixed.ratio_high) == (0.25, 1.0, 3.0)


def test_without_networks_there_is_no_additivity():
    said = []
    tiny = TINY | {"dimensions": ["spatial"], "depths": [[1], [1]], "head": "classifier"}
    table = measure(TableSetting("ssr", tiny, 19, Size(16, 32), "pytorch", threads=1, networks=0), said.append)
    assert table.additivity is None
    assert table.runtime == "pytorch"
    assert "operators; about" in said[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ssr", "-o", "t.txt"], "JSON file"),
        (["ssr", "-o", "t.json", "--networks", "1"], "no correlation"),
        (["ssr", "-o", "t.json", "--backend", "openvino"], "backend that times operators"),
        (["ssr", "-o", "t.json", "--resolution", "100x128"], "does not take this size"),
        (["ssr", "-o", "t.json", "--set", "colour=3"], "unknown setting"),
        (["fasterseg", "-o", "t.json"], "cannot be timed"),
    ],
)
def test_what_it_refuses(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["latency-table", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
