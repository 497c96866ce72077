"""Budgets: how limits are written, their penalty, and what is within them."""

import random
from dataclasses import replace

import pytest
import torch

from searchkit.costs.budget import (
    AIM,
    all_feasible,
    latency_budget,
    macs_budget,
    params_budget,
    parse_count,
    parse_duration_ms,
)
from searchkit.costs.latency import LatencyTable
from searchkit.errors import UsageError
from searchkit.genotype import Provenance
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.ssr.expected import cheapest, parts, shapes_of_space
from searchkit.spaces.ssr.genotype import sample
from searchkit.spaces.ssr.search_space import SSRSearchSpace
from searchkit.supernet import weights_of


@pytest.mark.parametrize(
    ("text", "value"),
    [("7.8G", 7.8e9), ("1.1M", 1.1e6), ("900k", 9e5), ("12", 12), (" 2.5 T ", 2.5e12), ("1e9", 1e9), (".5M", 5e5)],
)
def test_counts(text, value):
    assert parse_count(text, where="--max-macs") == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("text", "value"), [("5ms", 5), ("0.005s", 5), ("500us", 0.5), ("5.25 ms", 5.25)])
def test_durations(text, value):
    assert parse_duration_ms(text, where="--max-latency") == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "G", "-1G", "0G", "7,8G", "7.8g", "5ms", "nan", "inf", "1e999", "7.8 GMACs", "٣G"]
)
def test_what_is_no_count_is_refused(text):
    with pytest.raises(UsageError, match=r"--max-macs: not a limit.*7\.8G"):
        parse_count(text, where="--max-macs")


@pytest.mark.parametrize("text", ["5", "5 G", "5min", "0ms", "-1ms"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match=r"--max-latency: not a limit.*5ms"):
        parse_duration_ms(text, where="--max-latency")


def even(supernet):
    return {name: torch.softmax(table.dense(), 1) for name, table in supernet.tables.items()}


def test_penalty_is_zero_below_and_pulls_down_above(toy_supernet, toy_size):
    expected = float(macs_budget("1G", toy_size).expected(toy_supernet, even(toy_supernet)).detach())
    assert macs_budget(f"{expected / AIM * 1.001:.12g}", toy_size).penalty(toy_supernet, even(toy_supernet)) == 0
    limit = expected / 1.5
    penalty = macs_budget(f"{limit:.12g}", toy_size, weight=3.0).penalty(toy_supernet, even(toy_supernet))
    assert float(penalty.detach()) == pytest.approx(3 * (1.5 - AIM) ** 2, rel=1e-9)
    penalty.backward()
    gradient = {name: table.dense(table.logits.grad) for name, table in toy_supernet.tables.items()}
    # Less depth, smaller kernels and narrower layers are what descends.
    assert all((grad[:, -1] > 0).all() and (grad[:, 0] < 0).all() for grad in gradient.values())


def test_levels_that_are_not_named_do_not_feel_the_penalty(toy_supernet, toy_size):
    """FasterSeg's Eq. 3: the value stays, gradients come in shares."""
    limit = macs_budget("1", toy_size)
    found = []
    for levels in (None, {"operator": 0.25, "width": 2.0}):
        budget = replace(limit, levels=levels)
        leaves = {
            name: torch.softmax(t.dense(), 1).detach().requires_grad_() for name, t in toy_supernet.tables.items()
        }
        value = budget.penalty(toy_supernet, leaves)
        value.backward()
        found.append((value.detach(), {name: leaf.grad for name, leaf in leaves.items()}))
    (plain, full), (same, shared) = found
    assert torch.equal(plain, same)
    torch.testing.assert_close(shared["kernel"], 0.25 * full["kernel"])
    torch.testing.assert_close(shared["width"], 2.0 * full["width"])
    assert full["depth"].abs().sum() > 0
    assert shared["depth"] is None or not shared["depth"].any()
    with pytest.raises(UsageError, match="level of choices"):
        replace(macs_budget("1G", toy_size), levels={"widht": 1.0}).check_reachable(toy_supernet)


def test_of_a_discrete_network_it_is_what_is_counted(toy_supernet, toy_size):
    for alive in list(toy_supernet.networks(toy_supernet.alive()))[::97]:
        genotype = toy_supernet.derive(alive, Provenance())
        for budget in (macs_budget("1", toy_size), params_budget("1", toy_size)):
            expected = float(budget.expected(toy_supernet, weights_of(alive)))
            assert budget.met(genotype) == (False, expected)


def test_feasible_exactly_up_to_the_limit(toy_supernet, toy_size):
    least = macs_budget("1", toy_size).least(toy_supernet, toy_supernet.alive())
    counted = [
        toy_supernet.derive(alive, Provenance()).cost(toy_size).conv_macs
        for alive in toy_supernet.networks(toy_supernet.alive())
    ]
    assert least == min(counted)
    assert macs_budget(f"{least:.0f}", toy_size).feasible(toy_supernet, toy_supernet.alive())
    assert not macs_budget(f"{least - 1:.0f}", toy_size).feasible(toy_supernet, toy_supernet.alive())
    budgets = [macs_budget("1T", toy_size), params_budget("1", toy_size)]
    assert all_feasible(budgets[:1], toy_supernet, toy_supernet.alive())
    assert not all_feasible(budgets, toy_supernet, toy_supernet.alive())


def test_a_budget_below_the_smallest_network_is_refused_with_the_smallest(toy_supernet, toy_size):
    budget = params_budget("100", toy_size)
    least = budget.least(toy_supernet, toy_supernet.alive())
    with pytest.raises(UsageError, match=r"--max-params: no network of this space.*100 parameters.*at least") as caught:
        budget.check_reachable(toy_supernet)
    # What is named is enough.
    named = caught.value.allowed.removeprefix("at least ").split(" parameters")[0].replace(" ", "")
    params_budget(named, toy_size).check_reachable(toy_supernet)
    assert parse_count(named, where="here") == pytest.approx(least, rel=2e-3)


def ssr_table(size, **changes):
    keys = shapes_of_space(SSRSearchSpace(), 19, size)
    entries = {key: 0.01 + 0.001 * (index % 7) for index, key in enumerate(keys)}
    return LatencyTable("a CPU", "onnxruntime", "fp32", 1, tuple(size), "a test", entries, **changes)


def sampled_of_the_space():
    for seed in range(100):
        genotype = sample(random.Random(seed))
        if (genotype.pool, genotype.mid_norm, genotype.head.type) == ("average", True, "aggregation"):
            return genotype
    raise AssertionError("none in 100")


def test_latency_of_a_whole_network_is_the_sum_of_its_entries():
    size, genotype = Size(64, 128), sampled_of_the_space()
    table = ssr_table(size)
    keys = list(SPACES.load("ssr").operator_keys(genotype, size))
    total = sum(table.entries_ms[key] for key in keys)
    assert latency_budget("1ms", table, size).met(genotype) == (total <= 1, pytest.approx(total))
    # A limit that is the sum itself, as the table's decimals add up, is met.
    assert latency_budget(f"{total:.9f}ms", table, size).met(genotype)[0]
    assert not latency_budget(f"{total - 1e-6:.9f}ms", table, size).met(genotype)[0]


def test_a_network_with_an_operator_that_was_not_measured_is_refused():
    size, genotype = Size(64, 128), sampled_of_the_space()
    table = ssr_table(size)
    table.entries_ms.pop(list(SPACES.load("ssr").operator_keys(genotype, size))[4])
    with pytest.raises(UsageError, match=r"lacks an operator.*conv"):
        latency_budget("1ms", table, size).met(genotype)


def test_least_latency_of_a_relaxed_space():
    size, space = Size(64, 128), SSRSearchSpace()
    budget = latency_budget("1ms", ssr_table(size), size)

    class Relaxed:
        def parts(self, weights, size):
            return parts(space, 19, weights, size)

        def cheapest(self, alive, price, size):
            return cheapest(space, 19, alive, price, size)

    alive = {name: table.alive for name, table in space.tables().items()}
    least = budget.least(Relaxed(), alive)
    # 3 + 6 layers of two operators, three downsamplers, three of the head: each at least 0.01 ms.
    assert 24 * 0.01 <= least < 24 * 0.017
    assert budget.feasible(Relaxed(), alive)


def test_a_table_of_another_size_is_refused():
    with pytest.raises(UsageError, match=r"another input size.*64x128.*512x1024"):
        latency_budget("5ms", ssr_table(Size(64, 128)), Size(512, 1024))


def test_text_for_people():
    size = Size(512, 1024)
    assert macs_budget("7.8G", size).text(7.8e9) == "7.8 G MACs"
    assert params_budget("1.1M", size).text(1_022_688) == "1.023 M parameters"
    assert params_budget("1.1M", size).text(1_022_100, up=True) == "1.023 M parameters"
    assert latency_budget("5ms", ssr_table(size), size).text(4.56789) == "4.568 ms"
