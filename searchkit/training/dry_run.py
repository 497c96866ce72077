"""What a search step needs, found by going through it on the meta device: nothing is allocated, nothing is computed.

Both updates of a step are gone through as the search makes them, forward, backward and the optimiser's; every storage
that an operator returns is followed from its birth to its end. What a kernel takes for itself while it runs, the
allocator's rounding and the runtime's own memory are not seen.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..choices import Weights, with_numbers
from ..sizes import Size
from ..supernet import Supernet
from .draws import Numbers, drawn
from .meta_operators import MetaOperators, Operators, called
from .optimisation import optimiser_of
from .search_computing import configured, heads_loss, held_still, precision
from .search_recipe import SearchRecipe


@dataclass
class _Storage:
    """One that lives or has lived; its number is its own, while its address is given to another when it ends.

    Attributes:
        born, ended: numbers of the ledger's moments; None while it lives.
    """

    reference: weakref.ref[torch.UntypedStorage]
    size: int
    number: int
    born: int
    ended: int | None = None


class Ledger(TorchDispatchMode):
    """Follows the storages that operators return, and the bytes that operators read and write.

    Attributes:
        live_bytes, peak_bytes: of storages that came into being since it was made, or were handed to `follow`.
        traffic_bytes: sizes of the inputs and outputs of all operators but views.

    Args:
        operators: how operators are called.
    """

    def __init__(self, operators: Operators = called) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = self.traffic_bytes = self._flops = 0
        self._operators = operators
        self._live: dict[int, _Storage] = {}
        self._known: list[_Storage] = []
        self._numbers = itertools.count()
        self._moment = self._peak_at = 0

    def restart(self) -> None:
        """Forget peak, traffic and MACs; what lives is still known."""
        self.peak_bytes, self.traffic_bytes, self._flops = self.live_bytes, 0, 0
        self._peak_at, self._known = self._moment, list(self._live.values())

    @property
    def macs(self) -> int:
        """Since `restart`."""
        return self._flops // 2

    @property
    def at_peak(self) -> dict[int, int]:
        """The storages that lived at the peak, by their numbers, with their sizes."""
        at = self._peak_at
        there = (each for each in self._known if each.born <= at and (each.ended is None or each.ended > at))
        return {each.number: each.size for each in there}

    def follow(self, tensors: Iterable[Tensor | None]) -> set[int]:
        """Numbers of the tensors' storages, which are followed from now on; no two storages ever share one."""
        present = [tensor.untyped_storage() for tensor in tensors if tensor is not None]
        for storage in present:
            self._follow(storage)
        return {self._live[storage._cdata].number for storage in present}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        done = self._operators(func, args, kwargs or {})
        grown = False
        for tensor in done.given:
            grown |= self._follow(tensor.untyped_storage())
        if grown and self.live_bytes > self.peak_bytes:
            self.peak_bytes, self._peak_at = self.live_bytes, self._moment
        self.traffic_bytes += done.traffic_bytes
        self._flops += done.flops
        return done.result

    def _follow(self, storage: torch.UntypedStorage) -> bool:
        """Whether it is new."""
        key = storage._cdata
        if key in self._live:
            return False
        size = storage.nbytes()

        def ended(_: weakref.ref[torch.UntypedStorage]) -> None:
            self._moment += 1
            self._live.pop(key).ended = self._moment
            self.live_bytes -= size

        self._moment += 1
        found = _Storage(weakref.ref(storage, ended), size, next(self._numbers), self._moment)
        self._live[key] = found
        self._known.append(found)
        self.live_bytes += size
        return True


@dataclass(frozen=True)
class UpdateNeeds:
    """Of one update, of the architecture or of the weights.

    Attributes:
        peak_bytes: the most that lives at one time, everything counted.
        weights_bytes: parameters, buffers and architecture parameters.
        moments_bytes: what both optimisers remember.
        gradients_bytes: at the peak; where it is in a forward pass there are none.
        activations_bytes: the rest at the peak: the input, maps that wait for the backward pass, and intermediate ones.
        macs: of convolutions and matrix products, forward and backward.
        traffic_bytes: that operators read and write, each tensor counted at each use.
    """

    peak_bytes: int
    weights_bytes: int
    moments_bytes: int
    gradients_bytes: int
    activations_bytes: int
    macs: int
    traffic_bytes: int


@dataclass(frozen=True)
class StepNeeds:
    """Of a step: one update of the architecture parameters, then one of the weights.

    Attributes:
        state_bytes: weights and moments in a checkpoint.
    """

    architecture: UpdateNeeds
    weight: UpdateNeeds
    state_bytes: int

    @property
    def worst(self) -> UpdateNeeds:
        """The update with the higher peak."""
        return max(self.architecture, self.weight, key=lambda update: update.peak_bytes)

    @property
    def macs(self) -> int:
        """Of both updates."""
        return self.architecture.macs + self.weight.macs

    @property
    def traffic_bytes(self) -> int:
        """Of both updates."""
        return self.architecture.traffic_bytes + self.weight.traffic_bytes


def dry_run(supernet: Supernet, recipe: SearchRecipe, size: Size) -> StepNeeds:
    """The first of `dry_runs`."""
    return dry_runs(supernet, recipe, size, draws=1)[0]


def dry_runs(
    supernet: Supernet, recipe: SearchRecipe, size: Size, *, draws: int, operators: Operators | None = None
) -> tuple[StepNeeds, ...]:
    """Go through one step, not the first, of a search; several times where it draws what it computes.

    Args:
        supernet: on the meta device, in training mode.
        recipe: whose batch, loss, optimisers and ways of computing are taken, but for `compile`; weights are those of a
            softmax, of which its strategy says which are 0 (see `draws`), and the terms of strategy and budgets, which
            are small, are left out.
        size: of the pictures.
        draws: how often where the strategy draws, with the seeds 0, 1 and so on; else once.
        operators: what remembers what operators do; of this call alone if left out.
    """
    runs, found = _DryRun(supernet, recipe, size, operators or MetaOperators()), []
    for seed in range(draws):
        numbers = drawn(supernet, recipe, seed, 2)
        with _seeded(seed):
            found.append(runs.step(numbers))
        if numbers is None:
            break
    return tuple(found)


def dry_run_of_warmup(
    supernet: Supernet, recipe: SearchRecipe, size: Size, *, operators: Operators | None = None
) -> UpdateNeeds:
    """Go through one step, not the first, of those before the architecture learns; see `dry_run`."""
    with _seeded(0):
        return _DryRun(supernet, recipe, size, operators or MetaOperators()).warmup(drawn(supernet, recipe, 0, 1))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """What passes draw at random is the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class _DryRun:
    def __init__(self, supernet: Supernet, recipe: SearchRecipe, size: Size, operators: Operators) -> None:
        self.supernet, self.recipe, self.size = supernet, recipe, size
        self.forward = configured(supernet, recipe.model_copy(update={"compile": False}), torch.device("meta"))
        network, architecture = supernet.network_parameters(), supernet.architecture_parameters()
        self.parameters = [*network.values(), *architecture.values()]
        self.optimisers = (_optimiser(recipe, architecture.values()), _optimiser_of_weights(recipe, network.values()))
        self.ledger = Ledger(operators)
        self.weights = self.ledger.follow([*supernet.parameters(), *supernet.buffers()])
        # As after the step before: moments are there, gradients are not. A ledger of their own forgets the gradients.
        with Ledger(operators):
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter)
            for optimiser in self.optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
        self.moments = self.ledger.follow(
            value
            for optimiser in self.optimisers
            for state in optimiser.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        )
        self.state_bytes = self.ledger.live_bytes

    def step(self, draws: Sequence[Numbers] | None) -> StepNeeds:
        state, (first, second) = self.state_bytes, draws or (None, None)
        with held_still(self.supernet.network_parameters()):
            architecture = self._update(self.optimisers[0], first, relaxes=True)
        return StepNeeds(architecture, self._update(self.optimisers[1], second, relaxes=False), state)

    def warmup(self, draws: Sequence[Numbers] | None) -> UpdateNeeds:
        (only,) = draws or (None,)
        return self._update(self.optimisers[1], only, relaxes=False, warmup=True)

    def _update(
        self, optimiser: torch.optim.Optimizer, numbers: Numbers | None, *, relaxes: bool, warmup: bool = False
    ) -> UpdateNeeds:
        ledger = self.ledger
        ledger.restart()
        with ledger:
            with torch.set_grad_enabled(relaxes):
                relaxed = {name: torch.softmax(table.dense(), 1) for name, table in self.supernet.tables.items()}
            leaves = {name: weights.detach().requires_grad_(relaxes) for name, weights in relaxed.items()}
            for name, values in (numbers or {}).items():
                with_numbers(leaves[name], values)
            # The pictures of both updates are made together.
            batches = [self._batch() for _ in range(1 if warmup else 2)]
            for weights in self.supernet.passes(leaves, warmup=warmup):
                loss = self._loss(weights, *batches[0])
                if loss.requires_grad:
                    loss.backward()
                del loss
            moved = [(relaxed[name], leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None]
            torch.autograd.backward([tensor for tensor, _ in moved], [gradient for _, gradient in moved])
            optimiser.step()
        gradients = ledger.follow(parameter.grad for parameter in self.parameters)
        optimiser.zero_grad(set_to_none=True)
        return self._needs(gradients, ledger.macs)

    def _batch(self) -> tuple[Tensor, Tensor]:
        shape = (self.recipe.batch, *self.size)
        images = torch.empty(shape[0], 3, *self.size, device="meta")
        return images, torch.empty(shape, dtype=torch.uint8, device="meta")

    def _loss(self, weights: Weights, images: Tensor, labels: Tensor) -> Tensor:
        with precision(self.supernet, self.recipe, torch.device("cpu")):
            logits = self.forward(images, weights)
        return heads_loss(logits, labels.long(), self.supernet.head_weights, self.recipe.loss)

    def _needs(self, gradients: set[int], macs: int) -> UpdateNeeds:
        peak = self.ledger.at_peak

        def of(numbers: set[int]) -> int:
            return sum(size for number, size in peak.items() if number in numbers)

        known = self.weights | self.moments | gradients
        return UpdateNeeds(
            peak_bytes=self.ledger.peak_bytes,
            weights_bytes=of(self.weights),
            moments_bytes=of(self.moments),
            gradients_bytes=of(gradients),
            activations_bytes=sum(size for number, size in peak.items() if number not in known),
            macs=macs,
            traffic_bytes=self.ledger.traffic_bytes,
        )


def _optimiser(recipe: SearchRecipe, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    how = recipe.architecture
    return torch.optim.Adam(parameters, lr=how.lr, betas=how.betas, weight_decay=how.weight_decay)


def _optimiser_of_weights(recipe: SearchRecipe, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """As the search's, but not fused: the meta device has no fused kernels, and they keep the same moments."""
    return optimiser_of(recipe.weights.optimiser, parameters)
