"""What can be chosen in an SSR search, and how its choices are named.

Source: Ye et al., IJCV 2022, section 3.1, Table 1 and 2, section 5.2. The tables of choices, in hierarchical order:

| table | level | a row is | candidates |
|---|---|---|---|
| `depth4`, `depth8` | `depth` | the stage at 1/4, at 1/8 | numbers of layers (alpha, Eq. 2) |
| `operator` | `dilation-spatial` | a layer, `4.0` the first at 1/4 | `d4s2`: dilation 4, spatial 2 (beta, Eq. 3) |
| `mid4`, `mid8` | `channel` | an operator of a layer, `4.0.d4s2` | widths of the 3x1 convolution (gamma, Eq. 5) |
| `out4`, `out8` | `channel` | the same | widths of the 1x3 convolution (gamma, Eq. 5) |

A dimension that is not searched has one candidate.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ...choices import ChoiceTable
from ...genotype import Part
from .genotype import DILATIONS, Dilation, Width

Dimension = Literal["depth", "dilation", "spatial", "channel"]
Depths = Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=64)]

#: Layers of the paper's baseline, where depth is not searched (section 5.4).
BASELINE_DEPTHS = (5, 8)
STAGES = ("4", "8")


class SSRSearchSpace(Part):
    """The candidates; the defaults are the paper's full space.

    Widths go from `channels` down by `width_steps` steps of `width_step` (the paper: C - 32 to C by 4).
    """

    dimensions: Annotated[tuple[Dimension, ...], Field(min_length=1)] = ("depth", "dilation", "spatial", "channel")
    depths: tuple[Depths, Depths] = ((3, 4, 5, 6, 7), (6, 7, 8, 9, 10))
    stem: Width = 16
    channels: tuple[Width, Width] = (64, 128)
    width_step: Annotated[int, Field(ge=1, le=1024)] = 4
    width_steps: Annotated[int, Field(ge=0, le=64)] = 8
    pool: Literal["average", "max"] = "average"
    mid_norm: bool = True
    head: Literal["aggregation", "classifier"] = Field(
        default="aggregation",
        description="of the derived network; the search itself has a 1x1 classifier (section 5.2)",
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if len(set(self.dimensions)) != len(self.dimensions):
            raise ValueError("dimensions: one is named twice")
        for depths in self.depths:
            if list(depths) != sorted(set(depths)):
                raise ValueError("depths: not in ascending order, or one is named twice")
        least = min(self.channels) - self.width_step * self.width_steps
        if least < 1:
            raise ValueError(f"width_steps: the narrowest width would be {least}")
        widest = (self.stem, *self.channels)
        if not 3 < widest[0] < widest[1] < widest[2]:
            raise ValueError("channels: a downsampler widens, so 3 < stem < channels[0] < channels[1]")
        return self

    def stage_depths(self, stage: int) -> tuple[int, ...]:
        """Numbers of layers of a stage (0 at 1/4, 1 at 1/8), ascending."""
        return self.depths[stage] if "depth" in self.dimensions else (BASELINE_DEPTHS[stage],)

    def operators(self) -> tuple[tuple[Dilation, Literal[1, 2]], ...]:
        """(dilation, spatial) of the candidates of a layer, those of one spatial resolution together."""
        dilations: tuple[Dilation, ...] = DILATIONS if "dilation" in self.dimensions else (1,)
        spatials: tuple[Literal[1, 2], ...] = (1, 2) if "spatial" in self.dimensions else (1,)
        return tuple((dilation, spatial) for spatial, dilation in product(spatials, dilations))

    def widths(self, stage: int) -> tuple[int, ...]:
        """Widths of the convolutions of a stage, ascending."""
        most = self.channels[stage]
        steps = self.width_steps if "channel" in self.dimensions else 0
        return tuple(most - self.width_step * k for k in range(steps, -1, -1))

    def layers(self, stage: int) -> tuple[str, ...]:
        """Names of the layers of a stage, as many as its greatest depth."""
        return tuple(f"{STAGES[stage]}.{index}" for index in range(self.stage_depths(stage)[-1]))

    def tables(self) -> dict[str, ChoiceTable]:
        """All tables of choices, everything alive."""
        names = [f"d{dilation}s{spatial}" for dilation, spatial in self.operators()]
        rows = {
            stage: [f"{layer}.{name}" for layer in self.layers(i) for name in names] for i, stage in enumerate(STAGES)
        }
        tables = [
            *(
                ChoiceTable(f"depth{stage}", "depth", (stage,), tuple(map(str, self.stage_depths(i))))
                for i, stage in enumerate(STAGES)
            ),
            ChoiceTable("operator", "dilation-spatial", (*self.layers(0), *self.layers(1)), names),
            *(
                ChoiceTable(f"{which}{stage}", "channel", rows[stage], tuple(map(str, self.widths(i))))
                for which in ("mid", "out")
                for i, stage in enumerate(STAGES)
            ),
        ]
        return {table.name: table for table in tables}

    def log10_size(self) -> float:
        """The size as the paper counts it (section 5.2): (9 x 9)^((2 x 5) x (7 + 10)) + 5 x 5, so 324.44 for the full
        space: the widths of every operator of every layer, whichever of them is taken in the end, plus the depths.

        Where widths are not searched, the operators of every layer in their place. `log10_networks` counts networks.
        """
        layers = sum(len(self.layers(stage)) for stage in (0, 1))
        operators = len(self.operators())
        exponent = sum(2 * len(self.layers(s)) * operators * math.log10(len(self.widths(s))) for s in (0, 1))
        if "channel" not in self.dimensions:
            exponent = layers * math.log10(operators)
        depths = len(self.stage_depths(0)) * len(self.stage_depths(1))
        return exponent + math.log1p(depths * 10.0**-exponent) / math.log(10)

    def log10_networks(self) -> float:
        """How many discrete networks there are: an operator and two widths in each layer that a depth keeps."""
        total = 0.0
        for stage in (0, 1):
            a_layer = math.log10(len(self.operators()) * len(self.widths(stage)) ** 2)
            depths = [a_layer * depth for depth in self.stage_depths(stage)]
            most = max(depths)
            total += most + math.log10(sum(10.0 ** (depth - most) for depth in depths))
        return total
