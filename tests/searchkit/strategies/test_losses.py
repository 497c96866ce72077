"""The losses of the strategies: known values, plain references, and where their gradients push."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from searchkit.choices import ChoiceTable
from searchkit.errors import UsageError
from searchkit.settings import parse_settings
from searchkit.spaces.ssr.search_space import SSRSearchSpace
from searchkit.strategies import STRATEGIES


def table_of(logits, level="depth", name="t"):
    logits = torch.tensor(logits, dtype=torch.float32)
    table = ChoiceTable(
        name, level, [f"r{i}" for i in range(logits.shape[0])], [f"c{i}" for i in range(logits.shape[1])]
    )
    with torch.no_grad():
        table.logits.copy_(logits.flatten())
    return table


def logit(p):
    return math.log(p / (1 - p))


def made(name, levels=("depth",), **values):
    found = STRATEGIES.load(name)
    return found(parse_settings(found.settings_type, values, what="strategy"), levels)


def loss_of(name, *tables, **values):
    strategy = made(name, tuple(dict.fromkeys(t.level for t in tables)), **values)
    return strategy.regularize({t.name: t for t in tables})


# Sigmoids 0.2, 0.5 and 0.3 sum to 1, so that they are the probabilities.
ROW = [logit(0.2), logit(0.5), logit(0.3)]
LOG_PRODUCT = math.log(0.2 * 0.5 * 0.3)


def test_ssr_by_hand():
    uniform = [0.0, 0.0, 0.0]
    assert loss_of("ssr", table_of([ROW]), weight=1.0, average="sum").item() == pytest.approx(LOG_PRODUCT, rel=1e-6)
    assert loss_of("ssr", table_of([ROW]), weight=1.0).item() == pytest.approx(LOG_PRODUCT / 3 + math.log(3), rel=1e-5)
    two = table_of([ROW, uniform])
    assert loss_of("ssr", two, weight=1.0).item() == pytest.approx((LOG_PRODUCT / 3 + math.log(3)) / 2, rel=1e-5)
    both = LOG_PRODUCT - 3 * math.log(3)
    assert loss_of("ssr", two, weight=1.0, average="choices").item() == pytest.approx(both / 2, rel=1e-6)
    assert loss_of("ssr", two, weight=1.0, average="sum").item() == pytest.approx(both, rel=1e-6)


def test_ssr_counts_live_candidates_and_choices_that_are_left():
    """A decided choice counts in the mean and adds 0; a pointless one does not count."""
    table = table_of([[*ROW, 9.0], [3.0, 0, 0, 0], [1.0, 2.0, 3.0, 4.0]])
    table.shrink(np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool))
    assert loss_of("ssr", table, weight=1.0).item() == pytest.approx((LOG_PRODUCT / 3 + math.log(3)) / 2, rel=1e-5)
    assert loss_of("ssr", table, weight=1.0, average="sum").item() == pytest.approx(LOG_PRODUCT, rel=1e-6)


def test_levels_are_weighted_as_published():
    """0.15 x depth + 0.3 x dilation and spatial + 0.3 x channel, and 0.3 for any other level."""
    mean = LOG_PRODUCT / 3 + math.log(3)
    for level, weight in {"depth": 0.15, "dilation-spatial": 0.3, "channel": 0.3, "path": 0.3}.items():
        assert loss_of("ssr", table_of([ROW], level)).item() == pytest.approx(weight * mean, rel=1e-5)
    tables = [table_of([ROW], level, level) for level in ("depth", "channel")]
    assert loss_of("ssr", *tables).item() == pytest.approx(0.45 * mean, rel=1e-5)
    weight = {"depth": 2, "other": 1}
    assert loss_of("ssr", *tables, weight=weight).item() == pytest.approx(3 * mean, rel=1e-5)


def test_a_level_that_is_not_there_or_is_left_out_is_refused():
    with pytest.raises(
        UsageError, match=r"weight of the strategy: no such level \(got 'dpeth'; allowed: depth, other\)"
    ):
        made("ssr", weight={"dpeth": 1.0, "other": 1.0})
    with pytest.raises(UsageError, match=r"a level has no number \(got 'path'\). Add it, or `other`"):
        made("entropy", levels=("depth", "path"), multiplier={"depth": 1.0})
    for wrong in ({"threshold": 1.0}, {"threshold": 0.0}, {"weight": -1.0}, {"average": "max"}):
        with pytest.raises(UsageError, match="wrong setting"):
            made("ssr", **wrong)


@pytest.mark.parametrize("wrong", [-1.0, "a", True, {"depth": "x"}, {"depth": -1.0}, {"other": {}}, None, 1e7])
def test_a_weight_that_is_no_number_is_refused(wrong):
    with pytest.raises(
        UsageError, match=r"strategy.weight: wrong setting .*allowed: a number from 0 to 1e6, or a table"
    ):
        made("ssr", weight=wrong)


def random_tables(seed=0, **space):
    tables = SSRSearchSpace(**space).tables()
    generator = np.random.default_rng(seed)
    for table in tables.values():
        mask = generator.random(table.alive.shape) < 0.6
        mask[np.arange(len(mask)), generator.integers(mask.shape[1], size=len(mask))] = True
        mask[generator.random(len(mask)) < 0.2] = False
        if table.name.startswith("depth"):
            mask[:] = True
        table.shrink(mask)
        with torch.no_grad():
            table.logits.copy_(torch.from_numpy(generator.normal(0, 3, table.logits.numel())))
    return tables


def rows_of(table):
    """Sigmoids of the live candidates of each choice that is not pointless, one choice after the other."""
    dense = table.dense()
    return [torch.sigmoid(dense[row][torch.from_numpy(mask)]) for row, mask in enumerate(table.alive) if mask.any()]


def plain_ssr(sigmoids, average):
    p = sigmoids / sigmoids.sum()
    total = torch.log(p).sum()
    return total / len(p) + math.log(len(p)) if average == "mean" else total


PLAIN = {
    ("ssr", "mean"): lambda s: plain_ssr(s, "mean"),
    ("ssr", "choices"): lambda s: plain_ssr(s, "choices"),
    ("ssr", "sum"): lambda s: plain_ssr(s, "sum"),
    ("entropy", None): lambda s: -(s / s.sum() * torch.log(s / s.sum())).sum(),
    ("l1", None): lambda s: -(s - 0.5).abs().mean() if len(s) > 1 else 0 * s.sum(),
    ("l2", None): lambda s: -(s - 0.5).square().mean() if len(s) > 1 else 0 * s.sum(),
    ("fairdarts", None): lambda s: -(s - 0.5).square().mean() if len(s) > 1 else 0 * s.sum(),
}


@pytest.mark.parametrize(("name", "average"), PLAIN)
def test_equal_to_a_plain_loop_over_choices(name, average):
    """In float64, values and gradients."""
    tables = {key: table.double() for key, table in random_tables().items()}
    levels = tuple(dict.fromkeys(t.level for t in tables.values()))
    strategy = made(name, levels, weight=1.0, **({"average": average} if average else {}))
    if name == "entropy":
        strategy.weights = dict.fromkeys(levels, 1.0)
    parameters = [t.logits for t in tables.values()]
    found = strategy.regularize(tables)
    expected = torch.zeros((), dtype=torch.float64)
    for level in levels:
        losses = [PLAIN[name, average](s) for t in tables.values() if t.level == level for s in rows_of(t)]
        expected = expected + (sum(losses) if average == "sum" else sum(losses) / len(losses))
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    pairs = zip(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-14) for a, b in pairs)


def test_one_channel_level_is_two_of_half_the_weight():
    """0.3 x the mean over both kinds of widths is 0.15 x that over each, as both have the same choices."""
    tables = SSRSearchSpace().tables()
    torch.manual_seed(0)
    for table in tables.values():
        torch.nn.init.normal_(table.logits)
    gone = np.random.default_rng(0).random(170) < 0.5
    for table in tables.values():
        if table.level == "channel":
            mask = table.alive
            mask[gone[:70] if table.name.endswith("4") else gone[70:]] = False
            table.shrink(mask)
    strategy = made("ssr", ("depth", "dilation-spatial", "channel"))

    def mean(kind):
        return strategy.regularize({n: t for n, t in tables.items() if n.startswith(kind)}).item() / 0.3

    both = strategy.regularize({n: t for n, t in tables.items() if t.level == "channel"}).item()
    assert both == pytest.approx(0.15 * mean("mid") + 0.15 * mean("out"), rel=1e-5)


@pytest.mark.parametrize("name", ["ssr", "entropy", "l1", "l2", "fairdarts"])
def test_what_is_decided_adds_nothing(name):
    table = table_of([[3.0, -2.0], [3.0, 4.0], [1.0, 1.0]])
    table.shrink(np.array([[True, False], [False, True], [False, False]]))
    loss = loss_of(name, table)
    assert loss.item() == 0
    loss.backward()
    assert (table.logits.grad == 0).all()


@pytest.mark.parametrize("name", ["ssr", "entropy"])
def test_the_greatest_is_pushed_up_and_the_smallest_down(name):
    table = table_of([[0.5, -0.2, 0.1, -0.6]])
    loss_of(name, table).backward()
    assert table.logits.grad[0] < 0 < table.logits.grad[3]
    table = table_of([[0.3, 0.3, 0.3]])
    loss_of(name, table).backward()
    assert torch.allclose(table.logits.grad, torch.zeros(3), atol=1e-7)


def test_ssr_pushes_harder_than_entropy_where_p_is_small_and_alike_where_all_are_equal():
    def push(name, logits):
        table = table_of([logits])
        multiplier = {"multiplier": 1.0} if name == "entropy" else {}
        loss_of(name, table, weight=1.0, **multiplier).backward()
        return table.logits.grad

    assert torch.allclose(push("ssr", [1e-3, 0, 0, -1e-3]), push("entropy", [1e-3, 0, 0, -1e-3]), rtol=2e-3, atol=1e-7)
    assert push("ssr", [4.0, 0, 0, -4])[3] > 3 * push("entropy", [4.0, 0, 0, -4])[3] > 0


def test_entropy_multiplies_the_weights():
    entropy = -(0.2 * math.log(0.2) + 0.5 * math.log(0.5) + 0.3 * math.log(0.3))
    for level, weight in {"depth": 2 * 0.15, "dilation-spatial": 3 * 0.3, "channel": 4 * 0.3, "path": 3 * 0.3}.items():
        assert loss_of("entropy", table_of([ROW], level)).item() == pytest.approx(weight * entropy, rel=1e-5)
    assert loss_of("entropy", table_of([ROW]), multiplier=1.0).item() == pytest.approx(0.15 * entropy, rel=1e-5)


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2), ("fairdarts", 2)])
def test_zero_one_losses_push_away_from_a_half(name, power):
    table = table_of([[logit(0.9), logit(0.4), logit(0.5)]])
    loss = loss_of(name, table)
    assert loss.item() == pytest.approx(-10 * (0.4**power + 0.1**power) / 3, rel=1e-5)
    loss.backward()
    assert table.logits.grad[0] < 0 < table.logits.grad[1]


def test_small_probabilities_are_exact():
    """p = 1e-30 and less, in float32; logits of both signs."""
    table = table_of([[0.0, -69.0, -120.0], [60.0, 50.0, -40.0]])
    loss = loss_of("ssr", table, weight=1.0, average="sum")
    exact = [[0.0, -69.0, -120.0], [60.0, 50.0, -40.0]]
    logs = [[-math.log1p(math.exp(-x)) if x > -30 else x for x in row] for row in exact]
    plain = sum(sum(row) - 3 * math.log(sum(map(math.exp, row))) for row in logs)
    assert loss.item() == pytest.approx(plain, rel=1e-6)
    loss.backward()
    assert table.logits.grad.isfinite().all()


def test_a_net_that_is_decided_has_no_ssr_loss():
    table = table_of([[1.0, -2.0], [3.0, 4.0]])
    table.shrink(np.array([[True, False], [False, False]]))
    for average in ("mean", "choices", "sum"):
        loss = loss_of("ssr", table, average=average)
        assert loss.item() == 0
    loss.backward()
    assert (table.logits.grad == 0).all()
