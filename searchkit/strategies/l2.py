"""FairDARTS' zero-one loss in the L2 form instead of the SSR loss; shrinking as in SSR.

Source: Ye et al., IJCV 2022, Table 6, which takes the loss from FairDARTS (Chu et al., ECCV 2020): minus the mean of
(sigmoid - 1/2)^2 over the candidates. It acts on the sigmoids before they are normalised, as in FairDARTS: several
candidates of a choice may go to 1, and then none of them can be dropped, which is the reason that the SSR paper gives
for its slower search. The weight in Table 6 is not published; the default is FairDARTS' 10, for each level.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ..choices import ChoiceTable
from ._levels import PerLevel
from ._shrinking import ShrinkingSettings, ShrinkingStrategy
from ._zero_one import zero_one_losses


class L2Settings(ShrinkingSettings):
    """FairDARTS' weight, SSR's threshold."""

    weight: PerLevel = Field(default=10.0, description="of the loss of a level: a number, or one by level")


class L2(ShrinkingStrategy):
    """The zero-one loss in the L2 form with progressive shrinking."""

    settings_type = L2Settings

    def row_losses(self, table: ChoiceTable) -> Tensor:
        """Minus the mean of (sigmoid - 1/2)^2."""
        return zero_one_losses(table, power=2)


STRATEGY = L2
