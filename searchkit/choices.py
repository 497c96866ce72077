"""What a search decides: choices, each a row of candidates with architecture parameters, of which fewer and fewer live.

Choices of one kind stand in one table (a row a choice, a column a candidate), so that a strategy relaxes hundreds of
them by a few tensor operations. Removing a candidate removes its architecture parameter: the tensor gets shorter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .errors import SearchFailedError

#: What lives, by table: bool, rows x candidates. A row without any is a choice that another decision made pointless.
Alive = dict[str, np.ndarray]

#: Relaxed choices, by table: float, rows x candidates, zero where a candidate is gone.
Weights = Mapping[str, Tensor]

#: What became of a tensor that shrank, by its name: for each dimension the indices that were kept, or None for all.
Cuts = dict[str, tuple[Tensor | None, ...]]


def with_numbers(weights: Tensor, numbers: np.ndarray) -> Tensor:
    """The same tensor, on the meta device, with the numbers that a search would have drawn for it."""
    weights.drawn_numbers = numbers  # type: ignore[attr-defined]
    return weights


def numbers_of(weights: Tensor) -> np.ndarray | None:
    """What weights are, by which a supernet decides what to compute.

    None on the meta device, where tensors have no values, unless `with_numbers` gave some: all that lives is to be
    computed then.
    """
    if weights.is_meta:
        return getattr(weights, "drawn_numbers", None)
    found = weights.detach().cpu()
    # NumPy has no bfloat16.
    numbers: np.ndarray = (found.float() if found.dtype == torch.bfloat16 else found).numpy()
    return numbers


@dataclass(frozen=True)
class Choice:
    """One choice, as a person sees it.

    Attributes:
        name: unique in its table, such as `8.3` (layer 3 of the 1/8 stage).
        table, level: where it stands.
        candidates: names of those that live.
    """

    name: str
    table: str
    level: str
    candidates: tuple[str, ...]


class ChoiceTable(nn.Module):
    """Choices between the same candidates.

    Args:
        name: unique in the supernet.
        level: what kind of decision it is; strategies weigh levels, and shrink them in the supernet's order.
        rows: names of the choices.
        candidates: names of the candidates, the same in every row.
        keeps: with how many live candidates a choice is decided: more than one where a network takes several, such as
            the connections that lead to a node.

    Attributes:
        logits: architecture parameters of the live candidates, row by row, one after the other; they start at 0.
    """

    def __init__(
        self, name: str, level: str, rows: Sequence[str], candidates: Sequence[str], *, keeps: int = 1
    ) -> None:
        super().__init__()
        self.name, self.level, self.keeps = name, level, keeps
        self.rows, self.candidates = tuple(rows), tuple(candidates)
        self._alive = np.ones((len(self.rows), len(self.candidates)), dtype=bool)
        self.logits = nn.Parameter(torch.zeros(self._alive.size))
        self.register_buffer("_places", torch.arange(self._alive.size), persistent=False)

    @property
    def alive(self) -> np.ndarray:
        """A copy: bool, rows x candidates."""
        return self._alive.copy()

    @property
    def alive_mask(self) -> Tensor:
        """The same as a tensor beside the logits."""
        places: Tensor = self._places  # type: ignore[assignment]
        mask = torch.zeros(self._alive.size, dtype=torch.bool, device=places.device)
        return mask.index_fill_(0, places, True).view(self._alive.shape)

    def scores(self) -> Tensor:
        """What strategies relax: one value a live candidate, in the order of the logits. They are the logits, unless a
        space lets other choices have a say in them."""
        return self.logits

    def dense(self, values: Tensor | None = None, *, fill: float = float("-inf")) -> Tensor:
        """Values of the live candidates (`scores` if None) as rows x candidates, `fill` where one is gone."""
        flat = self.scores() if values is None else values
        if flat.numel() == self._alive.size:
            return flat.view(self._alive.shape)
        places: Tensor = self._places  # type: ignore[assignment]
        return flat.new_full((self._alive.size,), fill).index_copy(0, places, flat).view(self._alive.shape)

    def live(self, dense: Tensor) -> Tensor:
        """The opposite of `dense`: the entries of the live candidates, in the order of the logits."""
        places: Tensor = self._places  # type: ignore[assignment]
        return dense.flatten().index_select(0, places)

    def undecided(self) -> int:
        """How many choices have more live candidates than `keeps`."""
        return int((self._alive.sum(axis=1) > self.keeps).sum())

    def choices(self) -> Iterator[Choice]:
        """Those that are not pointless yet."""
        for row, alive in zip(self.rows, self._alive, strict=True):
            if alive.any():
                names = tuple(name for name, lives in zip(self.candidates, alive, strict=True) if lives)
                yield Choice(row, self.name, self.level, names)

    def shrink(self, alive: np.ndarray) -> Tensor:
        """Remove what does not live any more; returns the kept indices of the logits.

        The parameter is a new one, with the kept entries of the old: an optimiser has to be told.

        Raises:
            ValueError: a candidate that is gone is to live again.
        """
        if alive.shape != self._alive.shape or (alive & ~self._alive).any():
            raise ValueError(f"{self.name}: a candidate that is gone cannot come back")
        kept = torch.from_numpy(np.flatnonzero(alive[self._alive])).to(self.logits.device)
        self.logits = nn.Parameter(self.logits.detach()[kept].clone(), requires_grad=self.logits.requires_grad)
        places = torch.from_numpy(np.flatnonzero(alive)).to(self.logits.device)
        self.register_buffer("_places", places, persistent=False)
        self._alive = alive.copy()
        return kept


def alive_of(tables: Mapping[str, ChoiceTable]) -> Alive:
    """What lives in all tables."""
    return {name: table.alive for name, table in tables.items()}


def check_choosable(before: Alive, after: Alive) -> None:
    """Raise `SearchFailedError` where a strategy would remove the last candidate of a choice.

    To be asked of what a strategy wants, before the supernet adds the choices that become pointless by it.
    """
    for name, alive in after.items():
        emptied = before[name].any(axis=1) & ~alive.any(axis=1)
        if emptied.any():
            raise SearchFailedError(
                "the last candidate of a choice would be removed",
                where=f"{name}, row {int(np.flatnonzero(emptied)[0])}",
                fix="lower the threshold of the strategy",
            )


def one_hot(weights: Mapping[str, np.ndarray], alive: Alive) -> Alive:
    """In every choice, the live candidate of the greatest weight alone; the first of equals."""
    decided = {}
    for name, mask in alive.items():
        chosen = np.where(mask, weights[name], -np.inf).argmax(axis=1)
        decided[name] = mask & (np.arange(mask.shape[1]) == chosen[:, None])
    return decided
