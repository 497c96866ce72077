"""Settings and losses by level."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import PlainValidator
from torch import Tensor

from ..choices import ChoiceTable
from ..errors import UsageError
from . import Settings, Tables

#: Stands for the levels that are not named.
OTHER = "other"
_MOST = 1e6


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        raise ValueError("a number from 0 to 1e6, or a table of one by level")
    return float(value)


def _per_level(value: object) -> float | dict[str, float]:
    if not isinstance(value, Mapping):
        return _number(value)
    return {str(level): _number(number) for level, number in value.items()}


#: One number for all levels, or one by level.
PerLevel = Annotated[float | dict[str, float], PlainValidator(_per_level)]

#: A loss of each row of a table; 0 for rows that are decided or pointless.
RowLosses = Callable[[ChoiceTable], Tensor]


def by_level(settings: Settings, field: str, levels: Iterable[str]) -> dict[str, float]:
    """A `PerLevel` setting as a number for each level.

    Raises:
        UsageError: a level that a person named is not of this space, or one is left without a number. Defaults may
            name levels of other spaces.
    """
    value, levels = getattr(settings, field), tuple(levels)
    if not isinstance(value, Mapping):
        return dict.fromkeys(levels, float(value))
    strangers = sorted(set(value) - set(levels) - {OTHER})
    if strangers and field in settings.model_fields_set:
        allowed = ", ".join([*levels, OTHER])
        raise UsageError("no such level", where=f"{field} of the strategy", got=strangers[0], allowed=allowed)
    missing = [level for level in levels if level not in value and OTHER not in value]
    if missing:
        fix = f"add it, or `{OTHER}` for all levels that are not named"
        raise UsageError("a level has no number", where=f"{field} of the strategy", got=missing[0], fix=fix)
    return {level: float(value.get(level, value.get(OTHER, 0.0))) for level in levels}


def level_losses(tables: Tables, row_losses: RowLosses, combine: Literal["mean", "sum"]) -> dict[str, Tensor]:
    """A scalar for each level: the mean or the sum over the rows of all its tables.

    The mean is over the choices that are not pointless, decided ones included: as layers are decided, their share is
    not handed to the others.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for table in tables.values():
        loss = row_losses(table).sum()
        sums[table.level] = sums[table.level] + loss if table.level in sums else loss
        counts[table.level] = counts.get(table.level, 0) + int(table.alive.any(axis=1).sum())
    if combine == "sum":
        return sums
    return {level: total / max(counts[level], 1) for level, total in sums.items()}


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum over levels of weight x loss (SSR paper, Eq. 10)."""
    return torch.stack([weights[level] * loss for level, loss in losses.items()]).sum()
