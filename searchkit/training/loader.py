"""Batches at an address: batch `step` of a stage depends on the seed and the step, never on what was read before.

Threads augment ahead of the loop: decoding and resizing let go of the interpreter, a memory-mapped cache needs no
copy, and there is no /dev/shm to run out of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..data import Sample
from ..sizes import Size
from .augment import ORDER, Address, augment, generator
from .recipe import Augmentation

_AHEAD = 2


class Samples(Protocol):
    """What batches are made of, such as a `searchkit.training.cache.Cache`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@lru_cache(maxsize=4)
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of one pass through `count` samples."""
    return generator(seed, ORDER, epoch).permutation(count)


@dataclass(frozen=True)
class Batches:
    """The batches of one stage.

    Passes through the data run on without a break: a batch may hold the end of one pass and the start of the next, so
    that no sample is left out.

    Args:
        first: how many samples earlier stages have taken.
        rank, ranks: this process takes every `ranks`-th sample of a batch of `batch`, from the `rank`-th on.
    """

    samples: Samples
    seed: int
    augmentation: Augmentation
    crop: Size
    batch: int
    first: int = 0
    rank: int = 0
    ranks: int = 1

    def address(self, position: int) -> Address:
        """The sample at a position of the endless stream."""
        epoch, place = divmod(position, len(self.samples))
        return Address(self.seed, epoch, int(order(self.seed, epoch, len(self.samples))[place]))

    def load(self, step: int) -> tuple[Tensor, Tensor]:
        """Images N x 3 x H x W, float32, and labels N x H x W, uint8."""
        start = self.first + step * self.batch
        images, labels = [], []
        for position in range(start + self.rank, start + self.batch, self.ranks):
            address = self.address(position)
            image, label = augment(self.samples[address.index], self.augmentation, self.crop, address)
            images.append(image)
            labels.append(label)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))

    def iterate(self, start: int, stop: int, workers: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Batches `start` to `stop` - 1, made ahead by `workers` threads; by the caller's own where that is 0."""
        if workers == 0:
            yield from map(self.load, range(start, stop))
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="batch")
        waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
        try:
            for step in range(start, stop):
                while len(waiting) < workers + _AHEAD and step + len(waiting) < stop:
                    waiting.append(pool.submit(self.load, step + len(waiting)))
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
