"""How an LGCNet network is drawn: a column a cell, a row a resolution, then the fusion cell."""

from __future__ import annotations

from ...diagram import Arrow, Box, Diagram
from ...sizes import Size
from .genotype import LGCNetCell, LGCNetGenotype
from .wiring import (
    EDGE_NAMES,
    FUSION_EDGES,
    FUSION_INPUTS,
    FUSION_NODES,
    FUSION_OUTPUTS,
    INTO,
    SEARCHED,
    UPS,
    fused_cells,
    maps_of,
)

_SHORT = {
    "max_pool": "pool",
    "skip": "skip",
    "conv": "conv",
    "sep_conv": "sep",
    "sep_conv_d2": "sep d2",
    "sep_conv_d4": "sep d4",
    "sep_conv_d8": "sep d8",
}
# Columns of the nodes of the fusion cell, behind its inputs.
_DEPTH = {"c1": 1, "b1": 1, "c2": 2, "c3": 3, "b2": 4, "a1": 5}


def diagram(genotype: LGCNetGenotype, size: Size) -> Diagram:
    """Boxes of the stem, of each cell that is there with its nodes' operators, of the fusion cell, of the head."""
    maps = maps_of(size)
    first, second = genotype.stem, 2 * genotype.stem
    boxes = [
        Box("stem 1", 0, 2, ("conv 3x3", f"{first} ch", str(maps[2])), "stem"),
        Box("stem 2", 1, 4, ("conv 3x3", f"{second} ch", str(maps[4])), "stem"),
        Box("stem 3", 2, 4, ("conv 3x3", f"{2 * second} ch", str(maps[4])), "stem"),
    ]
    arrows = [Arrow("stem 1", "stem 2"), Arrow("stem 2", "stem 3")]
    names = {-2: "stem 2", -1: "stem 3"} | {index: f"cell {index}" for index in range(len(genotype.cells))}
    for place, cell, alive in zip(genotype.places(), genotype.cells, genotype.live_cells(), strict=True):
        if not alive:
            continue
        kind = "reduction cell" if place.stride == 2 else "cell"
        name = names[place.index]
        lines = (f"{place.index}: {2 * place.channels} ch", *_nodes(cell))
        boxes.append(Box(name, 3 + place.index, place.rate, lines, kind))
        arrows += [
            Arrow(names[source.source], name) for source, read in zip(place.inputs, cell.reads, strict=True) if read
        ]
    _fusion(genotype, boxes, arrows, [names[i] for i in fused_cells(len(genotype.cells), genotype.reductions)])
    gone = [str(index) for index, alive in enumerate(genotype.live_cells()) if not alive]
    notes = ["x1 and x2 are the nodes of a cell; 1 and 2 its inputs: the cell before, and the one before that."]
    if gone:
        notes.append(f"Cells that nothing reads, left out: {', '.join(gone)}.")
    return Diagram(tuple(boxes), tuple(arrows), tuple(notes))


def _nodes(cell: LGCNetCell) -> tuple[str, str]:
    """Such as `x1: conv 1 + skip 2`."""
    found = []
    for node, edges in zip(("x1", "x2"), INTO, strict=True):
        terms = [
            f"{_SHORT[cell.edges[edge]]} {EDGE_NAMES[edge].split('-')[0].removeprefix('i')}"
            for edge in edges
            if cell.edges[edge] != "none"
        ]
        found.append(f"{node}: {' + '.join(terms)}")
    return found[0], found[1]


def _fusion(genotype: LGCNetGenotype, boxes: list[Box], arrows: list[Arrow], read: list[str]) -> None:
    start, wide = 3 + len(genotype.cells), genotype.fusion_channels
    operators: dict[tuple[str, str], str] = dict(zip(SEARCHED, genotype.fusion, strict=True))
    operators |= dict(zip(UPS, genotype.fusion_up, strict=True))
    for node, rate in FUSION_NODES.items():
        inputs = [edge for edge in FUSION_EDGES if edge.target == node]
        channels = f"{node}: {wide * max(1, len(inputs))} ch"
        boxes.append(
            Box(node, start + _DEPTH.get(node, 0), rate, (channels,) if inputs else ("conv 1x1", channels), "fusion")
        )
        arrows += [Arrow(*edge, label=operators[edge].replace("_", " ")) for edge in inputs]
    arrows += [Arrow(source, node) for source, node in zip(read, FUSION_INPUTS, strict=True)]
    head = Box("head", start + max(_DEPTH.values()) + 1, 1, ("sum, conv 1x1", f"{genotype.classes} classes"), "head")
    boxes.append(head)
    arrows += [Arrow(node, "head") for node in FUSION_OUTPUTS]
