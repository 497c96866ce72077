"""An optimiser that follows a network which shrank: what it remembers of each number that survives stays, bit for bit.

A parameter that shrank is a new one, so an optimiser has to be made anew. Its memory (Adam's two moments, SGD's
momentum) has the parameter's shape and is cut as the parameter was; its step counters have no shape and stay as they
are; memory of what is gone is let go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from ..choices import Cuts

Parameters = Mapping[str, nn.Parameter]
Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def cut(tensor: Tensor, cuts: tuple[Tensor | None, ...]) -> Tensor:
    """The kept part of a tensor along each dimension, in memory of its own; None keeps a whole dimension."""
    for dimension, kept in enumerate(cuts):
        if kept is not None:
            tensor = tensor.index_select(dimension, kept.to(tensor.device))
    return tensor


def carried_over(
    optimiser: torch.optim.Optimizer, before: Parameters, after: Parameters, cuts: Cuts, make: Make
) -> torch.optim.Optimizer:
    """A new optimiser of the parameters `after`, which remembers what the old one did of the parameters `before`.

    Args:
        before: parameters by name before the network shrank, those that `optimiser` moves.
        after: the same names less those that are gone.
        cuts: how those that changed were cut; see `searchkit.supernet.Supernet.shrink`.
        make: makes the optimiser, as the old one was made.
    """
    fresh = make(after.values())
    for name, parameter in after.items():
        old = before[name]
        memory = optimiser.state.get(old)
        if memory:
            kept = cuts.get(name, ())
            fresh.state[parameter] = {key: _followed(value, old, parameter, kept) for key, value in memory.items()}
    return fresh


def _followed(value: object, old: nn.Parameter, new: nn.Parameter, cuts: tuple[Tensor | None, ...]) -> object:
    # A step counter has no dimension.
    if not isinstance(value, Tensor) or not value.dim() or value.shape != old.shape:
        return value
    return _laid_out(cut(value, cuts), new)


def _laid_out(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """In memory as the parameter is: fused optimisers go through both number by number, whatever the strides say."""
    return value if value.stride() == parameter.stride() else torch.empty_like(parameter.detach()).copy_(value)


def named_state(optimiser: torch.optim.Optimizer, parameters: Parameters) -> dict[str, Tensor]:
    """All tensors that an optimiser remembers, as `<parameter's name>/<key>`."""
    found = {}
    for name, parameter in parameters.items():
        for key, value in optimiser.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found[f"{name}/{key}"] = value
    return found


def restore_named_state(optimiser: torch.optim.Optimizer, parameters: Parameters, state: Mapping[str, Tensor]) -> None:
    """Take over what `named_state` gave into a fresh optimiser of the same parameters.

    Raises:
        KeyError, ValueError: a parameter is unknown, or a tensor has another shape than it should.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for place, tensor in state.items():
        name, _, key = place.rpartition("/")
        if tensor.numel() > 1 and tensor.shape != parameters[name].shape:
            raise ValueError(place)
        same = tensor.dim() > 0 and tensor.shape == parameters[name].shape
        found.setdefault(name, {})[key] = _laid_out(tensor, parameters[name]) if same else tensor
    indices = {name: index for index, name in enumerate(parameters)}
    # By way of the optimiser's own loading, which knows where each tensor belongs.
    tree = {"state": {indices[name]: memory for name, memory in found.items()}}
    optimiser.load_state_dict(tree | {"param_groups": optimiser.state_dict()["param_groups"]})
