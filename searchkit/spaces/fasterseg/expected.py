"""What a relaxed FasterSeg network costs: its operators and how probable each is.

Choices are taken as independent. Which cells a network has depends on the paths behind them alone; the width and the
size of the map that comes into a cell on the paths, operators and widths before it; so every probability is a product.
Cells at the same rate have the same shapes and are added up.

What both branches of a network have is counted once where they pass the same cells. (Where they come to begin with
equal layers of different cells, the derived network shares these too, and costs less than its parts.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ...choices import Weights
from ...costs.expected import Part
from ...costs.shapes import Shape, ShapeGrid
from ...sizes import Size
from .decoding import OPERATORS, SKIP
from .operators import CellOperator, head_shapes, output_size, reduce_shape, refine_shape, stem_shapes
from .search_space import FINER, RATES, SAME, FasterSegSearchSpace

_STAGES = tuple(f"1/{rate}" for rate in RATES)


@dataclass(frozen=True, eq=False)
class Grids:
    """Operators of a space at an image size.

    Attributes:
        widths: all that a map may have: those of connections, of the stem and of the head.
        sizes: by rate, those that a map may have: one but for odd sides.
        follow: by rate, the index of a map's size at the next rate behind (operator of stride 2, size).
        same, down: by rate, operators of stride 1 and 2 by (operator but skips, size, width in, width out) and by
            (operator, size, width in, width out).
        reduce: by rate index 1 and 2 of the coarse map, which has the head's width, by its size.
        refine: by the same, by size and width of the fine map.
        stem, head: that always run.
    """

    widths: tuple[int, ...]
    sizes: tuple[tuple[Size, ...], ...]
    follow: tuple[tuple[tuple[int, ...], ...], ...]
    same: tuple[ShapeGrid, ...]
    down: tuple[ShapeGrid, ...]
    reduce: tuple[ShapeGrid, ...]
    refine: tuple[ShapeGrid, ...]
    stem: ShapeGrid
    head: ShapeGrid

    def all(self) -> list[ShapeGrid]:
        """Every grid."""
        return [self.stem, *self.same, *self.down, *self.reduce, *self.refine, self.head]


def _sizes(eighth: Size) -> tuple[list[list[Size]], list[list[list[int]]]]:
    """Sizes by rate, and where each goes by each operator of stride 2."""
    sizes, follow = [[eighth]], []
    for _ in range(2):
        made = [[output_size(CellOperator(size, 1, 2, operator, 2)) for size in sizes[-1]] for operator in OPERATORS]
        sizes.append(sorted({size for row in made for size in row}))
        follow.append([[sizes[-1].index(size) for size in row] for row in made])
    return sizes, follow


@lru_cache(maxsize=16)
def grids_of(space: FasterSegSearchSpace, classes: int, size: Size) -> Grids:
    """All grids of a space, for images of this size."""
    stem = stem_shapes(size, space.stem_width)
    eighth = output_size(stem[-1])
    sizes, follow = _sizes(eighth)
    widths = tuple(sorted({*space.widths, space.stem_width, space.head_width}))
    number, head = len(widths), space.head_width

    def cells(rate: int, stride: int) -> ShapeGrid:
        names = OPERATORS if stride == 2 else tuple(name for name in OPERATORS if name != "skip")
        outputs = RATES[rate] * stride
        shapes = [
            CellOperator(place, a * RATES[rate], b * outputs, name, 2 if stride == 2 else 1)
            for name in names
            for place in sizes[rate]
            for a in widths
            for b in widths
        ]
        return ShapeGrid.of(shapes, len(names), len(sizes[rate]), number, number)

    def refines(rate: int) -> ShapeGrid:
        merged = head * RATES[rate - 1]
        shapes = [refine_shape(place, merged, a * RATES[rate - 1]) for place in sizes[rate - 1] for a in widths]
        return ShapeGrid.of(shapes, len(sizes[rate - 1]), number)

    def reduces(rate: int) -> ShapeGrid:
        shapes = [reduce_shape(place, head * RATES[rate], head * RATES[rate - 1]) for place in sizes[rate]]
        return ShapeGrid.of(shapes, len(sizes[rate]))

    last = head_shapes(eighth, size, head, 2, classes)
    return Grids(
        widths=widths,
        sizes=tuple(tuple(row) for row in sizes),
        follow=tuple(tuple(tuple(row) for row in each) for each in follow),
        same=tuple(cells(rate, 1) for rate in range(3)),
        down=tuple(cells(rate, 2) for rate in range(2)),
        reduce=tuple(reduces(rate) for rate in (1, 2)),
        refine=tuple(refines(rate) for rate in (1, 2)),
        stem=ShapeGrid.of(stem, len(stem)),
        head=ShapeGrid.of(last, len(last)),
    )


def shapes_of_space(space: FasterSegSearchSpace, classes: int, size: Size) -> dict[str, Shape]:
    """Every operator that a network of the space may have at an image of `size`, by its key.

    Those of widths that no network can have there are among them: the stem's width behind the first cell, say.
    """
    return {shape.key: shape for grid in grids_of(space, classes, size).all() for shape in grid.shapes}


#: Rate indices of the cells of one layer that a network has: one, or two while its branches are apart.
Cells = tuple[int, ...]


class _Relaxed:
    """Probabilities of the student's cells and maps, float64.

    Attributes:
        used: rates x layers, how probable it is that a cell is part of the network.
        maps: rates x layers, of the map that comes into a cell: sizes x widths.
    """

    def __init__(self, space: FasterSegSearchSpace, grids: Grids, weights: Weights) -> None:
        self.space, self.grids = space, grids
        self.weights = {name: tensor.double() for name, tensor in weights.items()}
        self.zero = self.weights["operator"].new_zeros(())
        self.pairs = self.weights["branches"][0]
        self.ends = sorted({end for pair in range(len(space.branches)) for end in space.ends(pair)})
        width = self.weights["width"]
        columns = torch.tensor([grids.widths.index(w) for w in space.widths], device=width.device)
        self.width = width.new_zeros(len(width), len(grids.widths)).index_copy(1, columns, width)
        self.head = width.new_zeros(len(grids.widths))
        self.head[grids.widths.index(space.head_width)] = 1
        self.used = self._used()
        self.maps = self._maps()

    def end(self, end: int) -> Tensor:
        """How probable it is that a branch ends at a rate."""
        pairs = [pair for pair in range(len(self.space.branches)) if end in self.space.ends(pair)]
        return self.pairs[pairs].sum()

    def path(self, rate: int, layer: int, column: int) -> Tensor:
        """Probability of a predecessor; 1 for one that is the only one."""
        row = self.space.path_row(rate, layer)
        if row is not None:
            return self.weights[self.space.path_table(rate)][row, column]
        return self.zero + float((column == FINER) == (rate > 0))

    def operator(self, rate: int, layer: int) -> Tensor:
        """Probabilities of a cell's operators."""
        return self.weights["operator"][self.space.operator_row(rate, layer)]

    def made(self, rate: int, layer: int) -> Tensor:
        """Probabilities of the widths of what is made for the cell of a layer; behind the last, the head's."""
        if layer == self.space.layers:
            return self.head
        return self.width[self.space.width_row(rate, layer)]

    def stays(self, used: Sequence[Sequence[Tensor]], rate: int, layer: int) -> Tensor:
        """How probable it is that a cell's output of stride 1 is used, given how probable it is that cells are."""
        if layer + 1 == self.space.layers:
            return used[rate][layer]
        return used[rate][layer + 1] * self.path(rate, layer + 1, SAME)

    def leaves(self, used: Sequence[Sequence[Tensor]], rate: int, layer: int) -> Tensor:
        """The same of the output of stride 2."""
        if rate == 2 or layer + 1 == self.space.layers:
            return self.zero
        return used[rate + 1][layer + 1] * self.path(rate + 1, layer + 1, FINER)

    def _used(self) -> list[list[Tensor]]:
        """Traced back layer by layer, by which cells of a layer are used together: two that have the same predecessor
        use it once."""
        layers = self.space.layers
        found = [[self.zero] * layers for _ in range(3)]
        together: dict[Cells, Tensor] = {self.space.ends(i): p for i, p in enumerate(self.pairs.unbind())}
        for layer in range(layers - 1, -1, -1):
            for cells, probability in together.items():
                for rate in cells:
                    found[rate][layer] = found[rate][layer] + probability
            together = self._before(together, layer) if layer else {}
        return found

    def _before(self, together: dict[Cells, Tensor], layer: int) -> dict[Cells, Tensor]:
        found: dict[Cells, Tensor] = {}
        for cells, probability in together.items():
            ways: list[tuple[Cells, Tensor]] = [((), probability)]
            for rate in cells:
                ways = [
                    ((*taken, before), p * self.path(rate, layer, column))
                    for taken, p in ways
                    for before, column in self._predecessors(rate, layer)
                ]
            for taken, p in ways:
                key = tuple(sorted(set(taken)))
                found[key] = found[key] + p if key in found else p
        return found

    @staticmethod
    def _predecessors(rate: int, layer: int) -> list[tuple[int, int]]:
        """Rate index and column of each."""
        return [*([(rate - 1, FINER)] if rate else []), *([(rate, SAME)] if rate < layer else [])]

    def _maps(self) -> list[list[Tensor]]:
        grids, layers = self.grids, self.space.layers
        sizes = [len(row) for row in grids.sizes]
        empty = [self.width.new_zeros(count, len(grids.widths)) for count in sizes]
        found = [[empty[rate]] * layers for rate in range(3)]
        opening = torch.zeros_like(empty[0])
        opening[0, grids.widths.index(self.space.stem_width)] = 1
        found[0][0] = opening
        for layer in range(1, layers):
            for rate in range(min(layer, 2) + 1):
                total = empty[rate]
                if rate:
                    halved = self._halved(found[rate - 1][layer - 1].sum(dim=1), rate - 1, layer - 1)
                    total = total + self.path(rate, layer, FINER) * torch.outer(halved, self.made(rate, layer))
                if rate < layer:
                    before, operator = found[rate][layer - 1], self.operator(rate, layer - 1)
                    convolved = operator.sum() - operator[SKIP]
                    kept = convolved * torch.outer(before.sum(dim=1), self.made(rate, layer)) + operator[SKIP] * before
                    total = total + self.path(rate, layer, SAME) * kept
                found[rate][layer] = total
        return found

    def _halved(self, sizes: Tensor, rate: int, layer: int) -> Tensor:
        """Probabilities of the sizes that a cell's output of stride 2 has, given those of its input."""
        flat = torch.outer(self.operator(rate, layer), sizes).flatten()
        follow = torch.tensor(self.grids.follow[rate], device=flat.device).flatten()
        return flat.new_zeros(len(self.grids.sizes[rate + 1])).index_add(0, follow, flat)

    def last_maps(self, end: int) -> dict[int, Tensor]:
        """By rate index, the last map that a branch has there: sizes x widths, times how probable the branch is."""
        layers = self.space.layers
        branch = [[self.zero] * layers for _ in range(3)]
        branch[end][layers - 1] = self.end(end)
        found = {end: self.end(end) * self.maps[end][layers - 1]}
        for layer in range(layers - 2, -1, -1):
            for rate in range(min(layer, end) + 1):
                leaves = self.leaves(branch, rate, layer)
                branch[rate][layer] = self.stays(branch, rate, layer) + leaves
                if rate < end:
                    found[rate] = found.get(rate, 0) + leaves * self.maps[rate][layer]
        return found


def parts(space: FasterSegSearchSpace, classes: int, weights: Weights, size: Size) -> list[Part]:
    """What the derived network, the student's, is made of, and how often each operator is expected in it.

    Stages are the stem, the cells at each rate, and merges and head together: which layers branches share is not known
    before they are decided.

    Args:
        classes: of the last convolution.
        weights: of the tables of `space`, rows that sum to 1.
        size: of the image.

    Returns:
        Parts in float64, differentiable in `weights`.
    """
    grids = grids_of(space, classes, size)
    relaxed = _Relaxed(space, grids, weights)
    found = [Part("stem", grids.stem, torch.ones(grids.stem.shape, dtype=torch.float64, device=relaxed.zero.device))]
    for rate in range(3):
        found.append(_cell_part(relaxed, rate, 1))
        if rate < 2:
            found.append(_cell_part(relaxed, rate, 2))
    for end in relaxed.ends:
        last = relaxed.last_maps(end)
        for rate in range(end, 0, -1):
            found.append(Part("head", grids.reduce[rate - 1], last[rate].sum(dim=1)))
            found.append(Part("head", grids.refine[rate - 1], last[rate - 1]))
    ones = torch.ones(grids.head.shape, dtype=torch.float64, device=relaxed.zero.device)
    return [*found, Part("head", grids.head, ones)]


def _cell_part(relaxed: _Relaxed, rate: int, stride: int) -> Part:
    """Operators of all cells at a rate, of one stride."""
    layers = range(rate, relaxed.space.layers - (stride == 2))
    grid = relaxed.grids.same[rate] if stride == 1 else relaxed.grids.down[rate]
    use = relaxed.stays if stride == 1 else relaxed.leaves
    operators = torch.stack([relaxed.operator(rate, layer) for layer in layers])
    if stride == 1:
        operators = operators[:, [index for index in range(len(OPERATORS)) if index != SKIP]]
    probabilities = torch.einsum(
        "l,lk,lvi,lj->kvij",
        torch.stack([use(relaxed.used, rate, layer) for layer in layers]),
        operators,
        torch.stack([relaxed.maps[rate][layer] for layer in layers]),
        torch.stack([relaxed.made(rate + stride - 1, layer + 1) for layer in layers]),
    )
    return Part(_STAGES[rate], grid, probabilities)
