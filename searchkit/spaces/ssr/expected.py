"""What a relaxed SSR network costs: its operators with their probabilities, and the cheapest network that is left.

Choices are taken as independent, so every probability is a product of weights and sums of such products: layer j of a
stage is there when the depth is over j; it reads what the layer before it, whichever its operator is, gives out. Layers
that have the same shapes are added up, so that a grid says how many of each operator a network is expected to have, and
a step handles 3,000 products instead of 27,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ...choices import Alive, Weights
from ...costs.expected import Grid, Part, Price
from ...costs.shapes import Shape, ShapeGrid
from ...errors import SearchFailedError
from ...sizes import Size
from .genotype import AggregationHead
from .operators import (
    Classifier,
    Conv1x3,
    Conv3x1,
    Detail,
    Downsampler,
    Maps,
    fusion_of,
    pyramid_of,
)
from .search_space import STAGES, SSRSearchSpace

#: The aggregation block of the derived network: the published one (Fig. 2a, section 5.2).
AGGREGATION = AggregationHead(type="aggregation", low=64, bins=(1, 2, 3, 6, 9), bin_channels=40, context=128, fuse=128)

_COSTED = ("stage 1/4", "stage 1/8")


@dataclass(frozen=True, eq=False)
class _Stage:
    """Operators of a stage: `first` by (operator, in, mid), `second` by (operator, mid, out)."""

    first: ShapeGrid
    second: ShapeGrid


@dataclass(frozen=True, eq=False)
class _Grids:
    """Operators of a space at an image size.

    Attributes:
        fixed: the two downsamplers that nothing is chosen of, one grid each.
        down: the downsampler to 1/8 by the width of the 1/4 stage.
        detail, context: of the head, by the widths of the 1/4 and of the 1/8 stage; a classifier has no detail.
        fusion: of the head, depending on nothing.
    """

    fixed: tuple[ShapeGrid, ShapeGrid]
    stages: tuple[_Stage, _Stage]
    down: ShapeGrid
    detail: ShapeGrid | None
    context: ShapeGrid
    fusion: ShapeGrid | None

    def all(self) -> Iterator[ShapeGrid]:
        """Every grid, in the order in which a network has its operators."""
        yield from self.fixed
        yield from (self.stages[0].first, self.stages[0].second, self.down)
        yield from (self.stages[1].first, self.stages[1].second)
        yield from (grid for grid in (self.detail, self.context, self.fusion) if grid is not None)


def _stage_grids(space: SSRSearchSpace, stage: int, size: Size) -> _Stage:
    widths, operators = space.widths(stage), space.operators()
    dimensions = (len(operators), len(widths), len(widths))
    pairs = [(d, s, a, b) for d, s in operators for a in widths for b in widths]
    return _Stage(
        ShapeGrid.of((Conv3x1(size, a, b, d, s, space.pool, space.mid_norm) for d, s, a, b in pairs), *dimensions),
        ShapeGrid.of((Conv1x3(size, a, b, d, s) for d, s, a, b in pairs), *dimensions),
    )


@lru_cache(maxsize=16)
def _grids(space: SSRSearchSpace, classes: int, size: Size) -> _Grids:
    maps = Maps.of(size)
    quarter, eighth = space.widths(0), space.widths(1)
    detail = fusion = None
    contexts: list[Shape] = [Classifier(maps.eighth, w, classes) for w in eighth]
    if space.head == "aggregation":
        detail = ShapeGrid.of((Detail(maps.quarter, space.stem, w, AGGREGATION.low) for w in quarter), len(quarter))
        fusion = ShapeGrid.of([fusion_of(AGGREGATION, maps, classes)], 1)
        contexts = [pyramid_of(AGGREGATION, maps, w) for w in eighth]
    return _Grids(
        fixed=(
            ShapeGrid.of([Downsampler(maps.image, 3, space.stem)], 1),
            ShapeGrid.of([Downsampler(maps.half, space.stem, space.channels[0])], 1),
        ),
        stages=(_stage_grids(space, 0, maps.quarter), _stage_grids(space, 1, maps.eighth)),
        down=ShapeGrid.of((Downsampler(maps.quarter, w, space.channels[1]) for w in quarter), len(quarter)),
        detail=detail,
        context=ShapeGrid.of(contexts, len(eighth)),
        fusion=fusion,
    )


def shapes_of_space(space: SSRSearchSpace, classes: int, size: Size) -> dict[str, Shape]:
    """Every operator that a network of the space may have at an image of `size`, by its key."""
    return {shape.key: shape for grid in _grids(space, classes, size).all() for shape in grid.shapes}


@dataclass(frozen=True)
class _Relaxed:
    """A relaxed stage, float64.

    Attributes:
        there: layer x operator; how probable it is that the layer is there and has this operator.
        reads: layer x width of its input.
        mid, out: layer x operator x width.
        gives: width of the stage's output.
    """

    there: Tensor
    reads: Tensor
    mid: Tensor
    out: Tensor
    gives: Tensor

    @classmethod
    def of(cls, space: SSRSearchSpace, weights: Weights, stage: int) -> _Relaxed:
        depths, layers = space.stage_depths(stage), len(space.layers(stage))
        name, operators, widths = STAGES[stage], len(space.operators()), len(space.widths(stage))
        first = len(space.layers(0)) if stage else 0
        depth = weights[f"depth{name}"][0].double()
        operator = weights["operator"][first : first + layers].double()
        mid = weights[f"mid{name}"].double().view(layers, operators, widths)
        out = weights[f"out{name}"].double().view(layers, operators, widths)
        ends = depth.new_zeros(layers).index_copy(0, torch.tensor(depths, device=depth.device) - 1, depth)
        stays = ends.flip(0).cumsum(0).flip(0)
        makes = (operator[:, :, None] * out).sum(1)
        opening = makes.new_zeros(1, widths)
        opening[0, -1] = 1
        return cls(stays[:, None] * operator, torch.cat([opening, makes[:-1]]), mid, out, ends @ makes)


def parts(space: SSRSearchSpace, classes: int, weights: Weights, size: Size) -> list[Part]:
    """What the derived network is made of, and how often each operator is expected in it.

    Args:
        classes: of the last convolution.
        weights: of the tables of `space`.
        size: of the image.

    Returns:
        Parts in float64, differentiable in `weights`, that sum to `SSRGenotype.cost(size)` for one-hot weights.
    """
    grids = _grids(space, classes, size)
    stages = [_Relaxed.of(space, weights, stage) for stage in (0, 1)]
    quarter, eighth = (stage.gives for stage in stages)
    always = quarter.new_ones(1)
    found = [Part("stem", grids.fixed[0], always), Part(_COSTED[0], grids.fixed[1], always)]
    found.append(Part(_COSTED[1], grids.down, quarter))
    for name, grid, stage in zip(_COSTED, grids.stages, stages, strict=True):
        mids = stage.there[:, :, None] * stage.mid
        found.append(Part(name, grid.first, torch.einsum("li,lom->oim", stage.reads, mids)))
        found.append(Part(name, grid.second, torch.einsum("lom,low->omw", mids, stage.out)))
    if grids.detail is not None and grids.fusion is not None:
        found += [Part("head", grids.detail, quarter), Part("head", grids.fusion, always)]
    found.append(Part("head", grids.context, eighth))
    return found


@dataclass(frozen=True, eq=False)
class _Priced:
    """Prices of the grids of a space: by stage (operator, in, mid), (operator, mid, out) and width of the output."""

    first: tuple[np.ndarray, np.ndarray]
    second: tuple[np.ndarray, np.ndarray]
    tail: tuple[np.ndarray, np.ndarray]


@lru_cache(maxsize=8)
def _priced(space: SSRSearchSpace, classes: int, size: Size, price: Price) -> _Priced:
    def of(grid: Grid | None) -> np.ndarray:
        return np.zeros(()) if grid is None else grid.priced(price)

    grids = _grids(space, classes, size)
    return _Priced(
        first=(of(grids.stages[0].first), of(grids.stages[1].first)),
        second=(of(grids.stages[0].second), of(grids.stages[1].second)),
        tail=(of(grids.down) + of(grids.detail), of(grids.context)),
    )


def cheapest(space: SSRSearchSpace, classes: int, alive: Alive, price: Price, size: Size) -> Alive:
    """The cheapest network that is left, found exactly: layer by layer, for each width that a layer may give out.

    Args:
        alive: of the tables of `space`; every choice that is not pointless has a candidate.
        price: of an operator, not negative; the network's is the sum. It is asked once an operator, and its answers are
            kept: a price must not change.

    Returns:
        One candidate a choice; layers beyond the depth, and operators that are not taken, have none.

    Raises:
        SearchFailedError: `alive` holds no network.
    """
    priced = _priced(space, classes, size, price)
    found = {name: np.zeros_like(mask) for name, mask in alive.items()}
    for stage in (0, 1):
        _cheapest_stage(space, stage, alive, priced, found)
    return found


def _cheapest_stage(space: SSRSearchSpace, stage: int, alive: Alive, priced: _Priced, found: Alive) -> None:
    name, depths, layers = STAGES[stage], space.stage_depths(stage), len(space.layers(stage))
    operators, widths = len(space.operators()), len(space.widths(stage))
    start = len(space.layers(0)) if stage else 0
    mid = alive[f"mid{name}"].reshape(layers, operators, widths)
    out = alive[f"out{name}"].reshape(layers, operators, widths)
    reached = np.full(widths, np.inf)
    reached[-1] = 0.0
    trail, ends = [], np.full((layers, widths), np.inf)
    for layer in range(layers):
        # operator x in x mid, and then operator x mid: what is chosen last is minimised over first.
        into = reached[:, None] + priced.first[stage]
        reads = into.argmin(axis=1)
        upto = np.where(mid[layer] & alive["operator"][start + layer][:, None], into.min(axis=1), np.inf)
        total = (upto[:, :, None] + priced.second[stage]).reshape(operators * widths, widths)
        total = np.where(np.repeat(out[layer], widths, axis=0), total, np.inf)
        trail.append((total.argmin(axis=0), reads))
        reached = total.min(axis=0)
        ends[layer] = reached + priced.tail[stage]
    allowed = np.full((layers, 1), np.inf)
    allowed[np.array(depths)[alive[f"depth{name}"][0]] - 1] = 0.0
    last, width = (int(i) for i in np.unravel_index((ends + allowed).argmin(), ends.shape))
    if not np.isfinite((ends + allowed)[last, width]):
        raise SearchFailedError("no network is left", where=_COSTED[stage], fix="lower the threshold of the strategy")
    found[f"depth{name}"][0, depths.index(last + 1)] = True
    for layer in range(last, -1, -1):
        best, reads = trail[layer]
        operator, middle = divmod(int(best[width]), widths)
        row = layer * operators + operator
        found["operator"][start + layer, operator] = True
        found[f"mid{name}"][row, middle] = found[f"out{name}"][row, width] = True
        width = int(reads[operator, middle])
