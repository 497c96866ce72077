"""Sampled paths: what is drawn, with which weights and gradients, at which temperature."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from searchkit.choices import ChoiceTable, alive_of
from searchkit.errors import UsageError
from searchkit.strategies import Progress
from searchkit.strategies.sampled_paths import SampledPaths, SampledPathsSettings

SCORES = [1.0, 0.0, -1.0, 2.0]


def table_of(keeps=2, rows=1, level="connection"):
    table = ChoiceTable(level, level, [f"r{i}" for i in range(rows)], [f"c{i}" for i in range(4)], keeps=keeps)
    with torch.no_grad():
        table.logits.copy_(torch.tensor(SCORES * rows))
    return table


def made(levels=("connection",), **values):
    return SampledPaths(SampledPathsSettings(**values), levels)


def decide(strategy, table, decision, decisions=4):
    return strategy.decide({table.name: table}, Progress(0, 9, decision, decisions), lambda _: True)


def test_draws_follow_the_tempered_softmax_without_replacement():
    """Each unordered pair as often as drawing one after the other without replacement gives it."""
    torch.manual_seed(0)
    strategy, draws, tau = made(start_temperature=2.0), 20_000, 2.0
    table = table_of(rows=draws)
    drawn = strategy.relax(table).detach().numpy() > 0
    assert (drawn.sum(axis=1) == 2).all()
    p = np.exp(np.array(SCORES) / tau)
    p /= p.sum()
    for one, other in itertools.combinations(range(4), 2):
        expected = p[one] * p[other] / (1 - p[one]) + p[other] * p[one] / (1 - p[other])
        found = (drawn[:, one] & drawn[:, other]).mean()
        assert found == pytest.approx(expected, abs=4 * np.sqrt(expected / draws))


def test_weights_and_gradients_are_those_of_the_softmax_over_what_is_drawn():
    torch.manual_seed(3)
    strategy, table = made(), table_of(rows=5)
    weights = strategy.relax(table)
    drawn = weights.detach() > 0
    direction = torch.randn_like(weights)
    (weights * direction).sum().backward()
    scores = torch.tensor(SCORES, requires_grad=True)
    for row in range(5):
        places = drawn[row].nonzero().flatten()
        plain = scores[places].softmax(0)
        assert torch.allclose(weights[row, places], plain)
        (gradient,) = torch.autograd.grad((plain * direction[row, places]).sum(), scores)
        assert torch.allclose(table.logits.grad.view(5, 4)[row], gradient, atol=1e-6)
        assert (gradient[~drawn[row]] == 0).all()


@pytest.mark.parametrize(("keeps", "paths", "count"), [(2, None, 2), (2, 1, 1), (2, 3, 3), (9, None, 4)])
def test_how_many_are_drawn(keeps, paths, count):
    weights = made(paths=paths).relax(table_of(keeps=keeps, rows=6))
    assert ((weights > 0).sum(1) == count).all()
    assert torch.allclose(weights.sum(1), torch.ones(6))


def test_of_what_lives_alone():
    table = table_of(rows=3)
    alive = np.array([[1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=bool)
    table.shrink(alive)
    for seed in range(20):
        torch.manual_seed(seed)
        weights = made().relax(table).detach().numpy()
        assert not (weights > 0)[~alive].any()
        assert (weights > 0).sum(axis=1).tolist() == [2, 1, 0]
        assert weights[1, 2] == 1


def test_other_levels_are_plain_softmax():
    strategy, table = made(("connection", "operator")), table_of(level="operator")
    assert torch.equal(strategy.relax(table), strategy.probabilities(table))
    assert torch.allclose(strategy.relax(table)[0], torch.tensor(SCORES).softmax(0))
    sampling = made(("connection", "operator"), level="operator")
    assert ((sampling.relax(table) > 0).sum(1) == 2).all()


def test_a_level_that_is_named_must_be_there():
    with pytest.raises(UsageError, match="no such level"):
        made(level="width")
    assert made(("width",)).settings.level == "connection"


def test_the_temperature_falls_from_decision_to_decision():
    strategy, table = made(start_temperature=8.0, end_temperature=0.5), table_of()
    found = [strategy.state()["temperature"]]
    for decision in range(4):
        assert np.array_equal(decide(strategy, table, decision)[table.name], alive_of({"": table})[""])
        found.append(strategy.state()["temperature"])
    assert found == pytest.approx([8, 4, 2, 1, 0.5])
    resumed = made(start_temperature=8.0, end_temperature=0.5)
    resumed.load_state(strategy.state())
    assert resumed.state() == strategy.state()
    # At a low temperature the best are drawn nearly always, at a high one nearly evenly.
    many = table_of(rows=2000)
    resumed.load_state({"temperature": 0.05, "ramp": 1.0})
    assert (resumed.relax(many) > 0).float().mean(0).tolist() == pytest.approx([1, 0, 0, 1], abs=0.01)
    resumed.load_state({"temperature": 500.0, "ramp": 1.0})
    assert (resumed.relax(many) > 0).float().mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.05)


def test_entropies_rise_in_a_straight_line_from_0():
    table = table_of(rows=2)
    p = np.exp(SCORES) / np.exp(SCORES).sum()
    entropy = -(p * np.log(p)).sum()
    strategy = made(entropy=0.5)
    assert float(strategy.regularize({table.name: table}).detach()) == 0
    for decision in range(4):
        decide(strategy, table, decision)
        expected = 0.5 * entropy * (decision + 1) / 4
        assert float(strategy.regularize({table.name: table}).detach()) == pytest.approx(expected, rel=1e-5)
    # A choice of no more than it keeps is decided, and has none.
    table.shrink(np.array([[1, 1, 0, 0], [1, 1, 1, 1]], dtype=bool))
    assert float(strategy.regularize({table.name: table}).detach()) == pytest.approx(0.5 * entropy / 2, rel=1e-5)


@pytest.mark.parametrize("state", [{"temperature": 1.0}, {"temperature": 0.0, "ramp": 0.0}, {}])
def test_another_state_is_refused(state):
    with pytest.raises(ValueError):
        made().load_state(state)
