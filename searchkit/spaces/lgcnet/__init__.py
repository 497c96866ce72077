"""LGCNet (and GAS): independent cells guided from cell to cell, and a searched dense-connected fusion cell.

Paper: Cheng et al., "Local-to-Global Information Communication for Real-Time Semantic Segmentation Network Search". No
code was released; what the paper leaves open is chosen here and said in `wiring`, `operators`, `network`, `guidance`
and `validity`.
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
    from .genotype import LGCNetGenotype


class LGCNetSpace(Space):
    """The space of LGCNet; see `genotype.py`."""

    @property
    def name(self) -> str:
        return "lgcnet"

    @property
    def genotype_type(self) -> type[LGCNetGenotype]:
        from .genotype import LGCNetGenotype

        return LGCNetGenotype

    def build(self, genotype: Genotype, *, training_heads: bool = False) -> nn.Module:
        from .genotype import LGCNetGenotype
        from .network import LGCNet

        assert isinstance(genotype, LGCNetGenotype)
        return LGCNet(genotype)

    def sample(self, rng: Random) -> LGCNetGenotype:
        from .sampling import sample

        return sample(rng)

    def supernet(self, settings: Mapping[str, Any], classes: int) -> Supernet:
        from ...settings import parse_settings
        from .search_space import LGCNetSearchSpace
        from .supernet import LGCNetSupernet

        return LGCNetSupernet(parse_settings(LGCNetSearchSpace, settings, what="space"), classes)

    def operator_keys(self, genotype: Genotype, size: Size) -> Iterable[str]:
        from .genotype import LGCNetGenotype, shapes_of

        assert isinstance(genotype, LGCNetGenotype)
        return (shape.key for _, shape in shapes_of(genotype, size))

    def diagram(self, genotype: Genotype, size: Size) -> Diagram:
        from .drawing import diagram
        from .genotype import LGCNetGenotype

        assert isinstance(genotype, LGCNetGenotype)
        return diagram(genotype, size)

    def operator_modules(self, settings: Mapping[str, Any], classes: int, size: Size) -> dict[str, OperatorModule]:
        from ...settings import parse_settings
        from .expected import shapes_of_space
        from .operator_modules import module_of
        from .search_space import LGCNetSearchSpace

        shapes = shapes_of_space(parse_settings(LGCNetSearchSpace, settings, what="space"), classes, size)
        return {key: partial(module_of, shape) for key, shape in shapes.items()}


SPACE = LGCNetSpace()
