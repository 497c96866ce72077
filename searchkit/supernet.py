"""The relaxed network of a search space, and what the search asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .choices import Alive, ChoiceTable, Cuts, Weights, alive_of
from .costs.expected import Part, Price
from .sizes import Size

if TYPE_CHECKING:
    from .genotype import Genotype, Provenance


#: mIoU of the supernet, with these weights of its candidates, on the validation pictures; None where no class occurs.
Quality = Callable[[Weights], "float | None"]


class Supernet(nn.Module, ABC):
    """All networks of a space at once.

    Strategies act on `tables`; the search trains everything else. What a candidate alone needs is really removed with
    it: `shrink` leaves smaller parameters, and reports how each was cut, so that optimisers can follow.

    Args:
        tables: in the order in which levels are shrunk.
    """

    #: Parameters whose names begin with one of these are trained as architecture, all others as weights.
    architecture_prefixes: ClassVar[tuple[str, ...]] = ("choice_tables.",)

    def __init__(self, tables: Mapping[str, ChoiceTable]) -> None:
        super().__init__()
        self.choice_tables = nn.ModuleDict(dict(tables))

    @property
    def tables(self) -> dict[str, ChoiceTable]:
        """By name, in hierarchical order."""
        return dict(self.choice_tables.items())  # type: ignore[arg-type]

    @property
    def levels(self) -> tuple[str, ...]:
        """In the order in which they are shrunk."""
        return tuple(dict.fromkeys(table.level for table in self.tables.values()))

    def alive(self) -> Alive:
        """What lives, by table."""
        return alive_of(self.tables)

    def undecided(self) -> int:
        """How many choices have more live candidates than they may end with; 0 is a discrete network."""
        return sum(table.undecided() for table in self.tables.values())

    def architecture_parameters(self) -> dict[str, nn.Parameter]:
        """The logits of all tables, and what else decides, by parameter name."""
        return {name: p for name, p in self.named_parameters() if name.startswith(self.architecture_prefixes)}

    def network_parameters(self) -> dict[str, nn.Parameter]:
        """Everything else, by parameter name."""
        return {name: p for name, p in self.named_parameters() if not name.startswith(self.architecture_prefixes)}

    @abstractmethod
    def forward(self, image: Tensor, weights: Weights) -> Tensor | tuple[Tensor, ...]:
        """Logits N x classes x H/8 x W/8, or what the space searches at, of images N x 3 x H x W.

        In training mode there may be several, of several heads: the main ones first. The loss of a pass is the sum of
        theirs, by `head_weights`.
        """

    @property
    def head_weights(self) -> tuple[float, ...] | None:
        """How much the loss of each head counts, in the order of `forward`; None is 1 each."""
        return None

    def passes(self, weights: Weights, *, warmup: bool) -> Iterable[Weights]:
        """What a step trains the supernet on: each is run forward and backward by itself, and the losses are summed.

        One after the other, so that the maps of one pass only are kept at a time. Random numbers come from torch's
        generator, which is seeded at every step.

        Args:
            weights: as the strategy relaxes them. Gradients that come to them go on to the architecture.
            warmup: in the steps before the first architecture step.
        """
        return (weights,)

    @abstractmethod
    def closed(self, alive: Alive) -> Alive:
        """`alive` less the candidates and choices that become pointless by what it lacks: a layer's operators with the
        layer, an operator's widths with the operator."""

    @abstractmethod
    def shrink(self, alive: Alive) -> Cuts:
        """Remove all that is not in `alive` (which is `closed`): parameters, buffers, compute.

        Returns:
            By name, how each parameter and buffer that changed was cut. Those that are gone are not named.
        """

    @abstractmethod
    def parts(self, weights: Weights, size: Size) -> list[Part]:
        """What the derived network would be made of, and how probably, at an input of `size`, its final head included.

        Where each choice has one candidate of weight 1, MACs and parameters of the parts sum to those of
        `derive(...).cost(size)`, convolutions counted.
        """

    @abstractmethod
    def cheapest(self, alive: Alive, price: Price, size: Size) -> Alive:
        """The cheapest network that `alive` holds: every choice decided, pointless choices without any."""

    def weighed(
        self, preferences: Mapping[str, np.ndarray], quality: Quality, cost: Callable[[Alive], float]
    ) -> Mapping[str, np.ndarray]:
        """Preferences by which the end decides what is still open, where some choices are decided by other means than
        each by its own probability: jointly, or by measuring. `preferences` as they are by default. Where a choice may
        keep several candidates, 0 says that one is not wanted beside others.

        Args:
            preferences: by table, rows x candidates; the greatest of a live choice is taken, as limits allow.
            quality: of the supernet with given weights; costs a validation.
            cost: of a network that is decided (`closed`): milliseconds where the search has a latency table, else MACs.
        """
        return preferences

    @abstractmethod
    def derive(self, alive: Alive, provenance: Provenance) -> Genotype:
        """The discrete network where every choice of `alive` (which is `closed`) is decided."""

    def companions(self, provenance: Provenance) -> dict[str, Genotype]:
        """Networks that were found in the same search, besides the one that `derive` gives, by what they are for."""
        return {}

    def searched(self, provenance: Provenance) -> tuple[Genotype, dict[str, Tensor]] | None:
        """Where every choice is decided: the network that the search itself has trained, its own head included, and its
        weights by the names of that network; None where the supernet cannot give them."""
        return None


def weights_of(alive: Alive, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Weights 1 for what lives and 0 for the rest: those of a discrete network where each choice is decided."""
    return {name: torch.from_numpy(mask.astype(np.float32)).to(device) for name, mask in alive.items()}
