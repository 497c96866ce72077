"""FasterSeg's decoders: ours against all paths of tiny spaces, the authors' against their published networks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from searchkit.costs.latency import load_table
from searchkit.errors import UsageError
from searchkit.footprint import count_params, on_meta
from searchkit.genotype import Provenance
from searchkit.networks import resolve
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
from searchkit.spaces.fasterseg.genotype import FasterSegGenotype, FasterSegLayer, final_rate
from searchkit.spaces.fasterseg.latency import predict_latency_ms

DATA = Path(__file__).parent / "data"
PUBLISHED = json.loads((DATA / "fasterseg_alphas.json").read_text())
LAYERS = json.loads((DATA / "fasterseg_layers.json").read_text())
RELEASE_NAMES = {
    "skip": "skip",
    "conv": "conv",
    "conv_downup": "zoomed_conv",
    "conv_2x": "conv_x2",
    "conv_2x_downup": "zoomed_conv_x2",
}
REFERENCE, SHORT = Size(1024, 2048), Size(64, 128)
ANY = Provenance(name="any")
TABLE = "gtx1080ti-tensorrt5"
SKIP, CONV, ZOOMED = (OPERATORS.index(name) for name in ("skip", "conv", "zoomed_conv"))
INF = math.inf


def published(name: str) -> ArchitectureParameters:
    return ArchitectureParameters.from_release(PUBLISHED[name])


def released(name: str, branches: tuple[int, ...] = (1, 2)) -> FasterSegGenotype:
    """A network as the authors decode it."""
    of_teacher = {"teacher": True, "widths": (12,), "stem_width": 12, "head_width": 12}
    more = of_teacher if name == "teacher" else {}
    return genotype_of(published(name), branches, provenance=ANY, rule="release", **more)


def flat(layers: int, widths: int = 2) -> ArchitectureParameters:
    """No preference for anything, but for `conv` in every cell."""
    operators = [np.zeros((layers - rate, 5)) for rate in range(3)]
    for rows in operators:
        rows[:, CONV] = 1
    beta = [np.zeros((layers - 2, 2)), np.zeros((layers - 3, 2))]
    return ArchitectureParameters(
        operators, beta, [np.zeros((n, widths)) for n in (layers - 1, layers - 1, layers - 2)]
    )


def drawn(layers: int, seed: int, widths: int = 3, spread: float = 2.0) -> ArchitectureParameters:
    rng = np.random.default_rng(seed)
    like = flat(layers, widths)

    def draw(arrays: Any) -> list[np.ndarray]:
        return [rng.normal(0, spread, rows.shape) for rows in arrays]

    return ArchitectureParameters(draw(like.operators), draw(like.beta), draw(like.widths))


# The authors' decoder


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_published_networks_layer_for_layer(name):
    found = released(name)
    for index, rate in enumerate(("32", "16")):
        placed = [*found.placed_shared(), *found.placed_branch(index)]
        shared = [True] * len(found.shared) + [False] * len(found.branches[index])
        rows = [
            [p.layer.operator, p.in_channels, p.out_channels, p.layer.stride, p.rate_in, p.rate_out, s]
            for p, s in zip(placed, shared, strict=True)
        ]
        assert rows == [[RELEASE_NAMES[row[0]], *row[1:7]] for row in LAYERS[name][rate]]


@pytest.mark.parametrize(("name", "shipped"), [("student", "fasterseg"), ("teacher", "fasterseg-teacher")])
def test_published_networks_are_the_shipped_ones(name, shipped):
    genotype = resolve(shipped).genotype
    assert released(name).digest == genotype.digest
    assert released(name, (2, 1)).digest == genotype.digest


def test_published_params_of_every_layer():
    found = released("student")
    with torch.device("meta"):
        network = SPACES.load("fasterseg").build(found)
    for index, rate in enumerate(("32", "16")):
        layers = [*network.shared, *network.branches[index].layers]
        assert [count_params(layer) for layer in layers] == [row[7] for row in LAYERS["student"][rate]]


def test_published_costs():
    found = released("student")
    with torch.device("meta"):
        network, training = (SPACES.load("fasterseg").build(found, training_heads=heads) for heads in (False, True))
    assert round(on_meta(network.eval(), REFERENCE).conv_macs / 1e9, 4) == 27.7705
    assert round(count_params(network) / 1e3, 1) == 3421.9
    assert round(count_params(training) / 1e3, 1) == 4385.7


def test_published_latencies():
    """The release stores the table's sum of the student with either pair of branches, by its keys."""
    table = load_table(TABLE)
    for branches in BRANCH_PAIRS:
        stored = PUBLISHED["student"]["latency{}{}".format(*branches)]
        assert predict_latency_ms(released("student", branches), table, authors_keys=True) == stored
    assert PUBLISHED["student"]["latency12"] == 6.4139770511337275
    assert round(predict_latency_ms(released("student"), table), 3) == 5.702


def test_what_the_most_probable_paths_would_have_been():
    """The figures in docs/reproduction.md."""
    parameters = published("student")
    assert most_probable_halving(parameters, 1) == (14,)
    assert most_probable_halving(parameters, 2) == (13, 14)
    found = genotype_of(parameters, (1, 2), provenance=Provenance(name="joint"))
    assert round(found.cost(Size(1024, 2048)).conv_macs / 1e9, 2) == 29.66
    assert round(predict_latency_ms(found, load_table("gtx1080ti-tensorrt5")), 2) == 5.67


def ends(parameters: ArchitectureParameters, last: int, **more: Any) -> list[tuple[int, str]]:
    """Layer and operator of what the release leaves of a branch."""
    return [(layer.layer, layer.operator) for layer in decode(parameters, last=last, rule="release", **more)]


def test_release_halves_to_16_one_layer_early():
    parameters = flat(8)
    parameters.beta[0][3] = 1, 0
    assert [layer.layer for layer in decode(parameters, last=1, rule="release") if layer.stride == 2] == [3]
    assert most_probable_halving(parameters, 1) == (6,)
    parameters.beta[0][3] = 9, 0
    assert path_log_probability(parameters, (4,)) > path_log_probability(parameters, (3,))


def test_release_never_halves_to_16_at_the_margins():
    parameters = flat(8)
    parameters.beta[0][[0, -1]] = 5, 0
    parameters.beta[0][2] = 1, 0
    assert [layer.layer for layer in decode(parameters, last=1, rule="release") if layer.stride == 2] == [2]


def test_release_leaves_two_layers_between_the_strides():
    parameters = flat(10)
    parameters.beta[0][3] = 5, 0
    parameters.beta[1][[3, 4, 6]] = 9, 0  # too near, too near, and the last one, which is never taken
    parameters.beta[1][5] = 1, 0
    strided = [layer.layer for layer in decode(parameters, last=2, rule="release") if layer.stride == 2]
    assert strided == [4, 7]


def test_release_flattens_beta_once_more_for_each_branch():
    """Three softmax in all before 1/32 is decoded, and that changes which pair of places is best."""
    changed = 0
    for seed in range(30):
        parameters = drawn(10, seed)
        best, beta = [], parameters.beta
        for _ in range(3):
            beta = [np.exp(rows) / np.exp(rows).sum(-1, keepdims=True) for rows in beta]
            pairs = {beta[0][i, 0] * beta[1][j, 0]: [i + 1, j + 2] for j in range(6) for i in range(1, j - 1)}
            best.append(pairs[max(pairs)])
        strided = [layer.layer for layer in decode(parameters, last=2, rule="release") if layer.stride == 2]
        assert strided == best[2]
        changed += best[0] != best[2]
    assert changed


def test_release_keeps_round_a_third_of_the_layers():
    parameters = flat(9)
    # All cells would skip, the later ones the more.
    parameters.operators[0][:, SKIP] = np.linspace(2, 4, 9)
    assert ends(parameters, 0) == [(0, "conv"), (1, "conv"), (2, "conv")]


def test_release_keeps_a_layer_behind_a_stride():
    parameters = flat(9)
    parameters.operators[1][3:, SKIP] = 3, 2.5, 2.5, 4, 4
    parameters.beta[0][3] = 5, 0
    # Layers 4 to 8 would all skip; of the two least probable the later one stays.
    assert ends(parameters, 1) == [(0, "conv"), (1, "conv"), (2, "conv"), (3, "conv"), (6, "conv")]
    parameters.operators[1][4, ZOOMED] = 2
    assert ends(parameters, 1)[4:] == [(5, "zoomed_conv")]


def test_release_counts_the_layer_that_it_keeps_as_removed():
    """Six skips, of which four may go for five layers to stay. The one kept behind the stride is among the four."""
    parameters = flat(9)
    parameters.operators[0][:2, SKIP] = 2
    parameters.operators[1][4:, SKIP] = 3
    parameters.beta[0][4] = 5, 0
    assert [layer for layer, _ in ends(parameters, 1)] == [0, 1, 2, 3, 4, 8]


def test_release_rules_out_for_a_branch_what_it_ruled_out_before():
    parameters = flat(9)
    parameters.operators[0][:, SKIP] = 1.5, 1.4, 4, 4, 4, 4, 4, 4, 1.3
    parameters.beta[0][5] = 5, 0
    # To 1/8 three layers must stay, the least probable skips; to 1/16 five, of which two are behind the stride.
    assert [layer for layer, _ in ends(parameters, 0)] == [0, 1, 8]
    assert {0, 1} < {layer for layer, _ in ends(parameters, 1)}
    parameters.operators[0][2:8, SKIP] = 0
    assert [layer for layer, _ in ends(parameters, 0)] == [2, 3, 4, 5, 6, 7]
    assert [layer for layer, _ in ends(parameters, 1)] == [2, 3, 4, 5, 6, 7, 8]


def test_release_has_no_strided_skip():
    parameters = flat(8)
    parameters.beta[0][3] = 5, 0
    parameters.operators[0][3] = 3, 1, 2, 0, 0
    assert (3, "zoomed_conv") in ends(parameters, 1)


def test_release_gives_the_last_layer_that_stays_the_heads_width():
    parameters = flat(6)
    parameters.operators[0][5, SKIP] = 5
    found = decode(parameters, last=0, rule="release")
    assert [(layer.layer, layer.width) for layer in found] == [(0, 0), (1, 0), (2, 0), (3, 0), (4, None)]


def test_release_changes_nothing_of_its_arguments():
    parameters = drawn(9, 0)
    before = [rows.copy() for rows in (*parameters.operators, *parameters.beta, *parameters.widths)]
    decode(parameters, last=2, teacher=True, rule="release")
    after = (*parameters.operators, *parameters.beta, *parameters.widths)
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_release_needs_five_layers():
    with pytest.raises(UsageError, match="5 or more"):
        decode(flat(4), last=1, rule="release")
    for last in range(3):
        assert decode(flat(5), last=last, rule="release")


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
def test_most_probable_path_of_all(layers, last, seed):
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
def test_every_layer_of_the_branch_is_the_most_probable(layers, last, seed, teacher):
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


def test_equal_paths_halve_early():
    parameters = flat(6)
    for rows in parameters.beta:
        rows[:] = -INF, 0
    # Nothing but the first cell at each rate is left, which has one predecessor.
    assert most_probable_halving(parameters, 2) == (0, 1)
    parameters.beta[0][:] = 0
    parameters.beta[0][:-1, 0] = -INF
    # The last layer halves, or the first: 1/2 each.
    assert most_probable_halving(parameters, 1) == (0,)


def test_what_cannot_be_is_not_taken():
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


def test_a_layer_in_front_of_removed_skips_keeps_its_width():
    parameters = flat(5)
    parameters.operators[0][[2, 4], SKIP] = 5
    for row, column in enumerate((0, 1, 0, 0)):
        parameters.widths[0][row, column] = 1
    assert [(layer.layer, layer.width) for layer in decode(parameters, last=0)] == [(0, 0), (1, 1), (3, None)]


# Networks of branches


def test_branches_share_what_they_begin_with_alike():
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


def test_refusals():
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
def test_whatever_is_decoded_is_a_network(layers, seed, branches, rule, teacher):
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
