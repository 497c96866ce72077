"""Sampled paths: each step runs a few candidates of every choice of one level, drawn without replacement.

Source: Zhang et al., CVPR 2021 (DCNAS), section 3.3: n candidates of a choice are drawn from softmax(beta / tau)
without replacement (Eq. 5) and blended by weights that are normalised over those drawn (Eq. 6), tau falling from a high
to a small temperature. All other levels are plain softmax (Eq. 1). Nothing is removed before the end.

Neither n nor the temperatures nor the regularisers are published. Here n is as many as the choice may keep; the
temperature falls exponentially, from decision point to decision point; the weights are the softmax of beta at
temperature 1 (Eq. 3) over those drawn, so that the temperature decides what is explored and not how it is blended; and
the loss is the mean entropy of a level's choices (as in DiNTS, He et al., CVPR 2021, where its weight is 1), of weight
0 unless set, rising in a straight line from 0 at the first decision point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ..choices import Alive, ChoiceTable
from ..errors import UsageError
from . import Feasible, Progress, Settings, Strategy, Tables
from ._levels import PerLevel, by_level, level_losses, weighted_sum
from ._relaxations import masked_softmax, softmax

_Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
#: Far below any logarithm that is met with.
_GONE = -1e30


class SampledPathsSettings(Settings):
    """Which level is sampled, and how."""

    level: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        default="connection", description="whose candidates are drawn; a space without this level has plain softmax"
    )
    paths: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="n: how many are drawn of each choice; as many as it may keep if left out"
    )
    start_temperature: _Temperature = Field(default=5.0, description="tau until the first decision point")
    end_temperature: _Temperature = Field(default=0.2, description="tau from the last decision point on")
    entropy: PerLevel = Field(
        default=0.0, description="weight that the entropy of a level rises to: a number, or one by level"
    )


class SampledPaths(Strategy):
    """Gumbel top-n samples of one level, softmax of all others."""

    settings_type = SampledPathsSettings
    settings: SampledPathsSettings

    def __init__(self, settings: SampledPathsSettings, levels: tuple[str, ...]) -> None:
        super().__init__(settings, levels)
        if "level" in settings.model_fields_set and settings.level not in levels:
            raise UsageError(
                "no such level", where="level of the strategy", got=settings.level, allowed=", ".join(levels)
            )
        self.weights = by_level(settings, "entropy", levels)
        self._temperature, self._ramp = settings.start_temperature, 0.0

    def probabilities(self, table: ChoiceTable) -> Tensor:
        """Softmax over the live candidates, at temperature 1 (Eq. 1 and 3)."""
        return softmax(table)

    def relax(self, table: ChoiceTable) -> Tensor:
        """Of the sampled level, the softmax over what is drawn (Eq. 6), 0 elsewhere; of the others, over all."""
        if table.level != self.settings.level:
            return softmax(table)
        return masked_softmax(table, table.scores().masked_fill(~self._drawn(table), _GONE))

    @torch.no_grad()
    def _drawn(self, table: ChoiceTable) -> Tensor:
        """Which live candidates are drawn (Eq. 5), in the order of the logits: the n greatest of beta / tau + Gumbel
        noise, which is drawing from softmax(beta / tau) without replacement."""
        count = min(self.settings.paths or table.keeps, len(table.candidates))
        smallest = torch.finfo(table.logits.dtype).tiny
        noise = -torch.empty_like(table.logits).exponential_().clamp(min=smallest).log()
        keys = table.dense(table.scores() / self._temperature + noise, fill=_GONE)
        chosen = torch.zeros_like(keys, dtype=torch.bool)
        return table.live(chosen.scatter_(1, keys.topk(count, dim=1).indices, True))

    def regularize(self, tables: Tables) -> Tensor:
        """Sum over levels of weight x mean entropy of its choices, in nats, as far as it has risen."""
        weights = {level: self._ramp * weight for level, weight in self.weights.items()}
        return weighted_sum(level_losses(tables, _entropies, "mean"), weights)

    def decide(self, tables: Tables, progress: Progress, feasible: Feasible) -> Alive:
        """Lower the temperature, raise the entropy's weight; remove nothing."""
        start, end = self.settings.start_temperature, self.settings.end_temperature
        self._ramp = (progress.decision + 1) / progress.decisions
        self._temperature = start * (end / start) ** self._ramp
        return super().decide(tables, progress, feasible)

    def state(self) -> dict[str, Any]:
        """The temperature, and how far the entropy's weight has risen."""
        return {"temperature": self._temperature, "ramp": self._ramp}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        if set(state) != {"temperature", "ramp"} or not float(state["temperature"]) > 0:
            raise ValueError("not the state of this strategy: it has a `temperature` above 0 and a `ramp`")
        self._temperature, self._ramp = float(state["temperature"]), float(state["ramp"])


def _entropies(table: ChoiceTable) -> Tensor:
    """-sum p log p of each choice; 0 where it is decided or pointless."""
    mask = table.alive_mask
    logs = torch.where(mask, table.dense(fill=_GONE).log_softmax(dim=1), 0.0)
    undecided = mask.sum(dim=1) > table.keeps
    return torch.where(undecided, -(logs.exp() * mask * logs).sum(dim=1), 0.0)


STRATEGY = SampledPaths
