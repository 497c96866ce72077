"""An optimiser of a recipe and its learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import nn

from .recipe import Exponential, Optimiser, Poly, Schedule, Stage


class Scheduled(Protocol):
    """What has an optimiser and a schedule: a stage of a training, or the weights of a search."""

    @property
    def optimiser(self) -> Optimiser: ...

    @property
    def schedule(self) -> Schedule: ...


def learning_rate(stage: Scheduled, step: int, steps: int) -> float:
    """The learning rate of a step, the first being 0; linear warm-up, then the recipe's schedule.

    The formulas are those of `Poly`, `Exponential` and `Cosine`.
    """
    schedule, base = stage.schedule, stage.optimiser.lr
    if step < schedule.warmup_steps:
        return base * (step + 1) / (schedule.warmup_steps + 1)
    if isinstance(schedule, Poly):
        return base * float((1 - step / steps) ** schedule.power)
    if isinstance(schedule, Exponential):
        return base * float(schedule.gamma ** (step // schedule.every))
    done, falls = step - schedule.warmup_steps, steps - schedule.warmup_steps - 1
    # One step alone has the rate that a fall starts with.
    return schedule.last_lr + (base - schedule.last_lr) * (1 + math.cos(math.pi * done / max(falls, 1))) / 2


def make_optimiser(stage: Stage, model: nn.Module) -> torch.optim.Optimizer:
    """A fresh optimiser of a stage."""
    return optimiser_of(stage.optimiser, model.parameters())


def optimiser_of(how: Optimiser, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """A fresh optimiser of these parameters, in this order."""
    if how.name == "adam":
        return torch.optim.Adam(parameters, lr=how.lr, weight_decay=how.weight_decay)
    return torch.optim.SGD(parameters, lr=how.lr, weight_decay=how.weight_decay, momentum=how.momentum)
