"""The two optimisers of a search: of the network's weights, and of the architecture parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ..choices import Cuts
from ..supernet import Supernet
from .carry_over import Make, Parameters, carried_over
from .optimisation import optimiser_of
from .search_checkpoint import Optimisers
from .search_recipe import SearchRecipe


def make_weight_optimiser(recipe: SearchRecipe) -> Make:
    """Makes the optimiser of the weights."""
    how = recipe.weights.optimiser

    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        if how.name != "adam":
            return optimiser_of(how, parameters)
        # A supernet has hundreds of small parameters: one kernel for all is several times faster, on CPUs too.
        return torch.optim.Adam(parameters, lr=how.lr, weight_decay=how.weight_decay, fused=True)

    return make


def make_architecture_optimiser(recipe: SearchRecipe) -> Make:
    """Makes the optimiser of the architecture parameters."""
    how = recipe.architecture
    return lambda parameters: torch.optim.Adam(parameters, lr=how.lr, betas=how.betas, weight_decay=how.weight_decay)


def make_optimisers(recipe: SearchRecipe, supernet: Supernet) -> Optimisers:
    """Fresh ones of a supernet as it is."""
    return Optimisers(
        make_weight_optimiser(recipe)(supernet.network_parameters().values()),
        make_architecture_optimiser(recipe)(supernet.architecture_parameters().values()),
    )


def shrunk_optimisers(
    recipe: SearchRecipe, old: Optimisers, before: tuple[Parameters, Parameters], supernet: Supernet, cuts: Cuts
) -> Optimisers:
    """New ones of a supernet that shrank, which remember what the old ones did.

    Args:
        before: parameters of the network and of the architecture before it shrank.
        cuts: how it shrank.
    """
    network, architecture = before
    return Optimisers(
        carried_over(old.weights, network, supernet.network_parameters(), cuts, make_weight_optimiser(recipe)),
        carried_over(
            old.architecture,
            architecture,
            supernet.architecture_parameters(),
            cuts,
            make_architecture_optimiser(recipe),
        ),
    )
