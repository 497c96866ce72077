"""What each strategy removes, and when."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from searchkit.choices import ChoiceTable, alive_of
from searchkit.errors import UsageError
from searchkit.settings import parse_settings
from searchkit.spaces.ssr.search_space import SSRSearchSpace
from searchkit.strategies import STRATEGIES, Progress
from searchkit.strategies._shrinking import above
from searchkit.strategies.pdarts import strongest
from searchkit.strategies.sgas import certainties, scaled


def table_of(logits, level="depth", name="t"):
    logits = torch.tensor(logits, dtype=torch.float32)
    rows, candidates = ([f"{kind}{i}" for i in range(n)] for kind, n in zip("rc", logits.shape, strict=True))
    table = ChoiceTable(name, level, rows, candidates)
    with torch.no_grad():
        table.logits.copy_(logits.flatten())
    return table


def made(name, levels=("depth",), **values):
    found = STRATEGIES.load(name)
    return found(parse_settings(found.settings_type, values, what="strategy"), levels)


def at(decision, decisions):
    return Progress(decision + 1, decisions, decision, decisions)


def anything(_alive):
    return True


def logit(p):
    return math.log(p / (1 - p))


# Eq. 11


def test_what_is_at_the_threshold_goes():
    p = np.array([[0.05, 0.5, 0.45], [0.0500001, 0.5, 0.4499999]])
    everything = np.ones((2, 3), dtype=bool)
    assert above(p, everything, 0.1).tolist() == [[False, True, True], [True, True, True]]
    assert above(p, everything, 0.9).tolist() == [[False, True, False], [False, True, False]]


def test_the_greatest_is_that_of_the_choice_among_the_living():
    p = np.array([[0.9, 0.06, 0.04], [0.001, 0.0001, 0.0]])
    alive = np.array([[False, True, True], [True, True, False]])
    assert above(p, alive, 0.1).tolist() == [[False, True, True], [True, False, False]]


def test_nothing_is_removed_by_numbers_that_are_none():
    p = np.array([[np.nan, np.nan], [0.0, 0.0]])
    assert above(p, np.ones((2, 2), dtype=bool), 0.1).all()
    assert not above(p, np.zeros((2, 2), dtype=bool), 0.1).any()


@pytest.mark.parametrize("name", ["ssr", "entropy", "l1", "l2"])
def test_threshold_of_a_strategy_is_on_sigmoids(name):
    """Sigmoids 0.9, 0.091 and 0.089: at a tenth of the greatest lies 0.09; softmax would drop both."""
    table = table_of([[logit(0.9), logit(0.091), logit(0.089)]])
    tables = {"t": table}
    assert made(name).decide(tables, at(0, 9), anything)["t"].tolist() == [[True, True, False]]
    assert made(name, threshold=0.2).decide(tables, at(0, 9), anything)["t"].tolist() == [[True, False, False]]
    # A sigmoid of exactly 1/2 beside one of 1.
    exact = {"t": table_of([[0.0, 40.0]])}
    assert made(name, threshold=0.5).decide(exact, at(0, 9), anything)["t"].tolist() == [[False, True]]


def test_all_levels_shrink_at_one_decision_point_and_the_supernet_removes_the_rest(toy_supernet):
    tables = toy_supernet.tables
    with torch.no_grad():
        tables["depth"].logits.copy_(torch.tensor([0.0, 0.0, -9.0]))
        tables["kernel"].logits.copy_(torch.tensor([0.0, 0.0, -9.0] * 3))
        tables["width"].logits[0] = -9.0
    strategy = made("ssr", toy_supernet.levels)
    alive = strategy.decide(tables, at(0, 9), anything)
    assert alive["depth"].tolist() == [[True, True, False]]
    assert alive["kernel"].tolist() == [[True, True, False]] * 3
    assert alive["width"].sum() == 26
    closed = toy_supernet.closed(alive)
    assert closed["kernel"].tolist() == [[True, True, False]] * 2 + [[False] * 3]
    assert closed["width"].any(axis=1).tolist() == [True, True, False] * 2 + [False] * 3
    toy_supernet.shrink(closed)
    again = strategy.decide(tables, at(1, 9), anything)
    assert all(np.array_equal(again[name], closed[name]) for name in closed)


@pytest.mark.parametrize("name", ["darts", "fairdarts", "gumbel"])
def test_these_remove_nothing(name):
    tables = {"t": table_of([[9.0, -9.0, 0.0]])}
    assert made(name).decide(tables, at(8, 9), anything)["t"].all()


def test_fairdarts_keeps_sigmoids_apart():
    table = table_of([[0.0, 2.0, -1.0], [5.0, 0.0, 0.0]])
    table.shrink(np.array([[True, True, True], [True, False, False]]))
    sigmoids = torch.tensor([0.0, 2.0, -1.0]).sigmoid()
    plain = made("fairdarts", scaled=False).probabilities(table)
    assert torch.allclose(plain[0], sigmoids)
    assert torch.allclose(made("fairdarts").probabilities(table)[0], sigmoids * 2 / 3)
    assert plain[1].tolist() == [1, 0, 0]
    (gradient,) = torch.autograd.grad(plain[0, 0], table.logits)
    assert gradient[1:].tolist() == [0, 0, 0]


# P-DARTS


def test_the_strongest_are_the_first_of_equals():
    p = np.array([[0.2, 0.4, 0.2, 0.2], [0.1, 0.7, 0.1, 0.1]])
    alive = np.array([[1, 1, 1, 1], [1, 0, 1, 1]], dtype=bool)
    assert strongest(p, alive, 2).tolist() == [[True, True, False, False], [True, False, True, False]]
    assert strongest(p, alive, 9).tolist() == alive.tolist()


def test_pdarts_keeps_five_three_and_one():
    tables = SSRSearchSpace().tables()
    torch.manual_seed(0)
    for table in tables.values():
        torch.nn.init.normal_(table.logits)
    strategy, counts = made("pdarts", ("depth", "dilation-spatial", "channel")), []
    best = {n: strategy.probabilities(t).argmax(dim=1) for n, t in tables.items()}
    for decision in range(9):
        alive = strategy.decide(tables, at(decision, 9), anything)
        for name, table in tables.items():
            table.shrink(alive[name])
        counts.append([set(alive[n].sum(axis=1)) for n in ("depth4", "operator", "out8")])
    assert counts == [[{5}, {10}, {9}]] * 2 + [[{5}] * 3] * 3 + [[{3}] * 3] * 3 + [[{1}] * 3]
    assert all(np.array_equal(np.argmax(alive[n], axis=1), best[n]) for n in tables)


def test_pdarts_with_fewer_decision_points_than_stages():
    tables = {"t": table_of([[1.0, 3.0, 2.0, 0.0]])}
    assert made("pdarts").decide(tables, at(0, 1), anything)["t"].tolist() == [[False, True, False, False]]
    assert made("pdarts").decide(tables, at(0, 2), anything)["t"].all()
    assert made("pdarts", keep=[2, 1]).decide(tables, at(0, 2), anything)["t"].sum() == 2
    for wrong in ([3, 5, 1], [5, 3], [5, 5, 1], []):
        with pytest.raises(UsageError, match="keep"):
            made("pdarts", keep=wrong)


# SGAS


def test_certainty_and_scaling_by_hand():
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.25, 0.75, 0.0]])
    alive = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], dtype=bool)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert certainties(p, alive).tolist() == pytest.approx([0, 1, 1, 1 - entropy / math.log(3)])
    assert scaled(np.array([1.0, 3.0, 2.0])).tolist() == [0, 1, 0.5]
    assert scaled(np.array([2.0, 2.0])).tolist() == [1, 1]
    assert scaled(np.array([])).tolist() == []


def test_sgas_decides_the_most_certain_first():
    tables = {"t": table_of([[0.0, 0.1, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]])}
    strategy, order = made("sgas", warmup=0.0, choices_a_decision=1), []
    for decision in range(4):
        alive = strategy.decide(tables, at(decision, 5), anything)
        tables["t"].shrink(alive["t"])
        order.append([row for row in range(3) if alive["t"][row].sum() == 1])
    assert order == [[1], [1, 2], [0, 1, 2], [0, 1, 2]]
    assert alive["t"].tolist() == [[False, True, False], [False, True, False], [True, False, False]]


def test_sgas_prefers_what_is_stable():
    """The second row is as certain as the first was and is, but it changed its mind."""
    strategy = made("sgas", warmup=0.5, choices_a_decision=1)
    table = table_of([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    tables = {"t": table}
    strategy.decide(tables, at(0, 4), anything)
    strategy.decide(tables, at(1, 4), anything)
    with torch.no_grad():
        table.logits.copy_(torch.tensor([1.9, 0.0, 2.0, 0.0, 0.0, 0.0]))
    alive = strategy.decide(tables, at(2, 4), anything)["t"]
    assert alive.sum(axis=1).tolist() == [1, 2, 2]


def test_sgas_spreads_over_its_decision_points():
    """18 points, 3 of them warm-up (0.18 x 18 = 3.24): 30 choices in 15 points, 2 at each."""
    torch.manual_seed(0)
    table = table_of(torch.randn(30, 4).tolist())
    strategy, counts = made("sgas"), []
    for decision in range(18):
        table.shrink(strategy.decide({"t": table}, at(decision, 18), anything)["t"])
        counts.append(table.undecided())
    assert counts == [30] * 3 + list(range(28, -1, -2))


def test_sgas_every_fifth_and_the_rest_at_the_last():
    table = table_of([[float(i), 0.0] for i in range(8)])
    strategy, counts = made("sgas", every=5, choices_a_decision=1), []
    for decision in range(24):
        table.shrink(strategy.decide({"t": table}, at(decision, 24), anything)["t"])
        counts.append(table.undecided())
    assert counts == [8] * 4 + [7] * 5 + [6] * 5 + [5] * 5 + [4] * 4 + [0]


def test_sgas_remembers_no_more_than_it_needs():
    strategy, tables = made("sgas", history=2), {"t": table_of([[0.0, 1.0]])}
    for decision in range(5):
        strategy.decide(tables, at(decision, 50), anything)
    state = strategy.state()
    assert len(state["history"]) == 2
    assert json.loads(json.dumps(state)) == state


# Gumbel


def test_gumbel_temperature_falls_exponentially():
    strategy, tables = made("gumbel"), {"t": table_of([[0.0, 1.0]])}
    found = [strategy.state()["temperature"]]
    for decision in range(4):
        strategy.decide(tables, at(decision, 4), anything)
        found.append(strategy.state()["temperature"])
    assert found == pytest.approx([0.03 ** (k / 4) for k in range(5)])


def test_gumbel_samples_as_often_as_the_probabilities_say():
    table = table_of([[0.0, math.log(3.0), 5.0]] * 20_000)
    table.shrink(np.tile([True, True, False], (20_000, 1)))
    torch.manual_seed(0)
    sampled = made("gumbel").relax(table).mean(dim=0)
    assert sampled.tolist() == pytest.approx([0.25, 0.75, 0.0], abs=0.01)


def test_gumbel_samples_are_exact():
    """So that what has the weight 0 can be skipped."""
    table = table_of([[0.0] * 9] * 5000)
    torch.manual_seed(0)
    sampled = made("gumbel", start_temperature=5.0).relax(table)
    assert set(sampled.unique().tolist()) == {0.0, 1.0}
    assert (sampled.sum(dim=1) == 1).all()


def test_gumbel_passes_the_gradient_of_the_tempered_softmax():
    table = table_of([[0.3, -0.2, 0.9]])
    strategy = made("gumbel", start_temperature=0.5)
    torch.manual_seed(3)
    (found,) = torch.autograd.grad(strategy.relax(table)[0, 1], table.logits)
    torch.manual_seed(3)
    noise = -torch.empty(3).exponential_().log()
    (expected,) = torch.autograd.grad(((table.logits + noise) / 0.5).softmax(dim=0)[1], table.logits)
    assert torch.allclose(found, expected)
    assert found.abs().sum() > 0


@pytest.mark.parametrize("state", [{}, {"temperature": -1.0}, {"temperature": 1.0, "history": []}])
def test_gumbel_refuses_what_is_no_state_of_it(state):
    with pytest.raises(ValueError, match="temperature"):
        made("gumbel").load_state(state)


# Random


def test_random_is_uniform_and_follows_the_seed():
    table = table_of([[9.0, 0.0, 0.0, -9.0]] * 8000)
    table.shrink(np.tile([True, False, True, True], (8000, 1)))
    strategy = made("random")
    torch.manual_seed(0)
    first = strategy.decide({"t": table}, at(0, 3), anything)["t"]
    assert (first.sum(axis=1) == 1).all()
    assert first.mean(axis=0) == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.02)
    torch.manual_seed(0)
    assert np.array_equal(first, strategy.decide({"t": table}, at(0, 3), anything)["t"])


def cost(alive):
    """The least sum of candidate indices that is left."""
    return sum(np.flatnonzero(row)[0] for mask in alive.values() for row in mask if row.any())


def test_random_throws_away_what_is_too_dear():
    tables, asked = {"t": table_of([[0.0] * 4] * 3)}, []

    def feasible(alive):
        asked.append(cost(alive))
        return asked[-1] <= 4

    for seed in range(20):
        torch.manual_seed(seed)
        alive = made("random").decide(tables, at(0, 1), feasible)
        assert (alive["t"].sum(axis=1) == 1).all()
        assert cost(alive) <= 4
    assert max(asked) > 4


def test_random_settles_group_by_group_where_draws_fail():
    """One network in 4^60 is cheap enough, and one in 4^40 nearly so."""
    tables = {name: table_of([[0.0] * 4] * 30, name=name) for name in ("a", "b")}
    for limit in (0, 9):
        calls = 0

        def feasible(alive, limit=limit):
            nonlocal calls
            calls += 1
            return cost(alive) <= limit

        torch.manual_seed(limit)
        alive = made("random", tries=5).decide(tables, at(0, 1), feasible)
        assert all((mask.sum(axis=1) == 1).all() for mask in alive.values())
        assert cost(alive) <= limit
        assert calls < 5 + 60 * 5
    assert cost(alive) > 0


def test_random_leaves_open_what_nothing_is_feasible_for():
    tables = {"t": table_of([[0.0] * 3] * 2)}
    alive = made("random", tries=2).decide(tables, at(0, 1), lambda alive: False)
    assert all(np.array_equal(alive[name], mask) for name, mask in alive_of(tables).items())
