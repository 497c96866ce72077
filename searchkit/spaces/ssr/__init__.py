"""SSR: ERFNet-style encoders searched over depth, dilation, spatial resolution and channels.

Paper: Ye et al., "Efficient Joint-Dimensional Search with Solution Space Regularization for Real-Time Semantic
Segmentation", IJCV 2022.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from .. import Space

if TYPE_CHECKING:
    from torch import nn

    from ...genotype import Genotype
    from .genotype import SSRGenotype


class SSRSpace(Space):
    """The space of SSR; see `genotype.py`."""

    @property
    def name(self) -> str:
        return "ssr"

    @property
    def genotype_type(self) -> type[SSRGenotype]:
        from .genotype import SSRGenotype

        return SSRGenotype

    def build(self, genotype: Genotype, *, training_heads: bool = False) -> nn.Module:
        from .genotype import SSRGenotype
        from .network import SSRNet

        assert isinstance(genotype, SSRGenotype)
        return SSRNet(genotype)

    def sample(self, rng: Random) -> SSRGenotype:
        from .genotype import sample

        return sample(rng)


SPACE = SSRSpace()
