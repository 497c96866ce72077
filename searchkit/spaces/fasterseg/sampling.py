"""The passes that a step trains the supernet on, and how a pass says what runs.

Source: Chen et al., ICLR 2020, appendices C and F. In the search: the teacher with the widest connections, the student
with widths drawn by Gumbel-softmax (temperature 1), with the widest, with the narrowest. Before it: the widest, the
narrowest and two of random widths, operators and paths taking equal parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ...choices import Alive, Weights, numbers_of
from .search_space import TEACHER, FasterSegSearchSpace


class Pass(dict[str, Tensor]):
    """Weights of one pass.

    Attributes:
        teacher: whether the teacher's cells, paths, stem and head run, all with the widest connections.
        columns: of each row of `width` the candidate that runs, where each has one; else the weights say.
    """

    def __init__(self, weights: Weights, *, teacher: bool = False, columns: np.ndarray | None = None) -> None:
        super().__init__(weights)
        self.teacher, self.columns = teacher, columns


def search_passes(space: FasterSegSearchSpace, alive: Alive, weights: Weights) -> Iterator[Pass]:
    """Teacher, student, widest and narrowest; the last two where there is more than one width."""
    if space.teacher:
        names = [name for name in weights if name.startswith(TEACHER)]
        taught = {name.removeprefix(TEACHER): weights[name] for name in names}
        # The branches are chosen for the student.
        yield Pass({**weights, **taught, "branches": weights["branches"].detach()}, teacher=True)
    yield sampled(alive["width"], weights) if space.sampled_widths else Pass(weights)
    if (alive["width"].sum(axis=1) > 1).any():
        for widest in (True, False):
            yield with_widths(weights, extreme(alive["width"], widest=widest))


def warmup_passes(space: FasterSegSearchSpace, alive: Alive, weights: Weights) -> Iterator[Pass]:
    """Widest, narrowest and two at random, all of uniform operators and paths."""
    equal = {name: _uniform(mask, weights[name]) for name, mask in alive.items()}
    mask = alive["width"]
    yield with_widths(equal, extreme(mask, widest=True))
    if (mask.sum(axis=1) > 1).any():
        yield with_widths(equal, extreme(mask, widest=False))
        for _ in range(2):
            yield with_widths(equal, np.where(mask, torch.rand(mask.shape, device="cpu").numpy(), -1.0).argmax(axis=1))


def sampled(alive: np.ndarray, weights: Weights) -> Pass:
    """One width a connection, drawn by the weights, which are those of a strategy that does not draw itself.

    Straight-through: the weight of what is drawn is 1, with the gradient of the softmax of log weights and noise.
    """
    given = weights["width"]
    noise = -torch.empty(given.shape, device="cpu").exponential_().clamp(min=torch.finfo(torch.float32).tiny).log()
    numbers = numbers_of(given)
    if numbers is None:
        return with_widths(weights, np.where(alive, noise.numpy(), -np.inf).argmax(axis=1))
    if ((numbers > 0).sum(axis=1) <= 1).all():
        return Pass(weights, columns=(numbers > 0).argmax(axis=1))
    mask = torch.from_numpy(alive).to(given.device)
    logs = given.clamp(min=torch.finfo(given.dtype).tiny).log() + noise.to(given)
    soft = logs.masked_fill(~mask, -1e30).softmax(dim=1) * mask
    columns = soft.detach().masked_fill(~mask, -1.0).argmax(dim=1)
    hard = torch.nn.functional.one_hot(columns, mask.shape[1]).to(soft.dtype) * mask
    return Pass({**weights, "width": hard + (soft - soft.detach())}, columns=columns.cpu().numpy())


def with_widths(weights: Weights, columns: np.ndarray) -> Pass:
    """These weights with one width a connection."""
    given = weights["width"]
    hard = torch.zeros(given.shape, dtype=given.dtype, device="cpu")
    hard[torch.arange(len(columns)), torch.from_numpy(columns)] = 1
    return Pass({**weights, "width": hard.to(given.device)}, columns=columns)


def extreme(alive: np.ndarray, *, widest: bool) -> np.ndarray:
    """The last, or the first, live column of each row; the very last or first of a row that has none."""
    columns = np.arange(alive.shape[1])
    found = np.where(alive, columns, -1).max(axis=1) if widest else np.where(alive, columns, alive.shape[1]).min(axis=1)
    clipped: np.ndarray = found.clip(0, alive.shape[1] - 1)
    return clipped


def _uniform(alive: np.ndarray, like: Tensor) -> Tensor:
    share = alive / np.maximum(alive.sum(axis=1, keepdims=True), 1)
    return torch.from_numpy(share).to(like)


def values_of(weights: Mapping[str, Tensor]) -> dict[str, np.ndarray | None]:
    """Weights as numbers; None where they have none, see `numbers_of`."""
    return {name: numbers_of(tensor) for name, tensor in weights.items()}
