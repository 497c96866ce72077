"""DCNAS: fusion modules at 1/4 to 1/32, each of which may read all that stand in earlier layers.

Paper: Zhang et al., "DCNAS: Densely Connected Neural Architecture Search for Semantic Image Segmentation", CVPR 2021.
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
    from .genotype import DCNASGenotype


class DCNASSpace(Space):
    """The space of DCNAS; see `genotype.py`."""

    @property
    def name(self) -> str:
        return "dcnas"

    @property
    def genotype_type(self) -> type[DCNASGenotype]:
        from .genotype import DCNASGenotype

        return DCNASGenotype

    def build(self, genotype: Genotype, *, training_heads: bool = False) -> nn.Module:
        from .genotype import DCNASGenotype
        from .network import DCNASNet

        assert isinstance(genotype, DCNASGenotype)
        return DCNASNet(genotype)

    def sample(self, rng: Random) -> DCNASGenotype:
        from .genotype import sample

        return sample(rng)

    def supernet(self, settings: Mapping[str, Any], classes: int) -> Supernet:
        from ...settings import parse_settings
        from .search_space import DCNASSearchSpace
        from .supernet import DCNASSupernet

        return DCNASSupernet(parse_settings(DCNASSearchSpace, settings, what="space"), classes)

    def operator_keys(self, genotype: Genotype, size: Size) -> Iterable[str]:
        from .genotype import DCNASGenotype
        from .operators import shapes_of

        assert isinstance(genotype, DCNASGenotype)
        return (shape.key for shape in shapes_of(genotype, size))

    def diagram(self, genotype: Genotype, size: Size) -> Diagram:
        from .drawing import diagram
        from .genotype import DCNASGenotype

        assert isinstance(genotype, DCNASGenotype)
        return diagram(genotype, size)

    def operator_modules(self, settings: Mapping[str, Any], classes: int, size: Size) -> dict[str, OperatorModule]:
        from ...settings import parse_settings
        from .expected import shapes_of_space
        from .operator_modules import module_of
        from .search_space import DCNASSearchSpace

        shapes = shapes_of_space(parse_settings(DCNASSearchSpace, settings, what="space"), classes, size)
        return {key: partial(module_of, shape) for key, shape in shapes.items()}


SPACE = DCNASSpace()
