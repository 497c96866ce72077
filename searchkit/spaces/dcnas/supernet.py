"""The DCNAS supernet: all networks of a `DCNASSearchSpace` in one.

Source: Zhang et al., CVPR 2021, Eq. 1 to 4 and 7. Shapes: N batch, C channels, H and W of the input.

The connections' weights of a module are divided by their sum, so that one which is decided is the mean of its inputs,
as in the discrete network. What weighs nothing is not computed: neither connections and operators of weight 0, nor
modules from which no connection of weight leads to the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ...choices import Alive, Cuts, Weights, numbers_of
from ...costs.expected import Part, Price
from ...genotype import SCHEMA
from ...recomputing import recomputed
from ...sizes import Size
from ...supernet import Quality, Supernet
from . import expected
from .decoding import kept, reached
from .genotype import RATES, DCNASGenotype, DCNASModule, Place, arranged, width_at
from .network import Head, InvertedResidual, Maps, ShapeAlignment, Stem
from .search_space import DCNASSearchSpace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...genotype import Provenance


class MixtureLayer(nn.Module):
    """All live operators of a module over a part of its channels; the others go past them (Eq. 7).

    Args:
        channels: of input and output.
        operators: (kernel, expansion) of each.
        partial: one in so many channels goes through, the first ones: the mask never changes.
        shuffle: mix the channels behind.

    Attributes:
        columns: of the operators that live, in the table.
    """

    def __init__(self, channels: int, operators: tuple[tuple[int, int], ...], *, partial: int, shuffle: bool) -> None:
        super().__init__()
        self.part, self.groups = channels // partial, partial if shuffle else 1
        self.columns = list(range(len(operators)))
        self.operators = nn.ModuleDict({f"k{k}e{e}": InvertedResidual(self.part, k, e) for k, e in operators})

    def forward(self, x: Tensor, columns: list[int], weights: list[Tensor]) -> Tensor:
        """N x C x H x W of the same: Eq. 7 over some operators, by their columns in the table."""
        live = dict(zip(self.columns, self.operators.values(), strict=True))
        through, past = x[:, : self.part], x[:, self.part :]
        terms = [weight * live[column](through) for column, weight in zip(columns, weights, strict=True)]
        mixed = sum(terms[1:], start=terms[0])
        if past.shape[1]:
            mixed = torch.cat([mixed, past], dim=1)
        return nn.functional.channel_shuffle(mixed, self.groups) if self.groups > 1 else mixed

    def shrink(self, live: np.ndarray) -> None:
        """Keep these columns of the table."""
        for column, name in zip(self.columns, list(self.operators), strict=True):
            if not live[column]:
                del self.operators[name]
        self.columns = [column for column in self.columns if live[column]]


class MixedModule(nn.Module):
    """M(s, l) with all that may be chosen of it."""

    def __init__(self, space: DCNASSearchSpace, place: Place) -> None:
        super().__init__()
        self.place = place
        sources = [source for source in space.sources() if source.layer < place.layer]
        self.align = ShapeAlignment(space.channels, place.rate, sources)
        self.mixture = MixtureLayer(
            width_at(space.channels, place.rate), space.operators(), partial=space.partial, shuffle=space.shuffle
        )

    def forward(
        self,
        maps: Maps,
        image: Size,
        sources: Sequence[Place],
        shares: Sequence[Tensor],
        columns: list[int],
        weights: list[Tensor],
    ) -> Tensor:
        """What the module makes of some of its sources, by some of its operators.

        Args:
            shares: weights of the sources, which sum to 1.
            columns: of the operators, in the table; `weights` are theirs.
        """
        mixed: Tensor = self.mixture(self.align(maps, image, sources, shares), columns, weights)
        return mixed


class _Pooled(Maps):
    """What a module reads, pooled beforehand: others read it too, so it is not computed again with the module."""

    def __init__(self, maps: Maps, sources: Sequence[Place], rate: int) -> None:
        super().__init__()
        for source in sources:
            at = max(source.rate, rate)
            self._maps[source, at] = maps.at(source, at)


class DCNASSupernet(Supernet):
    """The relaxed network; logits N x classes x H/4 x W/4, rounded up.

    Args:
        space: what can be chosen.
        classes: output channels of the head.

    Attributes:
        checkpointing: whether fusion modules keep what they read alone and compute it all again in the backward pass.
    """

    def __init__(self, space: DCNASSearchSpace, classes: int) -> None:
        super().__init__(space.tables())
        self.space, self.classes, self.checkpointing = space, classes, False
        self.sources = space.sources()
        self.stem = Stem(space.stem, space.channels, RATES)
        self.fusion = nn.ModuleDict({place.key: MixedModule(space, place) for place in space.places()})
        self.head = Head(space.channels, space.head, classes)

    def forward(self, image: Tensor, weights: Weights) -> Tensor:
        size, maps = Size(*image.shape[-2:]), Maps()
        connections, operators = (_Taken(weights[name], self.tables[name].alive) for name in ("connection", "operator"))
        there = reached(connections.mask)
        connections.keep(there)
        operators.keep(there)
        self.stem(image, maps)
        for row, place in enumerate(self.space.places()):
            if there[row]:
                module: MixedModule = self.fusion[place.key]  # type: ignore[assignment]
                columns, shares = connections.of(row, normalised=True)
                sources = [self.sources[column] for column in columns]
                given = size, sources, shares, *operators.of(row)
                if self.checkpointing:
                    mixed = recomputed(module, module, _Pooled(maps, sources, place.rate), *given)
                else:
                    mixed = module(maps, *given)
                maps.add(place, mixed)
        return self.head(maps, size, self.space.layers)

    def closed(self, alive: Alive) -> Alive:
        there = reached(alive["connection"])[:, None]
        return {name: mask & there for name, mask in alive.items()}

    def shrink(self, alive: Alive) -> Cuts:
        cuts: Cuts = {
            f"choice_tables.{name}.logits": (table.shrink(alive[name]),) for name, table in self.tables.items()
        }
        connections, operators = alive["connection"], alive["operator"]
        for row, place in enumerate(self.space.places()):
            if place.key not in self.fusion:
                continue
            if not connections[row].any():
                del self.fusion[place.key]
                continue
            module: MixedModule = self.fusion[place.key]  # type: ignore[assignment]
            read = {self.sources[column].key for column in np.flatnonzero(connections[row])}
            for key in set(module.align.convs) - read:
                del module.align.convs[key]
            module.mixture.shrink(operators[row])
        self._shrink_stem(connections)
        return cuts

    def _shrink_stem(self, connections: np.ndarray) -> None:
        """The stem is as deep as something reads it."""
        read = np.flatnonzero(connections[:, : len(RATES)].any(axis=0))
        deepest = int(read[-1]) if len(read) else 0
        for rate in RATES[deepest + 1 :]:
            if str(rate) in self.stem:
                del self.stem[str(rate)]

    def parts(self, weights: Weights, size: Size) -> list[Part]:
        return expected.parts(self.space, self.classes, weights, self.alive(), size)

    def cheapest(self, alive: Alive, price: Price, size: Size) -> Alive:
        return expected.cheapest(self.space, self.classes, alive, price, size)

    def weighed(
        self, preferences: Mapping[str, np.ndarray], quality: Quality, cost: Callable[[Alive], float]
    ) -> Mapping[str, np.ndarray]:
        """Connections that decoding does not keep get 0, which says that they are not wanted; `closed` does the rest of
        the breadth-first search."""
        p = preferences["connection"]
        wanted = kept(p, self.alive()["connection"], self.space.threshold, self.space.inputs)
        return {**preferences, "connection": np.where(wanted, p, 0.0)}

    def derive(self, alive: Alive, provenance: Provenance) -> DCNASGenotype:
        """The discrete network; that the open points of the paper were chosen is added to its description."""
        return derived(self.space, self.classes, alive, provenance)

    def searched(self, provenance: Provenance) -> tuple[DCNASGenotype, dict[str, Tensor]] | None:
        """None with partial channels: operators over a part of the channels are not those of the network."""
        if self.space.partial > 1:
            return None
        genotype = self.derive(self.alive(), provenance)
        return genotype, self.discrete_state(genotype)

    def discrete_state(self, genotype: DCNASGenotype) -> dict[str, Tensor]:
        """Where every choice is decided, and all channels go through the operators: the derived network's state dict.

        Raises:
            ValueError: a choice is undecided, or only a part of the channels goes through.
        """
        if self.undecided() or self.space.partial > 1:
            raise ValueError("some choice is undecided, or channels go past the operators")
        places = [place for place in self.space.places() if place.key in self.fusion]
        numbers = {place.key: module.place.key for place, module in zip(places, genotype.modules, strict=True)}
        numbers |= {Place(0, rate).key: Place(0, rate).key for rate in RATES}
        state = {}
        for name, tensor in self.state_dict().items():
            path = name.split(".")
            if path[0] == "choice_tables":
                continue
            if path[0] == "fusion":
                path[1] = numbers[path[1]]
                if path[2] == "align":
                    path[4] = numbers[path[4]]
                else:
                    # mixture.operators.k3e3
                    path[2:5] = ["operator"]
            state[".".join(path)] = tensor.detach().clone()
        return state


class _Taken:
    """What of a table weighs anything: rows x candidates, and its weights one by one.

    Where weights have no numbers (see `numbers_of`) that is all that lives: the most that a step can need.
    """

    def __init__(self, weights: Tensor, alive: np.ndarray) -> None:
        self.weights, numbers = weights, numbers_of(weights)
        self.mask: np.ndarray = alive.copy() if numbers is None else alive & (numbers != 0)
        self._places: dict[int, tuple[list[int], Tensor]] = {}

    def keep(self, rows: np.ndarray) -> None:
        """Forget all other rows, and take the weights apart."""
        self.mask &= rows[:, None]
        found, columns = np.nonzero(self.mask)
        flat = torch.from_numpy(found * self.mask.shape[1] + columns).to(self.weights.device)
        values = self.weights.flatten().index_select(0, flat)
        counts = self.mask.sum(axis=1)
        for row, piece in enumerate(values.split(counts.tolist())):
            self._places[row] = np.flatnonzero(self.mask[row]).tolist(), piece

    def of(self, row: int, *, normalised: bool = False) -> tuple[list[int], list[Tensor]]:
        """Columns of a row and their weights, divided by their sum if asked for."""
        columns, values = self._places[row]
        return columns, list((values / values.sum() if normalised else values).unbind())


def derived(space: DCNASSearchSpace, classes: int, alive: Alive, provenance: Provenance) -> DCNASGenotype:
    """The discrete network of those modules that reach the head.

    Raises:
        ValueError: a module has several operators, or more connections than it may keep, or none.
    """
    operators, sources, modules = space.operators(), space.sources(), {}
    connections = alive["connection"]
    there = reached(connections)
    for row, place in enumerate(space.places()):
        if not there[row]:
            continue
        columns, (operator,) = np.flatnonzero(connections[row]), np.flatnonzero(alive["operator"][row])
        if not 0 < len(columns) <= space.inputs:
            raise ValueError(f"{place}: {len(columns)} connections, where 1 to {space.inputs} are kept")
        kernel, expansion = operators[int(operator)]
        modules[place] = DCNASModule(
            layer=place.layer,
            rate=place.rate,
            inputs=tuple((sources[int(column)].layer, sources[int(column)].rate) for column in columns),
            kernel=kernel,
            expansion=expansion,
        )
    return DCNASGenotype(
        schema=SCHEMA,
        space="dcnas",
        classes=classes,
        stem=space.stem,
        channels=space.channels,
        head=space.head,
        modules=arranged(modules, space.layers),
        provenance=_with_choices(space, provenance),
    )


def _with_choices(space: DCNASSearchSpace, provenance: Provenance) -> Provenance:
    """What the paper leaves open and this search has chosen."""
    words = (
        f"at most {space.inputs} inputs, kept by breadth-first search above {space.threshold:g} of the greatest, their "
        "mean; pooling or resize with a 1x1 convolution; no squeeze-and-excitation; strided stem, head at 1/4; "
        f"1 in {space.partial} channels searched"
    )
    description = f"{provenance.description}; {words}" if provenance.description else words
    return provenance.model_copy(update={"description": description[:256]})
