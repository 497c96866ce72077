"""What a step of a search draws, for a supernet on the meta device, whose weights have no values."""

from __future__ import annotations

import numpy as np
import torch

from ..choices import ChoiceTable
from ..settings import parse_settings
from ..strategies import STRATEGIES
from ..supernet import Supernet
from .search_recipe import SearchRecipe

#: Relaxed weights by table: rows x candidates.
Numbers = dict[str, np.ndarray]


def drawn(supernet: Supernet, recipe: SearchRecipe, seed: int, updates: int) -> list[Numbers] | None:
    """The weights that the recipe's strategy gives in each of so many updates; None where it draws nothing.

    All candidates that live are equally probable, as where a search begins.
    """
    kind = STRATEGIES.load(recipe.strategy.name)
    settings = parse_settings(kind.settings_type, recipe.strategy.settings, what="strategy")
    strategy = kind(settings, supernet.levels)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        tables = {name: _without_preference(table) for name, table in supernet.tables.items()}
        torch.manual_seed(seed)
        found = [{name: strategy.relax(table).numpy() for name, table in tables.items()} for _ in range(updates)]
    samples = any((table.alive & (numbers[name] == 0)).any() for numbers in found for name, table in tables.items())
    return found if samples else None


def _without_preference(table: ChoiceTable) -> ChoiceTable:
    """The same choices and candidates, with scores of 0."""
    found = ChoiceTable(table.name, table.level, table.rows, table.candidates, keeps=table.keeps)
    found.shrink(table.alive)
    return found
