"""A stage's optimiser and its learning rate at each step."""

from __future__ import annotations

import torch
from torch import nn

from .recipe import Poly, Stage


def learning_rate(stage: Stage, step: int, steps: int) -> float:
    """The learning rate of a step, the first being 0; linear warm-up, then the recipe's schedule."""
    schedule, base = stage.schedule, stage.optimiser.lr
    if step < schedule.warmup_steps:
        return base * (step + 1) / (schedule.warmup_steps + 1)
    if isinstance(schedule, Poly):
        return base * float((1 - step / steps) ** schedule.power)
    return base * float(schedule.gamma ** (step // schedule.every))


def make_optimiser(stage: Stage, model: nn.Module) -> torch.optim.Optimizer:
    """A fresh optimiser of a stage."""
    how = stage.optimiser
    if how.name == "adam":
        return torch.optim.Adam(model.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    return torch.optim.SGD(model.parameters(), lr=how.lr, weight_decay=how.weight_decay, momentum=how.momentum)
