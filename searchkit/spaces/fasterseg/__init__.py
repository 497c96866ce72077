"""FasterSeg: two or more branches at different rates, zoomed convolutions, widths searched by superkernels.

Paper: Chen et al., "FasterSeg: Searching for Faster Real-time Semantic Segmentation", ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING

from .. import Space

if TYPE_CHECKING:
    from torch import nn

    from ...genotype import Genotype
    from ...sizes import Size
    from .genotype import FasterSegGenotype


class FasterSegSpace(Space):
    """The space of FasterSeg; see `genotype.py`."""

    @property
    def name(self) -> str:
        return "fasterseg"

    @property
    def genotype_type(self) -> type[FasterSegGenotype]:
        from .genotype import FasterSegGenotype

        return FasterSegGenotype

    def build(self, genotype: Genotype, *, training_heads: bool = False) -> nn.Module:
        from .genotype import FasterSegGenotype
        from .network import FasterSegNet

        assert isinstance(genotype, FasterSegGenotype)
        return FasterSegNet(genotype, training_heads=training_heads)

    def sample(self, rng: Random) -> FasterSegGenotype:
        from .genotype import sample

        return sample(rng)

    def operator_keys(self, genotype: Genotype, size: Size) -> Iterable[str]:
        from .genotype import FasterSegGenotype
        from .latency import table_keys

        assert isinstance(genotype, FasterSegGenotype)
        return table_keys(genotype, *size)


SPACE = FasterSegSpace()
