"""Search spaces, one folder each: `genotype.py` (what was chosen), `network.py` (the discrete network), `supernet.py`.

Adding a space is adding one folder whose `__init__.py` defines `SPACE`; its folder name is the `space` of its
genotypes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UsageError
from ..registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from ..diagram import Diagram
    from ..genotype import Genotype
    from ..sizes import Size
    from ..supernet import Supernet


#: Makes an operator by itself, in evaluation mode, and says the shape of its input.
OperatorModule = Callable[[], "tuple[nn.Module, tuple[int, int, int, int]]"]


class Space(ABC):
    """A family of networks. Methods import what they need, so that reading a genotype never imports torch."""

    #: Rules by which `decode` reads architecture parameters, the default first; empty where it reads none.
    decoding_rules: ClassVar[tuple[str, ...]] = ()

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

    def supernet(self, settings: Mapping[str, Any], classes: int) -> Supernet:
        """The relaxed network, in training mode, drawn from torch's generator.

        Args:
            settings: fields of the space's own settings, as a recipe's `[space]` table has them.
            classes: number of output channels.

        Raises:
            UsageError: the space cannot be searched, or a setting is refused.
        """
        raise UsageError(f"{self.name} has networks, but no supernet to search")

    def decode(self, tree: Mapping[str, Any], rule: str) -> tuple[Genotype, dict[str, Genotype]]:
        """The network that architecture parameters in a file describe, and others that were searched with it, by what
        they are for.

        Args:
            tree: what the file holds.
            rule: one of `decoding_rules`.

        Raises:
            UsageError: the space has no such files, or no such rule.
            InputFileError: the file holds something else; `where` names the field.
        """
        raise UsageError(f"{self.name} reads no files of architecture parameters", allowed="the folder of a search")

    def operator_keys(self, genotype: Genotype, size: Size) -> Iterable[str]:
        """The operators of a network as keys of latency tables, at an image of `size`.

        Raises:
            UsageError: there are no tables for this space.
        """
        raise UsageError(f"{self.name} has no latency tables")

    def diagram(self, genotype: Genotype, size: Size) -> Diagram:
        """How a network is drawn, with its maps' sizes at an image of `size`.

        Raises:
            UsageError: networks of this space cannot be drawn.
        """
        raise UsageError(f"networks of {self.name} cannot be drawn")

    def operator_modules(self, settings: Mapping[str, Any], classes: int, size: Size) -> dict[str, OperatorModule]:
        """What makes each operator of the space, by its key: what a latency table is measured of.

        Raises:
            UsageError: there are no tables for this space, or a setting is refused.
        """
        raise UsageError(f"the operators of {self.name} cannot be timed one by one")


SPACES: Registry[Space] = Registry("searchkit.spaces", "SPACE", "search space")
