"""BatchNorm learns from more than one value a channel: a search that has not so many is refused before it begins.

They can be too few only where a process has one picture at a time and a map of it is a single pixel: behind a global
pooling, or at the lowest resolution of a small picture. Recipes of trainings have two pictures at least.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ..errors import UsageError
from ..sizes import Size
from ..supernet import Supernet
from .distributed import World
from .search_recipe import SearchRecipe

#: How PyTorch's refusal begins, which is a ValueError.
_TOO_FEW = "Expected more than 1 value per channel"


def check_search(build: Callable[[], Supernet], recipe: SearchRecipe, size: Size, world: World) -> None:
    """Check all that the passes of a search may run, sampled or not.

    Args:
        build: the supernet; it is built on the meta device.
        size: of the pictures, where the recipe crops none.

    Raises:
        UsageError: a map of one picture is a single pixel, and each process has one picture.
    """
    for warmup, how in ((True, recipe.in_pretraining()), (False, recipe)):
        if how.batch == world.size:
            with torch.device("meta"):
                supernet = build().train()
            _check(partial(_passes, supernet, warmup), how.augmentation.crop_at(size), world)


def _passes(supernet: Supernet, warmup: bool, image: torch.Tensor) -> None:
    weights = {name: torch.softmax(table.dense(), 1) for name, table in supernet.tables.items()}
    for each in supernet.passes(weights, warmup=warmup):
        supernet(image, each)


def _check(forward: Callable[[torch.Tensor], object], crop: Size, world: World) -> None:
    try:
        # What passes draw must not shift what is drawn afterwards.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            forward(torch.empty(1, 3, *crop, device="meta"))
    except ValueError as error:
        if not str(error).startswith(_TOO_FEW):
            raise
        several = f", 2 for each of {world.size} processes" if world.size > 1 else ""
        raise UsageError(
            f"a map of one picture of {crop} is a single pixel, from which BatchNorm cannot learn",
            where="batch",
            got=world.size,
            allowed=f"at least {2 * world.size}{several}",
            fix="raise the batch",
        ) from None
