"""How a DCNAS network is drawn: layers from left to right, rates from top to bottom."""

from __future__ import annotations

from itertools import pairwise

from ...diagram import Arrow, Box, Diagram
from ...sizes import Size
from .genotype import RATES, DCNASGenotype, Place, Rate, map_size


def diagram(genotype: DCNASGenotype, size: Size) -> Diagram:
    """The stem's pyramid, the fusion modules with what they read, and the head, at an image of `size`."""

    def shape(rate: Rate) -> str:
        return f"{genotype.width(rate)} x {map_size(size, rate)}"

    stem = genotype.stem_rates()
    boxes = [Box(_name(Place(0, rate)), 0, rate, ("conv 3x3, stride 2", shape(rate)), "stem") for rate in stem]
    arrows = [Arrow(_name(Place(0, one)), _name(Place(0, other))) for one, other in pairwise(stem)]
    for module in genotype.modules:
        block = f"MBConv {module.kernel}x{module.kernel}"
        lines = (block, f"expansion {module.expansion}", shape(module.rate))
        boxes.append(Box(_name(module.place), module.layer, module.rate, lines, f"kernel {module.kernel}"))
        arrows += [Arrow(_name(source), _name(module.place)) for source in module.sources]
    last = genotype.layers
    boxes.append(Box("head", last + 1, RATES[0], ("head", f"{genotype.classes} classes"), "head"))
    arrows += [Arrow(_name(Place(last, rate)), "head") for rate in RATES]
    notes = (
        "A module reads the mean of its inputs, each brought to its rate and width by a 1x1 convolution.",
        f"{len(genotype.modules)} modules of the {len(RATES) * last} that these layers could have; modules that "
        "nothing reads are left out.",
    )
    return Diagram(tuple(boxes), tuple(arrows), notes)


def _name(place: Place) -> str:
    return f"stem 1/{place.rate}" if place.layer == 0 else f"{place.layer} 1/{place.rate}"
