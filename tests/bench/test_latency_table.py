"""Latency tables measured here: every operator of a space, whole networks beside their sums."""

import itertools
import json
import random

import numpy as np
import pytest
import torch

from bench import latency_table_turns
from bench.cli import main
from bench.latency_table import LEAST_MS, check_here, measure
from bench.latency_table import Setting as TableSetting
from bench.latency_table_cli import remarks
from bench.latency_table_frames import framed, place_of
from bench.latency_table_networks import Whole, additivity, sampled, spread
from bench.latency_table_turns import Opening, Timer, Turns
from deploy.backends import BACKENDS, SessionInfo
from searchkit.choices import one_hot
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
    assert table.conditions["others_cores"] >= 0
    assert {"cpu", "os", "load_1min_before", "load_1min_after"} <= set(table.conditions)
    assert (table.conditions["space"], table.conditions["classes"]) == ("ssr", 19)
    assert json.loads(table.conditions["settings"]).keys() == TINY.keys()
    assert table.additivity.networks == len(table.additivity.measured_ms) == 3
    again = additivity(table.additivity.sums_ms, table.additivity.measured_ms)
    assert again.pearson == pytest.approx(table.additivity.pearson)
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
    """In its frame: the same numbers as the source, the module and the sink one after the other."""
    shapes = list(shapes_of_space(space(), 19, SIZE).values())
    kinds = {type(shape).__name__: shape for shape in shapes}
    strided = [shape for shape in shapes if getattr(shape, "spatial", 1) == 2]
    for shape in (*kinds.values(), strided[0], strided[-1]):
        module, taken = module_of(shape)
        place = place_of(module, taken, SIZE, 19, where=shape.key)
        model = framed(place, module)
        x = model.example()
        frame = model.module
        wanted = frame.sink(module(frame.source(x)))
        assert not model.module.training
        with BACKENDS.load("onnxruntime").open(model, device="cpu", threads=1) as session:
            session.load(x.numpy())
            session.execute()
            session.synchronize()
            with torch.no_grad():
                torch.testing.assert_close(torch.from_numpy(session.output()), wanted, rtol=1e-4, atol=1e-5)


def test_a_frame_stands_where_the_network_goes_on():
    """Before all but what reads the image, behind all but what makes the result."""
    made = {}
    for key, shape in shapes_of_space(space(), 19, SIZE).items():
        module, taken = module_of(shape)
        place = place_of(module, taken, SIZE, 19, where=key)
        frame = framed(place, module).module
        assert isinstance(frame.source, torch.nn.Identity) == (key.startswith("downsampler_H64_W128_Cin3"))
        assert isinstance(frame.sink, torch.nn.Identity) == key.startswith("fusion")
        made.setdefault(place.shape, []).append(place)
    for shape, places in made.items():
        empty = framed(places[0], None)
        taken = empty.example()
        assert taken.shape == (shape if places[0].opens else (1, 1, *shape[2:]))
        height, width = (-(-side // 8) for side in shape[2:])
        assert empty.module(taken).shape == (1, 16, height, width)


def test_what_makes_no_map_cannot_be_timed():
    class Two(torch.nn.Module):
        def forward(self, x):
            return x, x

    for module in (Two(), torch.nn.Flatten()):
        with pytest.raises(UsageError, match=r"some key.*makes one map"):
            place_of(module, (1, 4, 8, 8), SIZE, 19, where="some key")


class Clockwork:
    """A backend whose sessions take as long as their models say, and that counts how many are open at a time."""

    def __init__(self):
        self.open_now = self.most = 0
        self.opened = []

    def open(self, model, *, device, threads):
        self.opened.append(model.name)
        return ClockworkSession(self, model)


class ClockworkSession:
    info = SessionInfo("clockwork", "1", "none", "cpu")

    def __init__(self, backend, model):
        self.backend, self.model = backend, model

    def __enter__(self):
        self.backend.open_now += 1
        self.backend.most = max(self.backend.most, self.backend.open_now)
        return self

    def __exit__(self, *_):
        self.backend.open_now -= 1

    def load(self, batch):
        pass


class ClockworkModel:
    def __init__(self, name, times):
        self.name, self.times = name, iter(times)

    def example(self):
        return torch.zeros(1)


@pytest.fixture
def clockwork(monkeypatch):
    found = Clockwork()
    monkeypatch.setattr(type(BACKENDS), "load", lambda self, name: found)

    class Runner:
        def __init__(self, session):
            self.model = session.model

        def run(self):
            return next(self.model.times)

    monkeypatch.setattr(latency_table_turns, "runner_of", Runner)
    return found


def test_one_session_is_open_at_a_time_and_models_take_turns(clockwork):
    """Threads of those that wait would spin on the cores of the one that is measured."""
    turns = Turns(turns=3, warmup_ms=0, warmup_runs=1, turn_ms=0, runs=3)
    # A turn is a warm-up and three runs; its time is the median of the three.
    first = ClockworkModel("a", [9, 1, 2, 30, 9, 4, 5, 6, 9, 7, 7, 1])
    second = ClockworkModel("b", [9, 3, 3, 3] * 3)
    found = Timer(Opening("clockwork")).turns_ms({"a": first, "b": second}, turns, evict=True)
    assert found == {"a": [2, 5, 7], "b": [3, 3, 3]}
    assert clockwork.most == 1
    assert clockwork.opened == ["a", "b", "b", "a", "a", "b"]


def test_a_runtime_that_fails_says_which_operator(clockwork):
    with pytest.raises(UsageError, match=r"conv_H8.*the runtime fails"):
        Timer(Opening("clockwork")).turns_ms(
            {"conv_H8": ClockworkModel("conv_H8", [])}, latency_table_turns.OPERATOR, evict=False
        )


def test_an_entry_is_what_an_operator_takes_more_than_its_frame(monkeypatch):
    """By hand: the frame takes 2 ms, operators 2 ms more than the one before; what is below the clock is its tick."""

    def turns_ms(self, models, turns, *, evict):
        self.seen = SessionInfo("onnxruntime", "1", "none", "cpu")
        assert evict
        # The machine slows down: operators and frames alike.
        return {
            name: [(times(name) if name else 2.0) + 0.5 * number for number in range(turns.turns)] for name in models
        }

    def times(key):
        return 2.0 if key.startswith("detail") else 5.0

    monkeypatch.setattr(Timer, "turns_ms", turns_ms)
    table = measure(TableSetting("ssr", TINY, 19, SIZE, "onnxruntime", networks=0))
    for key, value in table.entries_ms.items():
        opens = "Cin3_" in key
        assert value == pytest.approx(6.0 if opens else LEAST_MS if key.startswith("detail") else 3.0), key


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
    assert (mixed.sums_ms, mixed.measured_ms) == ((3.0, 2.0, 1.0), (1.0, 2.0, 4.0))


def test_networks_are_spread_over_what_was_drawn():
    assert spread("abcdefghi", [5, 1, 9, 3, 7, 2, 8, 4, 6], 3) == ["b", "a", "c"]
    assert spread("ab", [2, 1], 2) == ["b", "a"]


def test_sampled_networks_differ_more_than_by_even_draws():
    with torch.device("meta"):
        supernet = SPACES.load("ssr").supernet({}, 19)
    rng = np.random.default_rng(0)

    def even():
        drawn = {name: rng.random(mask.shape) for name, mask in supernet.alive().items()}
        return supernet.derive(supernet.closed(one_hot(drawn, supernet.alive())), Provenance())

    def deviation(genotypes):
        macs = [genotype.cost(SIZE).conv_macs for genotype in genotypes]
        return np.std(macs) / np.mean(macs)

    assert deviation(sampled(supernet, 60, seed=0)) > 1.2 * deviation([even() for _ in range(60)])


def test_what_is_said_of_a_table(measured):
    from dataclasses import replace

    table, _ = measured
    first, second, *_ = remarks(replace(table, additivity=additivity([1.0, 2.2], [1.0, 2.0]), conditions=None))
    assert first == "sums of entries against 2 whole networks: Pearson 1.000, ratio 1.05 (1.00 to 1.10)"
    assert second == "these networks take 1 to 2 ms"
    busy = remarks(replace(table, additivity=None, conditions={"others_cores": 0.9}))
    assert busy == ["other processes kept 0.9 cores busy meanwhile: measure again when the machine is idle"]
    assert not remarks(replace(table, additivity=None, conditions={"others_cores": 0.1}))


def test_a_whole_network_is_timed_as_its_table_was(measured, monkeypatch):
    table, _ = measured
    with torch.device("meta"):
        supernet = SPACES.load("ssr").supernet(TINY, 19)
    genotype, seen = sampled(supernet, 1, seed=0)[0], []
    real = Timer.turns_ms

    def turns_ms(self, models, turns, *, evict):
        seen.append((self.opening, [model.size for model in models.values()], evict))
        return real(self, models, turns, evict=evict)

    monkeypatch.setattr(Timer, "turns_ms", turns_ms)
    # Not held to the sum: that this machine is busy in between is no fault of the code.
    assert 0 < Whole(table)(genotype) < 10_000
    assert seen == [(Opening("onnxruntime", "cpu", 1), [SIZE], False)]


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
    ],
)
def test_what_it_refuses(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["latency-table", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
