"""Solution space regularization: push the smallest down, drop what falls below a tenth of the greatest.

Source: Ye et al., IJCV 2022, sections 3.2 to 3.5. Sigmoids normalised over the live candidates; the SSR loss, sum of
log p (Eq. 9), for each level with weights 0.15 (depth), 0.3 (dilation and spatial), 0.3 (channel) (Eq. 10, Table 14);
at every decision point candidates of p / max p <= 0.1 are removed (Eq. 11), level after level.

The paper does not say how Eq. 9 is averaged over layers; its published code takes means (`average = "mean"`). There the
widths of the two convolutions of an operator are two levels of weight 0.15 each. Both have as many choices, so that the
mean over all of them with weight 0.3 is the same number.

The optimiser's weight decay is part of the method. Candidates of a choice may rise together, until their sigmoids
hardly move; decay draws them back to where they can be told apart. Where it outweighs the loss, all stay equal instead.
In the published code all losses are 100 times as large as in the paper, at a decay of 1e-3: as Adam divides the sum of
gradient and decay by its size, that is a decay of 1e-5 at the paper's weights.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ..choices import ChoiceTable
from ._relaxations import log_normalized_sigmoid
from ._shrinking import ShrinkingSettings, ShrinkingStrategy

Average = Literal["mean", "choices", "total", "sum"]


class SSRSettings(ShrinkingSettings):
    """Weights and threshold as published; `average` as in the published code."""

    average: Average = Field(
        default="mean",
        description="mean: over choices, of the mean of log p over the n live candidates plus log n; choices: mean "
        "over choices of the sum of log p; total: sum over choices of that mean; sum: over choices and candidates",
    )


class SSR(ShrinkingStrategy):
    """The SSR loss with progressive shrinking."""

    settings_type = SSRSettings
    settings: SSRSettings

    def __init__(self, settings: SSRSettings, levels: tuple[str, ...]) -> None:
        super().__init__(settings, levels)
        self.combine = "sum" if settings.average in ("total", "sum") else "mean"

    def row_losses(self, table: ChoiceTable) -> Tensor:
        """Sum of log p (Eq. 9); with `mean` and `total`, divided by the number n of live candidates, plus log n: 0 when
        uniform."""
        sums = log_normalized_sigmoid(table).sum(dim=1)
        if self.settings.average in ("choices", "sum"):
            return sums
        live = table.alive_mask.sum(dim=1).clamp(min=1)
        return sums / live + torch.log(live.to(sums.dtype))


STRATEGY = SSR
