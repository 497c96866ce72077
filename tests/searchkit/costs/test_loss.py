"""Prices in the loss: their forms, and each level's weight, against what is computed by hand."""

import math

import pytest
import torch

from searchkit.costs.expected import macs
from searchkit.costs.latency import LatencyTable
from searchkit.costs.loss import CostLoss, count_loss, latency_loss
from searchkit.errors import UsageError
from searchkit.supernet import weights_of

LEVELS = {"path": 0.002, "operator": 0.001, "width": 0.997}


def operators(supernet, size):
    weights = weights_of(supernet.alive())
    return {o.key: o for part in supernet.parts(weights, size) for o in part.grid.operators}


def table_of(supernet, size, factor=1e-6):
    """Milliseconds that are MACs times `factor`."""
    entries = {key: operator.macs * factor for key, operator in operators(supernet, size).items()}
    return LatencyTable("a CPU", "onnxruntime", "fp32", 1, tuple(size), "a test", entries)


def uneven(supernet):
    """Weights that differ, and what they are differentiable in."""
    torch.manual_seed(5)
    for table in supernet.tables.values():
        table.logits.data.normal_()
    return {name: torch.softmax(table.dense().double(), 1) for name, table in supernet.tables.items()}


def by_hand(supernet, weights, size):
    """Expected MACs of the toy, written out: stem and classifier, and the layers that the depth reaches."""
    cells = (size.height // 8) * (size.width // 8)
    total = cells * (3 * 8 * 64 + 8 * supernet.classes)
    for layer in range(3):
        reach = weights["depth"][0, layer:].sum()
        for column, kernel in enumerate((1, 3, 5)):
            for option, width in enumerate((2, 4, 8)):
                p = reach * weights["kernel"][layer, column] * weights["width"][3 * layer + column, option]
                total = total + p * cells * width * 8 * (kernel * kernel + 1)
    return total


def gradients(supernet, loss):
    logits = {name: table.logits for name, table in supernet.tables.items()}
    found = torch.autograd.grad(loss, list(logits.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(logit) if grad is None else grad
        for (name, logit), grad in zip(logits.items(), found, strict=True)
    }


def test_linear_and_log(toy_supernet, toy_size):
    weights = uneven(toy_supernet)
    cost = by_hand(toy_supernet, weights, toy_size)
    value = float(cost)
    linear = count_loss("macs", "linear", 0.5, toy_size).penalty(toy_supernet, weights)
    log = count_loss("macs", "log", 0.005, toy_size).penalty(toy_supernet, weights)
    assert float(linear) == pytest.approx(0.5 * value / 1e9, rel=1e-9)
    assert float(log) == pytest.approx(0.005 * math.log(value), rel=1e-9)
    wanted = gradients(toy_supernet, cost)
    for loss, scale in ((linear, 0.5 / 1e9), (log, 0.005 / value)):
        for name, found in gradients(toy_supernet, loss).items():
            torch.testing.assert_close(found, scale * wanted[name], rtol=1e-5, atol=1e-12)


def test_a_latency_is_in_microseconds_in_a_logarithm_and_in_milliseconds_otherwise(toy_supernet, toy_size):
    """LGCNet's Eq. 10: 0.005 log(LAT), in microseconds; FasterSeg: 0.01 times milliseconds."""
    weights, table = uneven(toy_supernet), table_of(toy_supernet, toy_size)
    ms = float(by_hand(toy_supernet, weights, toy_size)) * 1e-6
    log = latency_loss(table, "log", 0.005).penalty(toy_supernet, weights)
    assert float(log) == pytest.approx(0.005 * math.log(1000 * ms), rel=1e-9)
    assert float(latency_loss(table, "linear", 0.01).penalty(toy_supernet, weights)) == pytest.approx(0.01 * ms)


@pytest.mark.parametrize("form", ["linear", "log"])
def test_levels_are_the_terms_of_equation_3(toy_supernet, toy_size, form):
    """Each term with the weights of all other levels held still, one by one, against the one pass."""
    weights, table = uneven(toy_supernet), table_of(toy_supernet, toy_size)
    level_of = {name: each.level for name, each in toy_supernet.tables.items()}
    literal = 0.0
    for level, share in LEVELS.items():
        held = {name: w if level_of[name] == level else w.detach() for name, w in weights.items()}
        literal = literal + share * latency_loss(table, form, 0.01).penalty(toy_supernet, held)
    found = latency_loss(table, form, 0.01, LEVELS).penalty(toy_supernet, weights)
    assert float(found) == pytest.approx(float(literal), rel=1e-12)
    wanted = gradients(toy_supernet, literal)
    for name, gradient in gradients(toy_supernet, found).items():
        assert wanted[name].abs().max() > 0
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-6, atol=0)


def test_a_level_that_is_not_named_is_not_pulled_at(toy_supernet, toy_size):
    weights = uneven(toy_supernet)
    found = gradients(
        toy_supernet, count_loss("params", "log", 1.0, toy_size, {"width": 1.0}).penalty(toy_supernet, weights)
    )
    assert {name for name, gradient in found.items() if gradient.abs().max() > 0} == {"width"}


def test_the_weight_adapts_to_a_band_of_rates(toy_supernet, toy_size):
    weights, table = uneven(toy_supernet), table_of(toy_supernet, toy_size)
    rate = 1e9 / float(by_hand(toy_supernet, weights, toy_size))
    for band, factor in (((0.8, 1.2), 1.0), ((0.5, 0.9), 0.5), ((1.1, 1.2), 2.0)):
        loss = latency_loss(table, "linear", 0.01, fps=(band[0] * rate, band[1] * rate))
        assert loss.adapted(toy_supernet, weights, 1.0) == factor
        assert loss.adapted(toy_supernet, weights, 4.0) == 4 * factor
    assert latency_loss(table, "linear", 0.01).adapted(toy_supernet, weights, 3.0) == 3.0
    loss = latency_loss(table, "linear", 0.01)
    assert float(loss.penalty(toy_supernet, weights, 2.0)) == pytest.approx(
        2 * float(loss.penalty(toy_supernet, weights))
    )


def test_what_it_refuses(toy_supernet, toy_size):
    with pytest.raises(UsageError, match=r"widht.*width"):
        count_loss("macs", "log", 1.0, toy_size, {"widht": 1.0}).check(toy_supernet)
    table = table_of(toy_supernet, toy_size)
    latency_loss(table, "log", 1.0, LEVELS).check(toy_supernet)
    del table.entries_ms["conv5_8_8_8"]
    with pytest.raises(UsageError, match="lacks an operator"):
        latency_loss(table, "log", 1.0).check(toy_supernet)


def test_it_is_of_the_price_that_it_is_given(toy_supernet, toy_size):
    weights = uneven(toy_supernet)
    loss = CostLoss("macs", "linear", 1.0, macs, toy_size)
    assert float(loss.expected(toy_supernet, weights)) == pytest.approx(
        float(by_hand(toy_supernet, weights, toy_size)), rel=1e-9
    )
