"""Straight-through Gumbel-softmax: each step runs one sampled candidate a choice, at a falling temperature.

Source: Lin et al., TPAMI 2021 (GAS), temperature from 1.0 to 0.03, whose schedule is not published: here it falls
exponentially, from decision point to decision point. The sample is a one-hot weight forward and that of the tempered
softmax backward (Jang et al., ICLR 2017). Nothing is removed before the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..choices import Alive, ChoiceTable
from . import Feasible, Progress, Settings, Strategy, Tables
from ._relaxations import masked_softmax, softmax

_Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]


class GumbelSettings(Settings):
    """The published temperatures."""

    start_temperature: _Temperature = Field(default=1.0, description="until the first decision point")
    end_temperature: _Temperature = Field(default=0.03, description="from the last decision point on")


class Gumbel(Strategy):
    """Samples of the softmax, one-hot."""

    settings_type = GumbelSettings
    settings: GumbelSettings

    def __init__(self, settings: GumbelSettings, levels: tuple[str, ...]) -> None:
        super().__init__(settings, levels)
        self._temperature = settings.start_temperature

    def probabilities(self, table: ChoiceTable) -> Tensor:
        """Softmax over the live candidates, at temperature 1: how often each is sampled."""
        return softmax(table)

    def relax(self, table: ChoiceTable) -> Tensor:
        """One-hot samples, exactly 0 and 1, with the gradient of the softmax of (logits + noise) / temperature."""
        smallest = torch.finfo(table.logits.dtype).tiny
        noise = -torch.empty_like(table.logits).exponential_().clamp(min=smallest).log()
        soft = masked_softmax(table, (table.scores() + noise) / self._temperature)
        mask = table.alive_mask
        taken = soft.detach().masked_fill(~mask, -1.0).argmax(dim=1)
        hard = F.one_hot(taken, mask.shape[1]).to(soft.dtype) * mask
        return hard + (soft - soft.detach())

    def decide(self, tables: Tables, progress: Progress, feasible: Feasible) -> Alive:
        """Lower the temperature; remove nothing."""
        start, end = self.settings.start_temperature, self.settings.end_temperature
        self._temperature = start * (end / start) ** ((progress.decision + 1) / progress.decisions)
        return super().decide(tables, progress, feasible)

    def state(self) -> dict[str, Any]:
        """The temperature."""
        return {"temperature": self._temperature}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        if set(state) != {"temperature"} or not float(state["temperature"]) > 0:
            raise ValueError("not the state of this strategy: it has a `temperature` above 0 alone")
        self._temperature = float(state["temperature"])


STRATEGY = Gumbel
