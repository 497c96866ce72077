"""Search spaces, one folder each: `genotype.py` (what was chosen), `network.py` (the discrete network).

Adding a space is adding one folder whose `__init__.py` defines `SPACE`; its folder name is the `space` of its
genotypes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import TYPE_CHECKING

from ..registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from ..genotype import Genotype


class Space(ABC):
    """A family of networks. Methods import what they need, so that reading a genotype never imports torch."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The folder's name, and the `space` field of its genotypes."""

    @property
    @abstractmethod
    def genotype_type(self) -> type[Genotype]:
        """The pydantic model of its genotypes."""

    @abstractmethod
    def build(self, genotype: Genotype, *, training_heads: bool = False) -> nn.Module:
        """The discrete network, in training mode, with PyTorch's default initialisation.

        Args:
            genotype: one of this space.
            training_heads: also build what only training uses (auxiliary classifiers); in training mode such a network
                returns the main logits first, then theirs. In evaluation mode it returns the main logits alone.

        Returns:
            A module from N x 3 x H x W normalised RGB to N x classes x H' x W' logits.
        """

    @abstractmethod
    def sample(self, rng: Random) -> Genotype:
        """A random valid genotype; equal `rng` states give equal genotypes."""


SPACES: Registry[Space] = Registry("searchkit.spaces", "SPACE", "search space")
