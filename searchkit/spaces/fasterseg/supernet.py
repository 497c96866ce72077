"""The FasterSeg supernet: all networks of a `FasterSegSearchSpace` in one, the teacher's among them.

Source: Chen et al., ICLR 2020, sections 3.1, 3.3 and 3.4, Eq. 1 and 2, appendix B. Shapes: N batch, H and W of the
input.

Each cell runs once, on the mixture of its inputs (Eq. 1); the release runs it once for each and mixes the outputs. The
head of a branch reads the last map that the branch has at each rate: the input of the cell that halves the resolution,
mixed by how much of the branch does so there. (The release's supernet reads the last layer's maps, which its discrete
networks do not have.) So a supernet whose choices are all decided is the derived network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from ...choices import Alive, Cuts, Weights
from ...costs.expected import Part, Price
from ...sizes import Size
from ...supernet import Quality, Supernet
from . import _cheapest, _deriving, expected
from ._cells import Cell, plus
from ._closing import closed
from ._running import Running
from ._shrinking import shrink_modules
from ._supernet_heads import PairHead, Stem, SuperClassifier, SuperMerge, weighted_logits
from .genotype import FasterSegGenotype
from .sampling import search_passes, warmup_passes
from .search_space import RATES, TEACHER, FasterSegSearchSpace

if TYPE_CHECKING:
    from ...genotype import Genotype, Provenance


class FasterSegSupernet(Supernet):
    """The relaxed network; logits N x classes x H/8 x W/8.

    In training mode it gives logits of every pair of branches that is left and of every single branch (five, of equal
    weight, in the paper's space). Where the choice of the pair learns, those of the pairs mixed by their weights come
    before them: nothing else depends on this choice. In evaluation mode it gives the mixture alone.

    Args:
        space: what can be chosen.
        classes: output channels.

    Attributes:
        checkpointing: whether cells keep their input alone and compute their operators again in the backward pass.
    """

    def __init__(self, space: FasterSegSearchSpace, classes: int) -> None:
        super().__init__(space.tables())
        self.space, self.classes, self.checkpointing = space, classes, False
        self.stem = Stem({space.stem_width, *self._teachers()})
        heads = {space.head_width, *self._teachers()}
        self.cells = nn.ModuleDict({f"{RATES[rate]}_{layer}": self._cell(rate, layer) for rate, layer in space.cells()})
        ends = sorted({end for pair in range(len(space.branches)) for end in space.ends(pair)})
        self.merges = nn.ModuleDict({str(RATES[end]): self._merges(end, heads) for end in ends})
        self.singles = nn.ModuleDict({str(RATES[end]): SuperClassifier(1, heads, classes) for end in ends})
        self.pairs = nn.ModuleDict({pair: PairHead(heads, classes) for pair in space.branches})
        # As every later shrinking leaves it: nothing that no path leads to, no channels that no map has.
        self.shrink(self.closed(self.alive()))

    def _teachers(self) -> set[int]:
        """The width of the teacher's connections, stem and head, if there is one."""
        return {self.space.widths[-1]} if self.space.teacher else set()

    def _cell(self, rate: int, layer: int) -> Cell:
        space = self.space
        widths = space.widths if layer + 1 < space.layers else sorted({space.head_width, *self._teachers()})
        same = {width: width * RATES[rate] for width in widths}
        down = {width: width * RATES[rate + 1] for width in widths} if rate < 2 and layer + 1 < space.layers else None
        return Cell(space.widest * RATES[rate], same, down, space.operators())

    def _merges(self, end: int, heads: set[int]) -> nn.ModuleDict:
        widest = self.space.widest
        found, coarse = nn.ModuleDict(), max(heads) * RATES[end]
        for rate in range(end, 0, -1):
            found[f"from{RATES[rate]}"] = SuperMerge(rate, coarse, widest * RATES[rate - 1], heads)
            coarse = max(heads) * RATES[rate - 1]
        return found

    def forward(self, image: Tensor, weights: Weights) -> Tensor | tuple[Tensor, ...]:
        running = Running(self.space, self.alive(), weights, training=self.training)
        merged = self._merged(running, *self._maps(running, self.stem(image, running.stem)))
        found: dict[int, Tensor] = {}
        for pair in running.main_first():
            fine, coarse = sorted(self.space.ends(pair))
            head = self.pairs[self.space.branches[pair]]
            found[pair] = head(merged[coarse], merged[fine], running.head)
        if not self.training:
            return weighted_logits(found, running.pair_weights())
        singles = [self.singles[str(RATES[end])](merged[end], running.head) for end in running.ends]
        mixture = [weighted_logits(found, running.pair_weights())] if running.learns_pair else []
        return (*mixture, *found.values(), *singles)

    def _maps(self, running: Running, x: Tensor) -> tuple[dict[int, Tensor], dict[tuple[int, int], Tensor]]:
        """Outputs of the last layer by rate index, and by end and rate the last map that a branch has there."""
        incoming: dict[int, Tensor] = {0: x}
        exits: dict[tuple[int, int], Tensor] = {}
        for layer in range(self.space.layers):
            outgoing: dict[int, Tensor] = {}
            for rate, x in incoming.items():
                for end in running.ends:
                    weight = running.exits(end, rate, layer)
                    if not (isinstance(weight, float) and weight == 0.0):
                        exits[end, rate] = plus(exits.get((end, rate)), x, weight)
                cell = self.cells[f"{RATES[rate]}_{layer}"]
                wanted = running.same(rate, layer), running.down(rate, layer)
                same, down = cell(x, *wanted, checkpointing=self.checkpointing)
                if same is not None:
                    weight = 1.0 if layer + 1 == self.space.layers else running.from_same(rate, layer + 1)
                    outgoing[rate] = plus(outgoing.get(rate), same, weight)
                if down is not None:
                    weight = running.from_finer(rate + 1, layer + 1)
                    outgoing[rate + 1] = plus(outgoing.get(rate + 1), down, weight)
            incoming = dict(sorted(outgoing.items()))
        return incoming, exits

    def _merged(
        self, running: Running, last: Mapping[int, Tensor], exits: Mapping[tuple[int, int], Tensor]
    ) -> dict[int, Tensor]:
        """Each branch at 1/8, by its end."""
        found = {}
        for end in running.ends:
            x = last[end]
            for rate in range(end, 0, -1):
                x = self.merges[str(RATES[end])][f"from{RATES[rate]}"](x, exits[end, rate - 1], running.head)  # type: ignore[index]
            found[end] = x
        return found

    def passes(self, weights: Weights, *, warmup: bool) -> Iterator[Weights]:
        """See `sampling`."""
        chosen = warmup_passes if warmup else search_passes
        yield from chosen(self.space, self.alive(), weights)

    def closed(self, alive: Alive) -> Alive:
        return closed(self.space, alive)

    def shrink(self, alive: Alive) -> Cuts:
        cuts: Cuts = {
            f"choice_tables.{name}.logits": (table.shrink(alive[name]),) for name, table in self.tables.items()
        }
        shrink_modules(self, alive, cuts)
        return cuts

    def parts(self, weights: Weights, size: Size) -> list[Part]:
        return expected.parts(self.space, self.classes, weights, size)

    def cheapest(self, alive: Alive, price: Price, size: Size) -> Alive:
        return _cheapest.cheapest(self.space, self.classes, alive, price, size)

    def weighed(
        self, preferences: Mapping[str, np.ndarray], quality: Quality, cost: Callable[[Alive], float]
    ) -> Mapping[str, np.ndarray]:
        """Paths are decided as the most probable whole ones (section 3.4), the pair of branches by Eq. 5."""
        return _deriving.weighed(self.space, self.alive(), preferences, quality, cost)

    def derive(self, alive: Alive, provenance: Provenance) -> FasterSegGenotype:
        return _deriving.derived(self.space, self.classes, alive, provenance)

    def companions(self, provenance: Provenance) -> dict[str, Genotype]:
        """The teacher, where the space has one."""
        if not self.space.teacher:
            return {}
        return {"teacher": _deriving.derived(self.space, self.classes, self.alive(), provenance, prefix=TEACHER)}

    def searched(self, provenance: Provenance) -> tuple[FasterSegGenotype, dict[str, Tensor]] | None:
        """The derived network with the supernet's weights.

        None where both branches come to begin with equal layers of different cells, which the derived network has but
        once: a branch that skips and then halves the resolution just as the other has.
        """
        genotype = self.derive(self.alive(), provenance)
        state = _deriving.discrete_state(self, genotype)
        return None if state is None else (genotype, state)
