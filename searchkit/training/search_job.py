"""What a search is given, and what it tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..sizes import Size
from ..strategies import Strategy
from ..supernet import Supernet
from .distributed import ALONE, World
from .loader import Samples
from .search_limits import UNLIMITED, Limits
from .search_recipe import SearchRecipe


@dataclass(frozen=True)
class SearchJob:
    """What is searched, on what, and how.

    Attributes:
        build: the supernet, drawn from torch's generator.
        lead: the strategy, for the supernet's levels.
        resolution: of the pictures that the supernet sees.
        train, validation: samples; those of `train` at `recipe.stored` times the resolution.
        identity: SHA-256 of everything that decides the search, data included.
        world: this process among those that share the search.
    """

    build: Callable[[], Supernet]
    lead: Callable[[tuple[str, ...]], Strategy]
    recipe: SearchRecipe
    resolution: Size
    seed: int
    train: Samples
    validation: Samples
    identity: str
    device: torch.device
    limits: Limits = UNLIMITED
    workers: int = 0
    world: World = ALONE


@dataclass(frozen=True)
class SearchReport:
    """What is told after every step; `entropy` and `alive` are those of the last row of the history."""

    step: int
    steps: int
    loss: float
    steps_per_s: float
    entropy: float
    alive: int
    undecided: int


Listener = Callable[[SearchReport], None]
