"""What can be chosen in a DCNAS search, and how its choices are named.

Source: Zhang et al., CVPR 2021, section 3.1 and 4.1. The tables of choices, in hierarchical order:

| table | level | a row is | candidates |
|---|---|---|---|
| `connection` | `connection` | a fusion module, `2_8`: layer 2, 1/8 | what it may read (beta, Eq. 3): `0_4`, stem 1/4 |
| `operator` | `operator` | the same | `k5e6`: a block of kernel 5, expansion 6 (alpha, Eq. 1) |

All that stands in an earlier layer may be read, so that there are 8L(L + 1) connections. A module keeps at most
`inputs` of them; the head reads the last layer's four modules, and those from which it cannot be reached go. How many a
module keeps, how many are sampled, and the threshold of the decoding are not published.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ...choices import ChoiceTable
from ...genotype import EXACT, Part
from .genotype import EXPANSIONS, KERNELS, MAX_LAYERS, RATES, Expansion, Kernel, Place, Width, places_before


class DCNASSearchSpace(Part):
    """The candidates; layers, width, operators and partial channels are the paper's (section 4.1)."""

    layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)] = Field(default=14, description="L")
    channels: Width = Field(default=64, description="F: channels at 1/4, doubled at each halving")
    stem: Width = Field(default=32, description="channels of the first convolution, at 1/2")
    head: Width = Field(default=64, description="channels at which the last layer's maps are added")
    inputs: Annotated[int, Field(ge=1, le=4 * MAX_LAYERS)] = Field(
        default=3, description="at most so many connections are kept of each module"
    )
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5,
        description="a connection is kept whose probability is at least this share of its module's greatest",
    )
    kernels: Annotated[tuple[Kernel, ...], Field(min_length=1)] = KERNELS
    expansions: Annotated[tuple[Expansion, ...], Field(min_length=1)] = EXPANSIONS
    partial: Annotated[Literal[1, 2, 4, 8], EXACT] = Field(
        default=4, description="in the search one in so many channels goes through the operators (Eq. 7); 1 is all"
    )
    shuffle: bool = Field(
        default=False, description="mix the channels behind the operators, as PC-DARTS does; needs partial channels"
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        for name, values in (("kernels", self.kernels), ("expansions", self.expansions)):
            if list(values) != sorted(set(values)):
                raise ValueError(f"{name}: not in ascending order, or one is named twice")
        if self.channels % self.partial:
            raise ValueError(f"channels: with partial = {self.partial}, a multiple of {self.partial}")
        if self.shuffle and self.partial == 1:
            raise ValueError("shuffle: where all channels go through the operators there is nothing to mix")
        return self

    def operators(self) -> tuple[tuple[Kernel, Expansion], ...]:
        """(kernel, expansion) of the candidates of a mixture layer."""
        return tuple((kernel, expansion) for kernel in self.kernels for expansion in self.expansions)

    def places(self) -> tuple[Place, ...]:
        """Those of the fusion modules, layer by layer, from 1/4 to 1/32."""
        return places_before(self.layers + 1)[len(RATES) :]

    def sources(self) -> tuple[Place, ...]:
        """All that any module may read: the stem's pyramid, and the modules of all layers but the last."""
        return places_before(self.layers)

    def connections(self) -> int:
        """8L(L + 1) (section 3.3)."""
        return 8 * self.layers * (self.layers + 1)

    def tables(self) -> dict[str, ChoiceTable]:
        """Both tables, everything alive that the grid allows."""
        rows = [place.key for place in self.places()]
        connection = ChoiceTable(
            "connection", "connection", rows, [source.key for source in self.sources()], keeps=self.inputs
        )
        layers = np.array([place.layer for place in self.places()])
        before = np.array([source.layer for source in self.sources()])[None] < layers[:, None]
        assert int(before.sum()) == self.connections()
        connection.shrink(before)
        operator = ChoiceTable("operator", "operator", rows, [f"k{k}e{e}" for k, e in self.operators()])
        return {table.name: table for table in (connection, operator)}
