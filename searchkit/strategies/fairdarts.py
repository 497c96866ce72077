"""FairDARTS: independent sigmoids and a zero-one loss, nothing is removed before the end.

Source: Chu et al., ECCV 2020: the loss is minus the mean squared distance of the sigmoids to 1/2, of weight 10 (here
for each level). Its rule to keep every operator above 0.85 is for cells whose edges may hold several operators; a
choice here keeps one, so the search ends with the greatest.

Sigmoids do not sum to 1. With sums of widths in sums of operators in 17 layers, their factors multiply: at the start
the stream would grow by 22.5 in each layer of the full SSR space. So the weights are sigmoid x 2/n over n live
candidates: a constant, which leaves candidates independent, and gives every choice the sum 1 at the start (between 0
and 2 later). `scaled = false` takes them as they are, which suits spaces of one level.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ..choices import ChoiceTable
from . import Settings, Strategy, Tables
from ._levels import PerLevel, by_level, level_losses, weighted_sum
from ._relaxations import sigmoid
from ._zero_one import zero_one_losses


class FairDARTSSettings(Settings):
    """The published weight."""

    weight: PerLevel = Field(default=10.0, description="of the zero-one loss of a level: a number, or one by level")
    scaled: bool = Field(default=True, description="sigmoids times 2/n over n live candidates, instead of as they are")


class FairDARTS(Strategy):
    """Sigmoids that do not compete."""

    settings_type = FairDARTSSettings
    sums_to_one = False
    settings: FairDARTSSettings

    def __init__(self, settings: FairDARTSSettings, levels: tuple[str, ...]) -> None:
        super().__init__(settings, levels)
        self.weights = by_level(settings, "weight", levels)

    def probabilities(self, table: ChoiceTable) -> Tensor:
        """Sigmoids, scaled or not; 1 where a choice is decided."""
        live = table.alive_mask.sum(dim=1, keepdim=True)
        found = sigmoid(table)
        if self.settings.scaled:
            found = found * 2 / live.clamp(min=1)
        return found.where(live > 1, table.alive_mask.to(found.dtype))

    def regularize(self, tables: Tables) -> Tensor:
        """Minus the mean over a level's candidates of (sigmoid - 1/2)^2, times its weight."""
        losses = level_losses(tables, lambda table: zero_one_losses(table, power=2), "mean")
        return weighted_sum(losses, self.weights)


STRATEGY = FairDARTS
