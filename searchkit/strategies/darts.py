"""DARTS: softmax, no regularizer, nothing is removed before the end.

Source: Liu et al., ICLR 2019, first-order form. The search ends with the candidate of the greatest weight in every
choice: the discretization gap that the SSR paper measures (its Fig. 5 and 6).
"""

from __future__ import annotations

from torch import Tensor

from ..choices import ChoiceTable
from . import Strategy
from ._relaxations import softmax


class DARTS(Strategy):
    """Softmax over the live candidates."""

    def probabilities(self, table: ChoiceTable) -> Tensor:
        """Softmax over the live candidates."""
        return softmax(table)


STRATEGY = DARTS
