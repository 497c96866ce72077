"""FasterSeg's released decoder: the published networks from the published parameters, and each of its flaws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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
    decode,
    genotype_of,
    most_probable_halving,
    path_log_probability,
)
from searchkit.spaces.fasterseg.genotype import FasterSegGenotype
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
REFERENCE = Size(1024, 2048)
TABLE = "gtx1080ti-tensorrt5"
SKIP, ZOOMED = (OPERATORS.index(name) for name in ("skip", "zoomed_conv"))


def released(name: str, branches: tuple[int, ...] = (1, 2)) -> FasterSegGenotype:
    """A network as the authors decode it."""
    of_teacher = {"teacher": True, "widths": (12,), "stem_width": 12, "head_width": 12}
    more = of_teacher if name == "teacher" else {}
    parameters = ArchitectureParameters.from_release(PUBLISHED[name])
    return genotype_of(parameters, branches, provenance=Provenance(name="any"), rule="release", **more)


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


def ends(parameters: ArchitectureParameters, last: int, **more: Any) -> list[tuple[int, str]]:
    """Layer and operator of what the release leaves of a branch."""
    return [(layer.layer, layer.operator) for layer in decode(parameters, last=last, rule="release", **more)]


def test_release_halves_to_16_one_layer_early(flat):
    parameters = flat(8)
    parameters.beta[0][3] = 1, 0
    assert [layer.layer for layer in decode(parameters, last=1, rule="release") if layer.stride == 2] == [3]
    assert most_probable_halving(parameters, 1) == (6,)
    parameters.beta[0][3] = 9, 0
    assert path_log_probability(parameters, (4,)) > path_log_probability(parameters, (3,))


def test_release_never_halves_to_16_at_the_margins(flat):
    parameters = flat(8)
    parameters.beta[0][[0, -1]] = 5, 0
    parameters.beta[0][2] = 1, 0
    assert [layer.layer for layer in decode(parameters, last=1, rule="release") if layer.stride == 2] == [2]


def test_release_leaves_two_layers_between_the_strides(flat):
    parameters = flat(10)
    parameters.beta[0][3] = 5, 0
    parameters.beta[1][[3, 4, 6]] = 9, 0  # too near, too near, and the last one, which is never taken
    parameters.beta[1][5] = 1, 0
    strided = [layer.layer for layer in decode(parameters, last=2, rule="release") if layer.stride == 2]
    assert strided == [4, 7]


def test_release_flattens_beta_once_more_for_each_branch(drawn):
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


def test_release_keeps_round_a_third_of_the_layers(flat):
    parameters = flat(9)
    # All cells would skip, the later ones the more.
    parameters.operators[0][:, SKIP] = np.linspace(2, 4, 9)
    assert ends(parameters, 0) == [(0, "conv"), (1, "conv"), (2, "conv")]


def test_release_keeps_a_layer_behind_a_stride(flat):
    parameters = flat(9)
    parameters.operators[1][3:, SKIP] = 3, 2.5, 2.5, 4, 4
    parameters.beta[0][3] = 5, 0
    # Layers 4 to 8 would all skip; of the two least probable the later one stays.
    assert ends(parameters, 1) == [(0, "conv"), (1, "conv"), (2, "conv"), (3, "conv"), (6, "conv")]
    parameters.operators[1][4, ZOOMED] = 2
    assert ends(parameters, 1)[4:] == [(5, "zoomed_conv")]


def test_release_counts_the_layer_that_it_keeps_as_removed(flat):
    """Six skips, of which four may go for five layers to stay. The one kept behind the stride is among the four."""
    parameters = flat(9)
    parameters.operators[0][:2, SKIP] = 2
    parameters.operators[1][4:, SKIP] = 3
    parameters.beta[0][4] = 5, 0
    assert [layer for layer, _ in ends(parameters, 1)] == [0, 1, 2, 3, 4, 8]


def test_release_rules_out_for_a_branch_what_it_ruled_out_before(flat):
    parameters = flat(9)
    parameters.operators[0][:, SKIP] = 1.5, 1.4, 4, 4, 4, 4, 4, 4, 1.3
    parameters.beta[0][5] = 5, 0
    # To 1/8 three layers must stay, the least probable skips; to 1/16 five, of which two are behind the stride.
    assert [layer for layer, _ in ends(parameters, 0)] == [0, 1, 8]
    assert {0, 1} < {layer for layer, _ in ends(parameters, 1)}
    parameters.operators[0][2:8, SKIP] = 0
    assert [layer for layer, _ in ends(parameters, 0)] == [2, 3, 4, 5, 6, 7]
    assert [layer for layer, _ in ends(parameters, 1)] == [2, 3, 4, 5, 6, 7, 8]


def test_release_has_no_strided_skip(flat):
    parameters = flat(8)
    parameters.beta[0][3] = 5, 0
    parameters.operators[0][3] = 3, 1, 2, 0, 0
    assert (3, "zoomed_conv") in ends(parameters, 1)


def test_release_gives_the_last_layer_that_stays_the_heads_width(flat):
    parameters = flat(6)
    parameters.operators[0][5, SKIP] = 5
    found = decode(parameters, last=0, rule="release")
    assert [(layer.layer, layer.width) for layer in found] == [(0, 0), (1, 0), (2, 0), (3, 0), (4, None)]


def test_release_changes_nothing_of_its_arguments(drawn):
    parameters = drawn(9, 0)
    before = [rows.copy() for rows in (*parameters.operators, *parameters.beta, *parameters.widths)]
    decode(parameters, last=2, teacher=True, rule="release")
    after = (*parameters.operators, *parameters.beta, *parameters.widths)
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_release_needs_five_layers(flat):
    with pytest.raises(UsageError, match="5 or more"):
        decode(flat(4), last=1, rule="release")
    for last in range(3):
        assert decode(flat(5), last=last, rule="release")
