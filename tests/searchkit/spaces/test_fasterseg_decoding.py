"""FasterSeg's decoder against all paths of tiny spaces; see `test_fasterseg_release_decoding` for the authors'."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from searchkit.costs.latency import load_table
from searchkit.errors import UsageError
from searchkit.footprint import on_meta
from searchkit.genotype import Provenance
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.fasterseg.decoding import (
    BRANCH_PAIRS,
    OPERATORS,
    ArchitectureParameters,
    best_branches,
    decode,
    genotype_of,
    halvings,
    merit,
    most_probable_halving,
    path_log_probability,
)
from searchkit.spaces.fasterseg.genotype import FasterSegLayer, final_rate
from searchkit.spaces.fasterseg.latency import predict_latency_ms

PUBLISHED = json.loads((Path(__file__).parent / "data" / "fasterseg_alphas.json").read_text())
SHORT = Size(64, 128)
ANY = Provenance(name="any")
SKIP = OPERATORS.index("skip")
INF = math.inf


def test_what_the_most_probable_paths_would_have_been():
    """The figures in docs/reproduction.md."""
    parameters = ArchitectureParameters.from_release(PUBLISHED["student"])
    assert most_probable_halving(parameters, 1) == (14,)
    assert most_probable_halving(parameters, 2) == (13, 14)
    found = genotype_of(parameters, (1, 2), provenance=Provenance(name="joint"))
    assert round(found.cost(Size(1024, 2048)).conv_macs / 1e9, 2) == 29.66
    assert round(predict_latency_ms(found, load_table("gtx1080ti-tensorrt5")), 2) == 5.67


# The most probable branch


def traced(parameters: ArchitectureParameters, layer: int, rate: int) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Every way back from a cell, by drawing predecessors, with its probability and its layers of stride 2."""
    if layer == 0:
        yield 1.0, ()
        return
    if rate == 0:
        drawn_from = [(1.0, 0)]
    elif rate == layer:
        drawn_from = [(1.0, rate - 1)]
    else:
        odds = np.exp(parameters.beta[rate - 1][layer - rate - 1])
        drawn_from = [(odds[0] / odds.sum(), rate - 1), (odds[1] / odds.sum(), rate)]
    for probability, before in drawn_from:
        for rest, halving in traced(parameters, layer - 1, before):
            yield probability * rest, (*halving, layer - 1) if before < rate else halving


@settings(max_examples=60, deadline=None)
@given(layers=st.integers(3, 8), last=st.integers(0, 2), seed=st.integers(0, 2**32))
def test_most_probable_path_of_all(drawn, layers, last, seed):
    parameters = drawn(layers, seed)
    paths = {halving: p for p, halving in traced(parameters, layers - 1, last)}
    assert sorted(paths) == sorted(halvings(layers, last))
    assert len(paths) == math.comb(layers - 1, last)
    assert sum(paths.values()) == pytest.approx(1)
    for halving, probability in paths.items():
        assert math.exp(path_log_probability(parameters, halving)) == pytest.approx(probability)
    assert most_probable_halving(parameters, last) == max(paths, key=paths.__getitem__)


def test_the_paper_counts_its_paths():
    """1695 pairs of branches, of 16 layers (section 4.2)."""
    count = [len(halvings(16, last)) for last in range(3)]
    assert count[0] * count[1] + count[0] * count[2] + count[1] * count[2] == 1695


@settings(max_examples=60, deadline=None)
@given(layers=st.integers(3, 8), last=st.integers(0, 2), seed=st.integers(0, 2**32), teacher=st.booleans())
def test_every_layer_of_the_branch_is_the_most_probable(drawn, layers, last, seed, teacher):
    parameters = drawn(layers, seed)
    halving = most_probable_halving(parameters, last)
    expected, rate = [], 0
    for layer in range(layers):
        odds = dict(zip(OPERATORS, parameters.operators[rate][layer - rate], strict=True))
        if teacher:
            del odds["skip"]
        operator, stride = max(odds, key=odds.__getitem__), 2 if layer in halving else 1
        after = rate + stride - 1
        if operator != "skip" or stride == 2:
            first_row = {0: 1, 1: 1, 2: 2}[after]
            widths = list(parameters.widths[after][layer + 1 - first_row]) if layer + 1 < layers else [0.0]
            expected.append([layer, rate, operator, widths.index(max(widths)), stride])
        rate = after
    assert rate == last
    if expected:
        expected[-1][3] = None
    found = decode(parameters, last=last, teacher=teacher)
    assert [[d.layer, d.rate, d.operator, d.width, d.stride] for d in found] == expected


def test_equal_paths_halve_early(flat):
    parameters = flat(6)
    for rows in parameters.beta:
        rows[:] = -INF, 0
    # Nothing but the first cell at each rate is left, which has one predecessor.
    assert most_probable_halving(parameters, 2) == (0, 1)
    parameters.beta[0][:] = 0
    parameters.beta[0][:-1, 0] = -INF
    # The last layer halves, or the first: 1/2 each.
    assert most_probable_halving(parameters, 1) == (0,)


def test_what_cannot_be_is_not_taken(flat):
    parameters = flat(5)
    parameters.operators[0][1] = -INF, -INF, -INF, 0, -INF
    assert decode(parameters, last=0)[1].operator == "conv_x2"
    parameters.operators[0][1] = -INF
    with pytest.raises(UsageError, match="no operator left"):
        decode(parameters, last=0)
    parameters.beta[0][-1] = -INF, -INF
    with pytest.raises(UsageError, match="no path leads"):
        decode(parameters, last=1)
    parameters.operators[0][1] = 5, -INF, -INF, -INF, -INF
    assert [layer.layer for layer in decode(parameters, last=0)] == [0, 2, 3, 4]
    with pytest.raises(UsageError, match="no operator left"):
        decode(parameters, last=0, teacher=True)
    with pytest.raises(UsageError, match="no such rate"):
        decode(parameters, last=3)


def test_a_layer_in_front_of_removed_skips_keeps_its_width(flat):
    parameters = flat(5)
    parameters.operators[0][[2, 4], SKIP] = 5
    for row, column in enumerate((0, 1, 0, 0)):
        parameters.widths[0][row, column] = 1
    assert [(layer.layer, layer.width) for layer in decode(parameters, last=0)] == [(0, 0), (1, 1), (3, None)]


# Networks of branches


def test_branches_share_what_they_begin_with_alike(flat):
    parameters = flat(6)
    parameters.beta[0][:] = [[-INF, 0], [0, -INF], [-INF, 0], [-INF, 0]]
    parameters.beta[1][:] = [[-INF, 0], [-INF, 0], [0, -INF]]
    parameters.widths[0][:, 0] = 1
    found = genotype_of(parameters, (0, 2), provenance=ANY, widths=(4, 6))
    assert [final_rate((*found.shared, *branch)) for branch in found.branches] == [32, 8]
    assert [len(found.shared), *map(len, found.branches)] == [2, 4, 4]
    assert found.branches[0][0].stride == 2
    assert found.branches[1] == (*[FasterSegLayer(operator="conv", width=4, stride=1)] * 3, head_layer())
    alone = genotype_of(parameters, (2,), provenance=ANY, widths=(4, 6))
    assert alone.shared == ()
    assert alone.branches == ((*found.shared, *found.branches[0]),)


def head_layer() -> FasterSegLayer:
    return FasterSegLayer(operator="conv", width=8, stride=1)


def test_refusals(drawn):
    parameters = drawn(6, 0)
    for branches in ((), (1, 1), (0, 1, 2)):
        with pytest.raises(UsageError, match="one branch, or two"):
            genotype_of(parameters, branches, provenance=ANY, widths=(4, 6, 8))
    with pytest.raises(UsageError, match="another number of widths"):
        genotype_of(parameters, provenance=ANY)
    tree = PUBLISHED["student"]
    with pytest.raises(UsageError, match="beta_N_2"):
        ArchitectureParameters.from_release({key: value for key, value in tree.items() if key != "beta_1_2"})
    with pytest.raises(UsageError, match="wrong shape"):
        ArchitectureParameters.from_release(tree | {"alpha_1_2": tree["alpha_1_2"][:-1]})
    with pytest.raises(UsageError, match="too few layers"):
        ArchitectureParameters([np.zeros((2, 5))] * 3, parameters.beta, parameters.widths)
    with pytest.raises(UsageError, match="no numbers"):
        ArchitectureParameters(
            parameters.operators, [parameters.beta[0] * np.nan, parameters.beta[1]], parameters.widths
        )


@settings(max_examples=15, deadline=None)
@given(
    layers=st.integers(5, 9),
    seed=st.integers(0, 2**32),
    branches=st.sampled_from([(0, 1), (0, 2), (1, 2), (0,), (1,), (2,)]),
    rule=st.sampled_from(["joint", "release"]),
    teacher=st.booleans(),
)
def test_whatever_is_decoded_is_a_network(drawn, layers, seed, branches, rule, teacher):
    found = genotype_of(
        drawn(layers, seed), branches, provenance=ANY, widths=(4, 6, 8), teacher=teacher, rule=rule, classes=5
    )
    assert sorted(final_rate((*found.shared, *branch)) for branch in found.branches) == [8 << b for b in branches]
    chains = [(*found.shared, *branch) for branch in found.branches]
    # Where nothing may be a skip, no layer is lost.
    assert not teacher or [len(chain) for chain in chains] == [layers] * len(branches)
    assert not teacher or all(layer.operator != "skip" for chain in chains for layer in chain)
    assert all(chain[-1].width == found.head_width for chain in chains if chain)
    with torch.device("meta"):
        network = SPACES.load("fasterseg").build(found).eval()
    assert on_meta(network, SHORT).conv_macs == found.cost(SHORT).conv_macs


# The pair of branches


def test_merit_is_equation_5():
    assert merit(0.5, 8.3) == 0.5
    assert merit(0.5, 16.6) == pytest.approx(0.5 * 2**-0.07)
    assert merit(0.6, 4.15) == pytest.approx(0.6 * 2**0.07)
    assert merit(0.5, 10, target_ms=5, exponent=-1) == 0.25
    with pytest.raises(UsageError, match="over 0"):
        merit(0.5, 0)


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_published_choice_of_branches(name):
    tree = PUBLISHED[name]
    measured = {pair: (tree["mIoU{}{}".format(*pair)], tree["latency{}{}".format(*pair)]) for pair in BRANCH_PAIRS}
    assert best_branches(measured) == (1, 2)
    # Only far from the target would latency outweigh what is more than twice as good.
    assert best_branches({(0, 2): (0.5, 1.0), (1, 2): (0.55, 8.3)}) == (0, 2)
    assert best_branches({(0, 2): (0.5, 7.0), (1, 2): (0.51, 8.3)}) == (1, 2)
