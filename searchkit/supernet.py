"""The relaxed network of a search space, and what the search asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .choices import Alive, ChoiceTable, Cuts, Weights, alive_of
from .costs.expected import Part, Price
from .sizes import Size

if TYPE_CHECKING:
    from .genotype import Genotype, Provenance


class Supernet(nn.Module, ABC):
    """All networks of a space at once.

    Strategies act on `tables`; the search trains everything else. What a candidate alone needs is really removed with
    it: `shrink` leaves smaller parameters, and reports how each was cut, so that optimisers can follow.

    Args:
        tables: in the order in which levels are shrunk.
    """

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
        """How many choices have more than one live candidate; 0 is a discrete network."""
        return sum(table.undecided() for table in self.tables.values())

    def architecture_parameters(self) -> dict[str, nn.Parameter]:
        """The logits of all tables, by parameter name."""
        return {name: p for name, p in self.named_parameters() if name.startswith("choice_tables.")}

    def network_parameters(self) -> dict[str, nn.Parameter]:
        """Everything else, by parameter name."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("choice_tables.")}

    @abstractmethod
    def forward(self, image: Tensor, weights: Weights) -> Tensor:
        """Logits N x classes x H/8 x W/8, or what the space searches at, of images N x 3 x H x W."""

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
        """The cheapest network that `alive` holds: one candidate a choice, pointless choices without any."""

    @abstractmethod
    def derive(self, alive: Alive, provenance: Provenance) -> Genotype:
        """The discrete network where `alive` (which is `closed`) has one candidate a choice."""

    def searched(self, provenance: Provenance) -> tuple[Genotype, dict[str, Tensor]] | None:
        """Where every choice is decided: the network that the search itself has trained, its own head included, and its
        weights by the names of that network; None where the supernet cannot give them."""
        return None


def weights_of(alive: Alive, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Weights 1 for what lives and 0 for the rest: those of a discrete network where each choice is decided."""
    return {name: torch.from_numpy(mask.astype(np.float32)).to(device) for name, mask in alive.items()}
