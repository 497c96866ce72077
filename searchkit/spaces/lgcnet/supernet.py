"""The LGCNet supernet: all networks of an `LGCNetSearchSpace` in one.

Source: Cheng et al., section III, Eq. 2 to 7. The architecture parameters of `cell` are guided from cell to cell where
the space says so; see `guidance`. Weights and architecture learn in the same round from the same pictures (single
level) with a recipe whose `split` is "same".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ...choices import Alive, Cuts, Weights
from ...costs.expected import Part, Price
from ...genotype import SCHEMA
from ...sizes import Size
from ...supernet import Supernet
from . import expected, validity
from ._mixing import Columns, MixedCell, MixedFusionCell, nonzero_columns
from .genotype import ABSENT, LGCNetGenotype, cell_of
from .network import Stem
from .operators import CELL_OPERATORS, FUSION_OPERATORS, UP_OPERATORS
from .search_space import LGCNetSearchSpace
from .wiring import CELL_EDGES, FUSION_OUTPUTS, fusion_inputs_of, living, maps_of

if TYPE_CHECKING:
    from ...genotype import Provenance

#: What the paper leaves open; in the provenance of what is derived.
CHOSEN = (
    "chosen here: conv-BN-ReLU units, 1x1 units on cell inputs, a read cell's nodes keep an edge, 13 fusion edges, "
    "tenth operator pool3, 2x2 deconvolution"
)


class LGCNetSupernet(Supernet):
    """The relaxed network; logits N x classes x H/4 x W/4.

    Args:
        space: what can be chosen.
        classes: output channels of the classifier.

    Attributes:
        checkpointing: whether cells keep their inputs alone and compute their operators again in the backward pass.
    """

    def __init__(self, space: LGCNetSearchSpace, classes: int) -> None:
        super().__init__(space.tables())
        self.space, self.classes, self.checkpointing = space, classes, False
        self.stem = Stem(space.stem)
        self.cells = nn.ModuleDict({str(place.index): MixedCell(place) for place in space.places})
        self.fusion = MixedFusionCell([space.places[index] for index in space.fused], space.fusion_channels)
        self.classifier = nn.Conv2d(space.fusion_channels * fusion_inputs_of(FUSION_OUTPUTS[0]), classes, 1)

    def forward(self, image: Tensor, weights: Weights) -> Tensor:
        third, second = self.stem(image.to(self.classifier.weight.dtype))
        maps, sizes = {-1: third, -2: second}, maps_of(Size(*image.shape[-2:]))
        edges, flat = len(CELL_EDGES), nonzero_columns(weights["cell"])
        columns = [flat[start : start + edges] for start in range(0, len(flat), edges)]
        rows = weights["cell"].unflatten(0, (len(columns), edges))
        for cell in self._computed(columns):
            place, group = cell.place, self.space.group_of[cell.place.index]
            given = sizes[place.rate], rows[group], columns[group]
            maps[place.index] = cell(maps, *given, checkpointing=self.checkpointing)
        fused = [maps[index] for index in self.space.fused]
        features = self.fusion(fused, weights["fusion"], weights["fusion_up"], checkpointing=self.checkpointing)
        logits: Tensor = self.classifier(features)
        return logits

    def _live(self) -> list[MixedCell]:
        return list(self.cells.values())  # type: ignore[arg-type]

    def _computed(self, columns: Sequence[Sequence[Columns]]) -> list[MixedCell]:
        """The cells that the fusion cell has a way to over what is not 0."""
        reads = [(False, False)] * self.space.length
        for cell in self._live():
            reads[cell.place.index] = cell.reads(columns[self.space.group_of[cell.place.index]])
        alive = living(reads, self.space.fused)
        return [cell for cell in self._live() if alive[cell.place.index]]

    def _candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """What lives of the table `cell`, and its scores."""
        table = self.tables["cell"]
        scores = table.dense(fill=0.0).detach()
        # A supernet without numbers, as limits are checked with, prefers nothing.
        return table.alive, (torch.zeros(scores.shape) if scores.is_meta else scores).double().cpu().numpy()

    def closed(self, alive: Alive) -> Alive:
        return validity.closed(self.space, alive, self._candidates)

    def shrink(self, alive: Alive) -> Cuts:
        cuts: Cuts = {
            f"choice_tables.{name}.logits": (table.shrink(alive[name]),) for name, table in self.tables.items()
        }
        groups, there = validity.by_group(alive["cell"]), validity.live_cells(self.space, alive["cell"])
        for cell in self._live():
            if there[cell.place.index]:
                cell.keep(groups[self.space.group_of[cell.place.index]].tolist())
            else:
                del self.cells[str(cell.place.index)]
        self.fusion.keep(alive["fusion"].tolist(), alive["fusion_up"].tolist())
        return cuts

    def parts(self, weights: Weights, size: Size) -> list[Part]:
        return expected.parts(self.space, self.classes, weights, size)

    def cheapest(self, alive: Alive, price: Price, size: Size) -> Alive:
        return expected.cheapest(self.space, self.classes, alive, price, size)

    def derive(self, alive: Alive, provenance: Provenance) -> LGCNetGenotype:
        return derived(self.space, self.classes, alive, provenance)

    def searched(self, provenance: Provenance) -> tuple[LGCNetGenotype, dict[str, Tensor]]:
        """The derived network with the supernet's weights; it resizes the logits that the supernet gives."""
        if self.undecided():
            raise ValueError("some choice is undecided")
        state = {}
        for name, tensor in self.state_dict().items():
            top, *rest = name.split(".")
            if top == "choice_tables":
                continue
            # The operator's name follows that of its edge.
            if "edges" in rest:
                del rest[rest.index("edges") + 2]
            state[".".join([top, *rest])] = tensor.detach().clone()
        return self.derive(self.alive(), provenance), state


def derived(
    space: LGCNetSearchSpace, classes: int, alive: Mapping[str, np.ndarray], provenance: Provenance
) -> LGCNetGenotype:
    """The discrete network where each choice that is not pointless has one candidate.

    Raises:
        ValueError: a choice has more than one.
    """
    if any((mask.sum(axis=1) > 1).any() for mask in alive.values()):
        raise ValueError("some choice is undecided")
    there = validity.live_cells(space, alive["cell"])
    taken = validity.by_group(alive["cell"]).argmax(axis=2)
    cells = [
        cell_of(tuple(CELL_OPERATORS[column] for column in taken[group])) if lives else ABSENT
        for group, lives in zip(space.group_of, there, strict=True)
    ]
    said = "; ".join(filter(None, (provenance.description, CHOSEN)))
    return LGCNetGenotype(
        schema=SCHEMA,
        space="lgcnet",
        classes=classes,
        stem=space.stem,
        reductions=space.reductions,
        cells=tuple(cells),
        fusion_channels=space.fusion_channels,
        fusion=tuple(FUSION_OPERATORS[column] for column in alive["fusion"].argmax(axis=1)),
        fusion_up=tuple(UP_OPERATORS[column] for column in alive["fusion_up"].argmax(axis=1)),
        provenance=provenance.model_copy(update={"description": said[:256]}),
    )
