"""LGCNet's genotype and discrete network."""

import json
from random import Random

import pytest
import torch
import torch.nn.functional as F

from searchkit import genotype
from searchkit.errors import InputFileError
from searchkit.footprint import on_meta
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.lgcnet.genotype import LGCNetGenotype, shapes_of
from searchkit.spaces.lgcnet.network import Deconvolution, Resize, cell_operator, fusion_operator
from searchkit.spaces.lgcnet.operators import CELL_OPERATORS, FUSION_OPERATORS, PRESENT, UP_OPERATORS
from searchkit.spaces.lgcnet.sampling import sample
from searchkit.spaces.lgcnet.search_space import LGCNetSearchSpace
from searchkit.spaces.lgcnet.wiring import CELL_EDGES, FUSION_EDGES, FUSION_NODES, SEARCHED, UPS, fused_cells, places

SIZES = [Size(64, 128), Size(33, 47), Size(97, 301)]


def tree(cells, **changes):
    """A small genotype as plain values; each cell is its five operators."""
    return {
        "schema": 1,
        "space": "lgcnet",
        "classes": 5,
        "stem": 2,
        "reductions": [1, 2],
        "cells": [{"x1": cell[:2], "x2": cell[2:]} for cell in cells],
        "fusion_channels": 4,
        "fusion": ["conv1x1"] * 9,
        "fusion_up": ["resize"] * 4,
    } | changes


def parsed(found):
    return genotype.parse(json.dumps(found).encode(), where="test.json")


PLAIN = ["conv", "skip", "max_pool", "none", "sep_conv"]


def test_counts_are_the_published_ones():
    assert len(CELL_OPERATORS) == 8
    assert len(FUSION_OPERATORS) == 10
    assert len(CELL_EDGES) == 5
    assert (len(FUSION_NODES), len(FUSION_EDGES)) == (9, 13)
    assert (len(SEARCHED), len(UPS)) == (9, 4)
    space = LGCNetSearchSpace()
    assert fused_cells(space.length, space.reductions) == (0, 7, 13)
    assert [place.rate for place in space.places] == [4] + [8] * 7 + [16] * 6
    assert [place.index for place in space.places if place.stride == 2] == [1, 8]
    assert [place.channels for place in space.places] == [32] + [64] * 7 + [128] * 6
    assert {name: table.alive.shape for name, table in space.tables().items()} == {
        "cell": (70, 8),
        "fusion": (9, 10),
        "fusion_up": (4, 2),
    }


def test_the_fusion_graph_is_connected_and_goes_up_by_two_alone():
    assert {FUSION_NODES[s] // FUSION_NODES[t] for s, t in UPS} == {2}
    assert {FUSION_NODES[s] // FUSION_NODES[t] for s, t in SEARCHED} == {1}
    seen = {"a0", "b0", "c0"}
    for node in FUSION_NODES:
        if node not in seen:
            assert {edge.source for edge in FUSION_EDGES if edge.target == node} <= seen, node
            seen.add(node)
    assert {edge.source for edge in FUSION_EDGES} | {"a1"} == set(FUSION_NODES)


def test_bound_of_the_parameters():
    """Cells of 32, 64 and 128 channels bound at 6.2 M, and of 8, 16 and 32 at 0.39 M, so the stem doubles."""
    space = LGCNetSearchSpace()
    assert space.max_params(19) == 6_612_427
    for stem, least, most in ((8, 6.1e6, 6.3e6), (2, 0.38e6, 0.40e6)):
        stages = LGCNetSearchSpace(stem=stem).widest(19).stage_costs(Size(64, 64))
        assert least < sum(stage.params for stage in stages if stage.name.startswith("cells")) < most
    assert all(sample(Random(seed)).cost(Size(64, 64)).params < 6_612_427 for seed in range(20))


@pytest.mark.parametrize("size", SIZES)
def test_costs_are_those_of_the_network(size):
    for seed in range(4):
        found = sample(Random(seed))
        with torch.device("meta"):
            network = SPACES.load("lgcnet").build(found).eval()
        cost, measured = found.cost(size), on_meta(network, size)
        assert (cost.params, cost.conv_macs) == (measured.params, measured.conv_macs)
        assert 0 < cost.activation_bytes <= measured.activation_bytes


def test_stages_are_those_of_the_modules(count_parts):
    found = parsed(tree([PLAIN] * 4, fusion_up=["deconvolution", "resize"] * 2))
    with torch.device("meta"):
        network = SPACES.load("lgcnet").build(found).eval()
    parts = count_parts(network, Size(64, 96))
    wanted = {
        "stem": ["stem"],
        "cells 1/4": ["cells.0"],
        "cells 1/8": ["cells.1"],
        "cells 1/16": ["cells.2", "cells.3"],
        "fusion": ["fusion"],
        "head": ["classifier"],
    }
    stages = {stage.name: stage for stage in found.stage_costs(Size(64, 96))}
    assert {name: stage.params for name, stage in stages.items()} == {n: parts.params(*p) for n, p in wanted.items()}
    for name in wanted.keys() - {"fusion"}:
        assert stages[name].conv_macs == parts.macs(*wanted[name])


@pytest.mark.parametrize("size", SIZES)
def test_logits_are_as_large_as_the_image(size):
    network = SPACES.load("lgcnet").build(parsed(tree([PLAIN] * 4))).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 3, *size)).shape == (1, 5, *size)


def unit(x, convs, norm, *, act=True):
    """Convolutions (weight, stride, padding, dilation, groups), then the running statistics' BatchNorm."""
    for weight, options in convs:
        x = F.conv2d(x, weight, **options)
    x = (x - norm.running_mean.view(1, -1, 1, 1)) / (norm.running_var.view(1, -1, 1, 1) + 1e-5).sqrt()
    x = x * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    return x.relu() if act else x


def by_hand(name, module, x, stride=1):
    """What an operator makes of a map, from its weights."""
    if name == "max_pool":
        return F.max_pool2d(x, 3, stride, 1)
    if name == "skip" and stride == 1:
        return x
    if name in ("skip", "conv1x1"):
        return unit(x, [(module[0].weight, {"stride": stride})], module[1])
    if name in ("conv", "conv3x3"):
        return unit(x, [(module[0].weight, {"stride": stride, "padding": 1})], module[1])
    if name.startswith("pool"):
        bins = int(name[4:])
        pooled = unit(F.adaptive_avg_pool2d(x, bins), [(module.reduce[0].weight, {})], module.reduce[1])
        return F.interpolate(pooled, size=x.shape[-2:], mode="bilinear", align_corners=False)
    dilation = int(name[10:] or 1)
    depthwise = {"stride": stride, "padding": dilation, "dilation": dilation, "groups": x.shape[1]}
    return unit(x, [(module[0].weight, depthwise), (module[1].weight, {})], module[2])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", PRESENT)
def test_operators_of_a_cell_by_hand(trained, name, stride):
    module, x = trained(cell_operator(name, 6, stride)), torch.randn(2, 6, 11, 18, dtype=torch.float64)
    out = module(x)
    torch.testing.assert_close(out, by_hand(name, module, x, stride))
    assert out.shape == (2, 6, *((11, 18) if stride == 1 else (6, 9)))


@pytest.mark.parametrize("name", FUSION_OPERATORS)
def test_operators_of_the_fusion_cell_by_hand(trained, name):
    module, x = trained(fusion_operator(name, 6, 4)), torch.randn(2, 6, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(module(x), by_hand(name, module, x))


@pytest.mark.parametrize("size", [(6, 10), (5, 9), (5, 10)])
def test_up_edges_by_hand(trained, size):
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    module = trained(Deconvolution(6, 4))
    expected = torch.zeros(2, 4, 6, 10, dtype=torch.float64)
    for row in range(6):
        for column in range(10):
            weight = module.conv.weight[:, :, row % 2, column % 2]
            expected[:, :, row, column] = x[:, :, row // 2, column // 2] @ weight
    expected = unit(expected, [], module.norm)[..., : size[0], : size[1]]
    torch.testing.assert_close(module(x, size), expected)
    module = trained(Resize(6, 4))
    narrow = unit(x, [(module.reduce[0].weight, {})], module.reduce[1])
    resized = F.interpolate(narrow, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(module(x, size), resized)
    assert not list(Resize(6, 6).parameters())


def test_a_network_is_its_parts(trained):
    """Eq. 2 and the fusion cell, written out for one network with a cell that is absent and an input that is unread."""
    narrow = ["sep_conv", "none", "none", "none", "skip"]
    found = parsed(tree([PLAIN, PLAIN, narrow, ["none"] * 5, ["none", "conv", "none", "skip", "max_pool"]]))
    assert found.live_cells() == [True, True, True, False, True]
    net = trained(SPACES.load("lgcnet").build(found))
    image = torch.randn(1, 3, 37, 70, dtype=torch.float64)

    def conv_unit(module, x, stride=1):
        return by_hand("conv3x3" if module[0].weight.shape[2] == 3 else "conv1x1", module, x, stride)

    first = conv_unit(net.stem[0], image, 2)
    second = conv_unit(net.stem[1], first, 2)
    third = conv_unit(net.stem[2], second)

    def cell(index, i1, i2, stride, strides=(1, 1)):
        module, edges = net.cells[str(index)], dict(zip(CELL_EDGES, found.cells[index].edges, strict=True))
        nodes = {"x1": 0, "x2": 0}
        for which, x in enumerate((i1, i2)):
            if x is not None:
                nodes[f"i{which + 1}"] = conv_unit(module.inputs[f"i{which + 1}"], x, strides[which])
        for (source, target), name in edges.items():
            if name != "none":
                operator = module.edges[f"{source}_{target}"]
                step = 1 if source == "x1" else stride
                nodes[target] = nodes[target] + by_hand(name, operator, nodes[source], step)
        assert len(module.edges) == sum(name != "none" for name in edges.values())
        return torch.cat([nodes["x1"], nodes["x2"]], 1)

    zero = cell(0, third, second, 1)
    one = cell(1, zero, third, 2)
    two = cell(2, one, None, 2, (1, 2))
    four = cell(4, None, two, 1)
    nodes = {name: conv_unit(net.fusion.inputs[name], x) for name, x in (("a0", zero), ("b0", one), ("c0", four))}

    def edge(source, target, like=None):
        module = net.fusion.edges[f"{source}_{target}"]
        if like is None:
            return conv_unit(module, nodes[source])
        x = nodes[source]
        if x.shape[1] != 4:
            x = conv_unit(module.reduce, x)
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)

    fine, middle = nodes["a0"], nodes["b0"]
    nodes["c1"] = edge("c0", "c1")
    nodes["b1"] = edge("b0", "b1")
    nodes["c2"] = torch.cat([edge("c1", "c2", middle), edge("b1", "c2")], 1)
    nodes["c3"] = torch.cat([edge("c2", "c3", fine), edge("b1", "c3", fine), edge("a0", "c3")], 1)
    nodes["b2"] = torch.cat([edge("b1", "b2", fine), edge("c3", "b2"), edge("a0", "b2")], 1)
    nodes["a1"] = torch.cat([edge("c3", "a1"), edge("b2", "a1"), edge("a0", "a1")], 1)
    logits = F.conv2d(nodes["a1"] + nodes["b2"] + nodes["c3"], net.classifier.weight, net.classifier.bias)
    logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(image), logits)


def test_gradients_reach_every_parameter():
    net = SPACES.load("lgcnet").build(parsed(tree([PLAIN] * 4, fusion_up=["deconvolution"] * 4)))
    net(torch.randn(2, 3, 64, 96)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


DEAD = [PLAIN, PLAIN, PLAIN, PLAIN, ["none", "conv", "none", "skip", "conv"]]


@pytest.mark.parametrize(
    ("found", "where", "words"),
    [
        (tree(DEAD), "cells[3]", "nothing reads it"),
        (tree([PLAIN, PLAIN, PLAIN, ["none"] * 5]), "cells[3].x1", "reads nothing"),
        (tree([PLAIN, ["none", "none", "conv", "none", "none"], PLAIN, PLAIN]), "cells[1].x1", "reads nothing"),
        (tree([PLAIN, ["conv", "none", "none", "none", "none"], PLAIN, PLAIN]), "cells[1].x2", "reads nothing"),
        (tree([PLAIN] * 4, reductions=[2, 2]), "reductions", "ascending order"),
        (tree([PLAIN] * 4, reductions=[2, 1]), "reductions", "ascending order"),
        (tree([PLAIN] * 4, reductions=[1, 4]), "reductions", "at most 3"),
        (tree([PLAIN] * 4, reductions=[0, 2]), "reductions", ""),
        (tree([PLAIN] * 2), "cells", ""),
        (tree([PLAIN] * 65), "cells", ""),
        (tree([PLAIN] * 4, stem=0), "stem", ""),
        (tree([PLAIN] * 4, stem=1025), "stem", ""),
        (tree([PLAIN] * 4, fusion=["conv1x1"] * 8), "fusion", ""),
        (tree([PLAIN] * 4, fusion=["conv1x1"] * 8 + ["none"]), "fusion", ""),
        (tree([PLAIN] * 4, fusion_up=["resize"] * 5), "fusion_up", ""),
        (tree([PLAIN, PLAIN, PLAIN, ["conv", "skip", "skip", "skip", "x9"]]), "cells[3].x2", ""),
        (tree([PLAIN, PLAIN, PLAIN, ["conv", "skip", "skip", "skip"]]), "cells[3].x2", ""),
    ],
)
def test_what_is_no_network_is_refused(found, where, words):
    with pytest.raises(InputFileError) as caught:
        parsed(found)
    assert where in str(caught.value)
    assert words in str(caught.value)


def test_a_cell_that_nothing_reads_has_one_spelling():
    found = parsed(tree([*DEAD[:3], ["none"] * 5, DEAD[4]]))
    assert found.live_cells() == [True, True, True, False, True]
    names = [name for name, _ in SPACES.load("lgcnet").build(found).named_parameters()]
    assert not any(name.startswith("cells.3.") for name in names)
    assert not any(name.startswith("cells.4.inputs.i1") for name in names)


def test_operator_keys_are_the_parts_of_the_cost():
    found, size = sample(Random(1)), Size(64, 128)
    operators = [shape.operator() for _, shape in shapes_of(found, size)]
    cost = found.cost(size)
    assert sum(operator.macs for operator in operators) == cost.conv_macs
    assert sum(operator.params for operator in operators) == cost.params
    assert list(SPACES.load("lgcnet").operator_keys(found, size)) == [operator.key for operator in operators]


@pytest.mark.parametrize("seed", range(3))
def test_a_drawing_has_every_cell_and_edge(seed):
    found = sample(Random(seed))
    drawn = SPACES.load("lgcnet").diagram(found, Size(512, 1024))
    names = [box.name for box in drawn.boxes]
    assert len(set(names)) == len(names)
    assert {f"cell {index}" for index, alive in enumerate(found.live_cells()) if alive} < set(names)
    assert set(FUSION_NODES) < set(names)
    assert {name for arrow in drawn.arrows for name in (arrow.source, arrow.target)} <= set(names)
    assert {tuple(edge) for edge in FUSION_EDGES} < {(arrow.source, arrow.target) for arrow in drawn.arrows}
    assert all(1 <= len(box.lines) <= 3 for box in drawn.boxes)
    rates = {box.name: box.rate for box in drawn.boxes}
    assert [rates[f"cell {i}"] for i in (0, 7, 13)] == [4, 8, 16]


def test_a_drawing_says_what_is_left_out():
    drawn = SPACES.load("lgcnet").diagram(parsed(tree([*DEAD[:3], ["none"] * 5, DEAD[4]])), Size(64, 128))
    assert "cell 3" not in [box.name for box in drawn.boxes]
    assert any("3" in note and "left out" in note for note in drawn.notes)


def test_neighbouring_reductions_have_strided_inputs():
    strides = [[source.stride for source in place.inputs] for place in places(5, (1, 2), 2)]
    assert strides == [[1, 1], [1, 1], [1, 2], [1, 2], [1, 1]]


def test_up_operators_have_the_papers_names():
    assert UP_OPERATORS == ("deconvolution", "resize")
    assert isinstance(sample(Random(0)), LGCNetGenotype)
