"""A search in small: the task is a fixed preference, one number a candidate; everything else is the real thing.

Weight decay has a part in it. It draws logits back to where sigmoids still move, so that candidates that rise together
are told apart; without it they stay at 1 together, and where it outweighs the loss all stay equal.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from searchkit.choices import ChoiceTable
from searchkit.settings import parse_settings
from searchkit.strategies import STRATEGIES, Progress, total_entropy

STEPS, DECIDE_EVERY = 600, 20
LEVELS = {"depth": (2, 5), "dilation-spatial": (6, 10), "channel": (20, 9)}


def tables_of(seed):
    torch.manual_seed(seed)
    tables, costs = {}, {}
    for level, (rows, candidates) in LEVELS.items():
        names = [f"r{i}" for i in range(rows)], [f"c{i}" for i in range(candidates)]
        tables[level] = ChoiceTable(level, level, *names)
        costs[level] = torch.rand(rows, candidates)
    return tables, costs


def search(name, rate, seed=0, decay=3e-4, **values):
    """What is left, the total entropy at each decision point, and what each candidate cost."""
    tables, costs = tables_of(seed)
    found = STRATEGIES.load(name)
    strategy = found(parse_settings(found.settings_type, values, what="strategy"), tuple(tables))
    entropies = []
    optimizer = torch.optim.Adam([t.logits for t in tables.values()], lr=rate, weight_decay=decay)
    for step in range(STEPS):
        torch.manual_seed(step)
        optimizer.zero_grad()
        task = sum((costs[n] * strategy.relax(t)).sum(dim=1).mean() for n, t in tables.items())
        (0.05 * task + strategy.regularize(tables)).backward()
        optimizer.step()
        if (step + 1) % DECIDE_EVERY == 0:
            point = Progress(step + 1, STEPS, step // DECIDE_EVERY, STEPS // DECIDE_EVERY)
            shrink(tables, strategy.decide(tables, point, lambda alive: True), optimizer)
            entropies.append(
                sum(total_entropy(strategy.probabilities(t).detach().double().numpy()) for t in tables.values())
            )
    return tables, entropies, costs


def shrink(tables, alive, optimizer):
    """Moments follow what is kept."""
    for group, table in zip([optimizer.param_groups[0]["params"]] * len(tables), tables.values(), strict=True):
        index = next(i for i, p in enumerate(group) if p is table.logits)
        state = optimizer.state.pop(table.logits)
        kept = table.shrink(alive[table.name])
        group[index] = table.logits
        optimizer.state[table.logits] = {k: v[kept] if v.ndim else v for k, v in state.items()}


def undecided(tables):
    return sum(table.undecided() for table in tables.values())


@pytest.mark.parametrize(
    ("name", "values"),
    [("ssr", {}), ("entropy", {"multiplier": 3.0})],
    ids=["ssr", "entropy 3W"],
)
@pytest.mark.parametrize("rate", [2e-2, 5e-2])
def test_ssr_and_entropy_end_discrete_by_themselves(name, values, rate):
    tables, entropies, _ = search(name, rate, **values)
    assert undecided(tables) == 0
    assert entropies[-1] == 0
    assert entropies[0] > 0


def test_at_the_published_rate_ssr_is_on_its_way():
    """2e-3 is meant for tens of thousands of steps; entropy falls from the first to the last decision point."""
    _, entropies, _ = search("ssr", 2e-3)
    assert all(later <= earlier for earlier, later in pairwise(entropies))
    assert entropies[-1] < 0.95 * entropies[0]


def test_what_ssr_keeps_is_what_the_task_prefers():
    tables, _, costs = search("ssr", 2e-2)
    taken = np.mean([costs[n][torch.from_numpy(t.alive)].mean().item() for n, t in tables.items()])
    best = np.mean([costs[n].min(dim=1).values.mean().item() for n in tables])
    assert taken < best + 0.05


@pytest.mark.parametrize(("average", "decay"), [("choices", 2e-3), ("total", 5e-3), ("sum", 2e-2)])
def test_other_averages_end_discrete_with_a_decay_to_match(average, decay):
    tables, entropies, _ = search("ssr", 5e-2, decay=decay, average=average)
    assert undecided(tables) == 0
    assert entropies[-1] == 0


@pytest.mark.parametrize("decay", [0.0, 1.0], ids=["none", "too strong"])
def test_weight_decay_has_to_fit_the_loss(decay):
    tables, entropies, _ = search("ssr", 2e-2, decay=decay)
    assert undecided(tables) > 0
    assert entropies[-1] > 0


@pytest.mark.parametrize("name", ["darts", "gumbel"])
def test_these_do_not_end_discrete(name):
    tables, entropies, _ = search(name, 2e-2)
    assert undecided(tables) == sum(rows for rows, _ in LEVELS.values())
    assert entropies[-1] > 1


@pytest.mark.parametrize("name", ["pdarts", "sgas", "random"])
def test_these_decide_everything_on_time(name):
    tables, entropies, _ = search(name, 2e-2)
    assert undecided(tables) == 0
    assert entropies[-1] == 0


def test_zero_one_losses_leave_several_candidates():
    """They push sigmoids to 0 and 1, not choices to one candidate."""
    tables, entropies, _ = search("fairdarts", 5e-2)
    sigmoids = torch.cat([t.logits.detach().sigmoid() for t in tables.values()])
    assert ((sigmoids < 0.1) | (sigmoids > 0.9)).float().mean() > 0.9
    assert entropies[-1] > 1
