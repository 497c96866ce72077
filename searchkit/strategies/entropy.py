"""Information entropy instead of the SSR loss, at a multiple of its weights; shrinking as in SSR.

Source: Ye et al., IJCV 2022, section 6, Tables 13 and 14: -sum p log p, at 1, 2 and 3 times SSR's weights (IE(W),
IE(2W), IE(3W)), and, best on four dimensions, at 2, 3 and 4 times for depth, dilation and spatial, channel: the
default. How it is averaged is not published; here it is the mean over the choices of a level of each choice's
entropy. Where all candidates are nearly equal that falls at the same rate as SSR's mean, so that equal weights compare.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ..choices import ChoiceTable
from ._levels import OTHER, PerLevel, by_level
from ._relaxations import log_normalized_sigmoid
from ._shrinking import ShrinkingSettings, ShrinkingStrategy


class EntropySettings(ShrinkingSettings):
    """SSR's weights and threshold; multipliers as in the last IE row of Table 14."""

    multiplier: PerLevel = Field(
        default={"depth": 2.0, "dilation-spatial": 3.0, "channel": 4.0, OTHER: 3.0},
        description="of the weights: a number, as 3 for IE(3W), or one by level",
    )


class Entropy(ShrinkingStrategy):
    """The entropy loss with progressive shrinking."""

    settings_type = EntropySettings
    settings: EntropySettings

    def __init__(self, settings: EntropySettings, levels: tuple[str, ...]) -> None:
        super().__init__(settings, levels)
        multipliers = by_level(settings, "multiplier", levels)
        self.weights = {level: weight * multipliers[level] for level, weight in self.weights.items()}

    def row_losses(self, table: ChoiceTable) -> Tensor:
        """-sum p log p, in nats."""
        logs = log_normalized_sigmoid(table)
        return -(self.probabilities(table) * logs).sum(dim=1)


STRATEGY = Entropy
