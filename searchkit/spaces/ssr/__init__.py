"""SSR: ERFNet-style encoders searched over depth, dilation, spatial resolution and channels.

Paper: Ye et al., "Efficient Joint-Dimensional Search with Solution Space Regularization for Real-Time Semantic
Segmentation", IJCV 2022.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from .. import OperatorModule, Space

if TYPE_CHECKING:
    from torch import nn

    from ...diagram import Diagram
    from ...genotype import Genotype
    from ...sizes import Size
    from ...supernet import Supernet
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

    def supernet(self, settings: Mapping[str, Any], classes: int) -> Supernet:
        from ...settings import parse_settings
        from .search_space import SSRSearchSpace
        from .supernet import SSRSupernet

        return SSRSupernet(parse_settings(SSRSearchSpace, settings, what="space"), classes)

    def operator_keys(self, genotype: Genotype, size: Size) -> Iterable[str]:
        from .genotype import SSRGenotype
        from .operators import shapes_of

        assert isinstance(genotype, SSRGenotype)
        return (shape.key for shape in shapes_of(genotype, size))

    def diagram(self, genotype: Genotype, size: Size) -> Diagram:
        from .diagram import diagram_of
        from .genotype import SSRGenotype

        assert isinstance(genotype, SSRGenotype)
        return diagram_of(genotype)

    def operator_modules(self, settings: Mapping[str, Any], classes: int, size: Size) -> dict[str, OperatorModule]:
        from ...settings import parse_settings
        from .expected import shapes_of_space
        from .operator_modules import module_of
        from .search_space import SSRSearchSpace

        shapes = shapes_of_space(parse_settings(SSRSearchSpace, settings, what="space"), classes, size)
        return {key: partial(module_of, shape) for key, shape in shapes.items()}


SPACE = SSRSpace()
