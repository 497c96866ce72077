"""DCNAS genotypes: what is refused and in which words; networks against a reference that is written out here."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch
import torch.nn.functional as F

from deploy.deployable import Deployable
from deploy.verify import verify
from searchkit import genotype
from searchkit.diagram import Diagram
from searchkit.errors import InputFileError
from searchkit.networks import from_genotype
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.dcnas.genotype import RATES, Place, arranged, reaching, sample

SIZE = Size(70, 101)
BLOCK = {"kernel": 3, "expansion": 3}


def module(layer, rate, *inputs, **more):
    return {"layer": layer, "rate": rate, "inputs": [list(source) for source in inputs], **BLOCK, **more}


def last(layer, *inputs):
    return [module(layer, rate, *(inputs or [(0, 4)])) for rate in RATES]


def tree(modules, **fields):
    found = {"schema": 1, "space": "dcnas", "classes": 5, "stem": 4, "channels": 4, "head": 6, "modules": modules}
    return found | {"provenance": {"name": "test"}} | fields


def read(modules, **fields):
    return genotype.parse(json.dumps(tree(modules, **fields)).encode(), where="test.json")


SMALL = [
    module(1, 8, (0, 4), (0, 8), (0, 32), kernel=5),
    module(2, 4, (1, 8), expansion=6),
    module(2, 8, (0, 8), (1, 8)),
    module(2, 16, (0, 4), (0, 16), (1, 8), kernel=7),
    module(2, 32, (0, 4)),
]


@pytest.mark.parametrize(
    ("modules", "problem"),
    [
        (
            [module(1, 8, (1, 4)), *last(2, (1, 8))],
            "modules[0].inputs[0]: module 1@1/8 reads 1@1/4, which is in no earl",
        ),
        ([module(1, 8, (2, 4)), *last(2, (1, 8))], "a cycle: got layer 2, allowed 0 to 0"),
        ([module(1, 8, (0, 4)), *last(2, (1, 8), (1, 16))], "reads 1@1/16, and there is no such module"),
        ([module(1, 4, (0, 4)), *last(2)], "modules[0]: nothing reads module 1@1/4"),
        ([*last(1)[:3], module(2, 4, (1, 4))], "there is no module 2@1/8 or 2@1/16 or 2@1/32"),
        (last(2), "there is no module in layer 1; equal networks must have one spelling: got 2, allowed 1"),
        ([*last(1)[::-1]], "modules[1]: module 1@1/16 stands behind 1@1/32"),
        ([last(1)[0], *last(1)], "modules[1]: module 1@1/4 stands behind 1@1/4"),
        (last(1, (0, 8), (0, 4)), "inputs are sorted by layer and rate, each once: got 0@1/4 behind 0@1/8"),
        (last(1, (0, 8), (0, 8)), "inputs are sorted by layer and rate, each once: got 0@1/8 behind 0@1/8"),
        ([module(1, 4), *last(1)[1:]], "modules[0].inputs"),
        (
            [module(1, 4, (0, 2)), *last(1)[1:]],
            "modules[0].inputs[0][1]: wrong value, the first of 3 problems (got 2; allowed: 4, 8",
        ),
        ([module(1, 4, (0, 4, 4)), *last(1)[1:]], "modules[0].inputs[0]"),
        (
            [module(1, 4, (0, 4), kernel=4), *last(1)[1:]],
            "modules[0].kernel: wrong value, the first of 2 problems (got 4; allowed: 3, 5 or 7)",
        ),
        ([module(1, 4, (0, 4), expansion=3.0), *last(1)[1:]], "modules[0].expansion"),
        (
            [module(33, 4, (0, 4))] * 4,
            "modules[0].layer: wrong value, the first of 5 problems (got 33; allowed: an integer fr",
        ),
        (last(1)[:3], "modules: wrong value (got 3 items; allowed: an array of 4 to 128 items)"),
    ],
)
def test_graphs_that_are_none_are_refused_by_name(modules, problem):
    with pytest.raises(InputFileError) as caught:
        read(modules)
    assert caught.value.exit_code == 3
    assert problem in str(caught.value).replace("\n", " ")


def test_what_is_written_is_what_was_read():
    found = read(SMALL)
    assert genotype.parse(found.to_json().encode(), where="again") == found
    assert found.layers == 2
    assert found.stem_rates() == RATES
    assert read(last(1)).stem_rates() == (4,)


def test_arranged_leaves_out_what_nothing_reads_and_numbers_the_rest():
    modules = {m.place: m for m in read(SMALL).modules}
    lone = modules[Place(1, 8)].model_copy(update={"layer": 2, "rate": 32})
    moved = {place: m.model_copy(update={"layer": 3}) for place, m in modules.items() if place.layer == 2}
    graph = {Place(1, 8): modules[Place(1, 8)], Place(2, 32): lone} | {m.place: m for m in moved.values()}
    assert reaching({place: m.sources for place, m in graph.items()}, 3) == set(graph) - {Place(2, 32)}
    assert arranged(graph, 3) == read(SMALL).modules


def halve(x):
    """Average of up to 3 x 3 pixels around every second one, pixel by pixel."""
    height, width = -(-x.shape[2] // 2), -(-x.shape[3] // 2)
    out = x.new_zeros(*x.shape[:2], height, width)
    for row in range(height):
        for column in range(width):
            around = x[:, :, max(0, 2 * row - 1) : 2 * row + 2, max(0, 2 * column - 1) : 2 * column + 2]
            out[:, :, row, column] = around.mean((2, 3))
    return out


def block(layer, x):
    """MobileNetV3's block, out of its convolutions and norms."""
    y = x
    for part in (layer.expand, layer.depthwise):
        y = part[1](part[0](y))
        y = y * (y + 3).clamp(0, 6) / 6
    return x + layer.project[1](layer.project[0](y))


def reference(found, net, image):
    """The network as its genotype reads, one connection after the other; `net` lends its convolutions and norms."""
    maps, x = {}, image
    for rate in found.stem_rates():
        x = maps[0, rate] = net.stem[str(rate)](x)
    for one in found.modules:
        fusion, terms = net.fusion[f"{one.layer}_{one.rate}"], []
        size = tuple(-(-side // one.rate) for side in image.shape[2:])
        for layer, rate in one.inputs:
            term, at = maps[layer, rate], rate
            while at < one.rate:
                term, at = halve(term), 2 * at
            if rate != one.rate:
                conv, norm = fusion.align.convs[f"{layer}_{rate}"]
                term = F.interpolate(norm(conv(term)), size, mode="bilinear")
            terms.append(term)
        maps[one.layer, one.rate] = block(fusion.operator, sum(terms) / len(terms))
    quarter = tuple(-(-side // 4) for side in image.shape[2:])
    terms = []
    for rate in (4, 8, 16, 32):
        conv, norm = net.head.inputs[str(rate)]
        terms.append(F.interpolate(norm(conv(maps[found.layers, rate])), quarter, mode="bilinear"))
    logits = net.head.classifier(sum(terms).clamp(min=0))
    return F.interpolate(logits, image.shape[2:], mode="bilinear")


@pytest.mark.parametrize("found", [read(SMALL), read(last(1)), sample(Random(3))], ids=["small", "least", "sampled"])
def test_the_network_is_what_the_genotype_says(trained, found):
    torch.manual_seed(0)
    net = trained(SPACES.load("dcnas").build(found))
    image = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = net(image), reference(found, net, image)
    assert ours.shape == (2, found.classes, *SIZE)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * float(theirs.abs().max()))


@pytest.mark.parametrize("size", [Size(64, 128), SIZE, Size(32, 32)])
def test_stage_costs_are_those_of_the_modules(count_parts, size):
    found = read(SMALL)
    with torch.device("meta"):
        parts = count_parts(SPACES.load("dcnas").build(found).eval(), size)
    stages = {stage.name: stage for stage in found.stage_costs(size)}
    assert list(stages) == ["stem", "modules 1/4", "modules 1/8", "modules 1/16", "modules 1/32", "head"]
    owners = {"stem": ("stem",), "head": ("head",)} | {
        f"modules 1/{rate}": tuple(f"fusion.{m.layer}_{m.rate}" for m in found.modules if m.rate == rate)
        for rate in RATES
    }
    for name, owned in owners.items():
        assert (stages[name].params, stages[name].conv_macs) == (parts.params(*owned), parts.macs(*owned)), name


def test_the_largest_layer_by_hand():
    """At 64x128 the resize of 5 logits from 1/4 to the image; with more channels the widest block at 1/4."""
    assert read(last(1)).cost(Size(64, 128)).activation_bytes == 4 * 5 * (16 * 32 + 64 * 128)
    wide = read(last(1), channels=64)
    assert wide.cost(Size(64, 128)).activation_bytes == 4 * (192 + 192) * 16 * 32


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 7])
def test_random_networks_export_and_agree_at_odd_sizes(seed):
    model = Deployable(from_genotype(sample(Random(seed))), Size(65 - 2 * seed, 97), "raw")
    report = verify(model, model.onnx)
    assert report.passed, report.problems


def test_random_networks_train():
    """A step of training at the smallest size, where the map at 1/32 is one pixel: every parameter has a gradient."""
    for seed in range(3):
        net = SPACES.load("dcnas").build(sample(Random(seed)))
        F.cross_entropy(net(torch.randn(2, 3, 32, 32)), torch.zeros(2, 32, 32, dtype=torch.long)).backward()
        assert all(parameter.grad is not None for parameter in net.parameters())


def test_it_is_drawn():
    found = read(SMALL)
    drawn = SPACES.load("dcnas").diagram(found, SIZE)
    assert isinstance(drawn, Diagram)
    names = [box.name for box in drawn.boxes]
    assert len(names) == len(set(names)) == 4 + 5 + 1
    assert {(box.column, box.rate) for box in drawn.boxes if box.column == 2} == {(2, rate) for rate in RATES}
    # Three within the stem, ten connections, and the head's four.
    assert len(drawn.arrows) == 3 + 10 + 4
    assert {end for arrow in drawn.arrows for end in (arrow.source, arrow.target)} == set(names)
    (box,) = (box for box in drawn.boxes if box.name == "2 1/16")
    assert box.lines == ("MBConv 7x7", "expansion 3", "16 x 5x7")
