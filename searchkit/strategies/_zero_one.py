"""The zero-one losses of FairDARTS (Chu et al., ECCV 2020): they push each sigmoid away from 1/2, to 0 or to 1.

L2: -(1/N) sum (sigmoid - 1/2)^2, the one FairDARTS uses. L1: -(1/N) sum |sigmoid - 1/2|, its alternative. Candidates
are pushed one by one: several of a choice may go to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..choices import ChoiceTable


def zero_one_losses(table: ChoiceTable, power: int) -> Tensor:
    """-|sigmoid - 1/2|^power of each choice, a mean over its live candidates; 0 where there is nothing to choose."""
    distance = table.dense(table.scores().sigmoid() - 0.5, fill=0.0).abs() ** power
    live = table.alive_mask.sum(dim=1)
    return torch.where(live > 1, -distance.sum(dim=1) / live.clamp(min=1), 0.0)
