"""FasterSeg: two or more branches at different rates, zoomed convolutions, widths searched by superkernels.

Paper: Chen et al., "FasterSeg: Searching for Faster Real-time Semantic Segmentation", ICLR 2020.
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
    from .genotype import FasterSegGenotype


class FasterSegSpace(Space):
    """The space of FasterSeg; see `genotype.py`."""

    decoding_rules = ("joint", "release")

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

    def supernet(self, settings: Mapping[str, Any], classes: int) -> Supernet:
        from ...settings import parse_settings
        from .search_space import FasterSegSearchSpace
        from .supernet import FasterSegSupernet

        return FasterSegSupernet(parse_settings(FasterSegSearchSpace, settings, what="space"), classes)

    def decode(self, tree: Mapping[str, Any], rule: str) -> tuple[FasterSegGenotype, dict[str, Genotype]]:
        from .parameter_file import networks_of

        return networks_of(tree, rule)

    def operator_keys(self, genotype: Genotype, size: Size) -> Iterable[str]:
        from .genotype import FasterSegGenotype
        from .operators import shapes_of

        assert isinstance(genotype, FasterSegGenotype)
        return (shape.key for shape in shapes_of(genotype, size))

    def operator_modules(self, settings: Mapping[str, Any], classes: int, size: Size) -> dict[str, OperatorModule]:
        from ...settings import parse_settings
        from .expected import shapes_of_space
        from .operator_modules import module_of
        from .search_space import FasterSegSearchSpace

        shapes = shapes_of_space(parse_settings(FasterSegSearchSpace, settings, what="space"), classes, size)
        return {key: partial(module_of, shape) for key, shape in shapes.items()}

    def diagram(self, genotype: Genotype, size: Size) -> Diagram:
        from .diagram import diagram_of
        from .genotype import FasterSegGenotype

        assert isinstance(genotype, FasterSegGenotype)
        return diagram_of(genotype)


SPACE = FasterSegSpace()
