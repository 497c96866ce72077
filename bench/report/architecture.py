"""A genotype drawn: one row a layer from top to bottom, further right and another colour where the map is smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from searchkit.genotype import Genotype

from .chart import FONT_PX, drawing, line, polyline, rectangle, text
from .markup import Markup
from .style import RATES

_ROW_PX, _WIDTH, _GAP = 22, 344, 6
_OPERATORS = {"conv": "3x3", "conv_x2": "3x3 twice", "zoomed_conv": "zoomed 3x3", "zoomed_conv_x2": "zoomed twice"}


@dataclass(frozen=True)
class Layer:
    """One row: what it does, and the rate of its output (8: a map of 1/8 of the picture's height and width)."""

    rate: int
    words: str


@dataclass(frozen=True)
class Anatomy:
    """A network in rows: what all branches share, each branch's own, and what brings them together."""

    trunk: tuple[Layer, ...]
    branches: tuple[tuple[Layer, ...], ...]
    head: tuple[Layer, ...]


def anatomy_of(genotype: Genotype) -> Anatomy | None:
    """The rows of a genotype; None for a search space that this drawing does not know."""
    from searchkit.spaces.fasterseg.genotype import FasterSegGenotype
    from searchkit.spaces.ssr.genotype import SSRGenotype

    if isinstance(genotype, SSRGenotype):
        return _ssr(genotype)
    if isinstance(genotype, FasterSegGenotype):
        return _fasterseg(genotype)
    return None


def draw(anatomy: Anatomy, label: str) -> Markup:
    """The rows as an SVG element."""
    parts: list[Markup] = []
    y = 4.0
    for layer in anatomy.trunk:
        parts += _row(layer, 0, _WIDTH, y)
        y += _ROW_PX
    if anatomy.branches:
        parts += _branches(anatomy.branches, y)
        y += 2 * 14 + _ROW_PX * max(len(branch) for branch in anatomy.branches)
    for layer in anatomy.head:
        parts += _row(layer, 0, _WIDTH, y)
        y += _ROW_PX
    return drawing(parts, _WIDTH, y + 2, f"{label}: {_spoken(anatomy)}")


def _branches(branches: Sequence[Sequence[Layer]], top: float) -> list[Markup]:
    """Side by side, with lines from what comes before and to what comes behind."""
    wide = (_WIDTH - _GAP * (len(branches) - 1)) / len(branches)
    end = top + 28 + _ROW_PX * max(len(branch) for branch in branches)
    parts = []
    for number, branch in enumerate(branches):
        left = number * (wide + _GAP)
        middle = left + wide / 2
        parts.append(
            polyline([(_WIDTH / 2, top), (_WIDTH / 2, top + 5), (middle, top + 5), (middle, top + 14)], "arrow")
        )
        y = top + 14
        for layer in branch:
            parts += _row(layer, left, wide, y)
            y += _ROW_PX
        parts.append(line(middle, y, middle, end - 7, "arrow"))
        parts.append(polyline([(middle, end - 7), (_WIDTH / 2, end - 7), (_WIDTH / 2, end)], "arrow"))
    return parts


def _row(layer: Layer, left: float, wide: float, y: float) -> list[Markup]:
    # A smaller map is a narrower row: 1/2 has the whole width.
    indent = 6 * [*RATES].index(layer.rate) if layer.rate in RATES else 0
    ground = f"rate{layer.rate}" if layer.rate in RATES else "frame"
    box = rectangle(left + indent + 1, y, wide - 2 - indent, _ROW_PX - 3, ground, radius=3)
    place = "1" if layer.rate == 1 else f"1/{layer.rate}"
    return [box, text(left + indent + 6, y + FONT_PX + 2.5, f"{place}  {layer.words}", class_="small")]


def _spoken(anatomy: Anatomy) -> str:
    counts = [f"{len(branch)} layers in branch {number}" for number, branch in enumerate(anatomy.branches, start=1)]
    return ", ".join([f"{len(anatomy.trunk)} layers", *counts, f"{len(anatomy.head)} parts of the head"])


def _ssr(genotype: object) -> Anatomy:
    from searchkit.spaces.ssr.genotype import AggregationHead, SSRGenotype

    assert isinstance(genotype, SSRGenotype)
    rows = [Layer(2, f"downsample to {genotype.stem} channels")]
    for rate, stage in zip((4, 8), genotype.stages, strict=True):
        rows.append(Layer(rate, f"downsample to {stage.channels} channels"))
        for layer in stage.layers:
            dilation = f", dilation {layer.dilation}" if layer.dilation > 1 else ""
            halved = ", at half size" if layer.spatial == 2 else ""
            rows.append(Layer(rate, f"3x1 {layer.mid}, 1x3 {layer.out}{dilation}{halved}"))
    head = genotype.head
    if not isinstance(head, AggregationHead):
        return Anatomy(tuple(rows), (), (Layer(8, f"1x1 to {genotype.classes} classes"),))
    joined = (
        Layer(8, f"pooled to {', '.join(map(str, head.bins))} a side: context {head.context}"),
        Layer(4, f"3x3 of the maps of 1/2 and 1/4 above: {head.low}"),
        Layer(4, f"both together, 1x1: {head.fuse}"),
        Layer(4, f"1x1 to {genotype.classes} classes"),
        Layer(1, "resized to the picture"),
    )
    return Anatomy(tuple(rows), (), joined)


def _fasterseg(genotype: object) -> Anatomy:
    from searchkit.spaces.fasterseg.genotype import STEM_RATE, FasterSegGenotype, PlacedLayer, stem_channels

    assert isinstance(genotype, FasterSegGenotype)
    first, rest = stem_channels(genotype.stem_width)

    def row(placed: PlacedLayer) -> Layer:
        return Layer(placed.rate_out, f"{_OPERATORS.get(placed.layer.operator, 'skip')}, {placed.out_channels}")

    stem = (Layer(2, f"3x3, {first} channels"), Layer(4, f"3x3 twice, {rest}"), Layer(8, f"3x3 twice, {rest}"))
    branches = []
    for index in range(len(genotype.branches)):
        channels = genotype.branch_channels(index)
        rows = [row(placed) for placed in genotype.placed_branch(index)]
        rate = max(channels)
        while rate > STEM_RATE:
            rate //= 2
            rows.append(Layer(rate, f"up, with 1/{rate}: {genotype.head_width * rate}"))
        branches.append(tuple(rows))
    head = (
        Layer(8, f"{'both branches' if len(branches) > 1 else 'the branch'}, 1x1"),
        Layer(8, f"3x3, 1x1 to {genotype.classes} classes"),
        Layer(1, "resized to the picture"),
    )
    return Anatomy((*stem, *(row(placed) for placed in genotype.placed_shared())), tuple(branches), head)
