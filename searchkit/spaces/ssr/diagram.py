"""How a network of the SSR space is drawn: a box a layer, the head's parts one by one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from ...diagram import Arrow, Box, Diagram
from .genotype import AggregationHead, SSRGenotype, SSRLayer

_RATES = (4, 8)


def diagram_of(genotype: SSRGenotype) -> Diagram:
    """The picture of one network."""
    boxes = [
        Box("image", 0, 1, ("image", "3 channels"), "image"),
        Box("stem", 1, 2, ("downsampler", f"3 to {genotype.stem}"), "downsampler"),
    ]
    before, ends = genotype.stem, []
    for rate, stage in zip(_RATES, genotype.stages, strict=True):
        boxes.append(
            Box(f"down{rate}", len(boxes), rate, ("downsampler", f"{before} to {stage.channels}"), "downsampler")
        )
        for index, layer in enumerate(stage.layers):
            boxes.append(_layer(f"{rate}.{index}", len(boxes), rate, layer))
        before = stage.layers[-1].out if stage.layers else stage.channels
        ends.append(boxes[-1].name)
    arrows = [Arrow(one.name, other.name) for one, other in pairwise(boxes)]
    head, more = _head(genotype, len(boxes), ends)
    return Diagram((*boxes, *head), (*arrows, *more), tuple(_notes(genotype)))


def _notes(genotype: SSRGenotype) -> Iterator[str]:
    layers = [layer for stage in genotype.stages for layer in stage.layers]
    if layers:
        yield (
            f"A layer: 3x1 convolution to 'mid' channels{', BatchNorm' if genotype.mid_norm else ''}, ReLU, 1x3 "
            "convolution to 'out' channels, BatchNorm, added to its input, ReLU; both convolutions are dilated."
        )
    if any(layer.spatial == 2 for layer in layers):
        yield f"Pooled: {genotype.pool} pooling 2x2 before the convolutions, resized back behind them."


def _layer(name: str, column: int, rate: int, layer: SSRLayer) -> Box:
    pooled = ", pooled" if layer.spatial == 2 else ""
    lines = (f"dilation {layer.dilation}{pooled}", f"mid {layer.mid}", f"out {layer.out}")
    return Box(name, column, rate, lines, f"dilation {layer.dilation}")


def _head(genotype: SSRGenotype, column: int, ends: list[str]) -> tuple[list[Box], list[Arrow]]:
    head, classes = genotype.head, f"{genotype.classes} classes"
    if not isinstance(head, AggregationHead):
        return [Box("classifier", column, 8, ("1x1 conv", classes), "head")], [Arrow(ends[1], "classifier")]
    bins = ", ".join(map(str, head.bins))
    boxes = [
        Box("low", column, 4, ("concat, 3x3 conv", f"{head.low} channels"), "head"),
        Box("pyramid", column, 8, ("pyramid pooling", bins, f"{head.context} channels"), "head"),
        Box("fuse", column + 1, 4, ("concat, 1x1 conv", f"{head.fuse} channels"), "head"),
        Box("classifier", column + 2, 4, ("1x1 conv", classes), "head"),
        Box("logits", column + 3, 1, ("resize", classes), "head"),
    ]
    arrows = [
        Arrow("stem", "low"),
        Arrow(ends[0], "low"),
        Arrow(ends[1], "pyramid"),
        Arrow("low", "fuse"),
        Arrow("pyramid", "fuse"),
        Arrow("fuse", "classifier"),
        Arrow("classifier", "logits"),
    ]
    return boxes, arrows
