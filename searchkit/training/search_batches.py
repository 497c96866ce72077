"""What the two updates of a step learn from: halves of the training split, or the same batches; parts of a data set."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..data import Dataset, Problem, Sample
from ..files import sha256_bytes
from ..sizes import Size
from .augment import generator
from .distributed import World
from .evaluate import spread
from .loader import Batches, Samples
from .search_recipe import SearchRecipe
from .search_schedule import SearchSchedule

# A stream of the seed, beside those of `augment` and `search`.
SPLIT = 14

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Selection:
    """Some of the samples."""

    samples: Samples
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[int(self.indices[index])]


@dataclass(frozen=True)
class Streams:
    """Batches at an address, for the weights and for the architecture.

    Attributes:
        weights: of each phase, by the number of its first step; passes through the pictures run on from phase to phase.
        architecture: None where it learns from the batches of the weights.
    """

    weights: dict[int, Batches]
    architecture: Batches | None

    @classmethod
    def of(
        cls,
        recipe: SearchRecipe,
        schedule: SearchSchedule,
        samples: Samples,
        resolution: Size,
        seed: int,
        world: World,
    ) -> Streams:
        """The streams of a recipe; see `SearchRecipe.split`."""

        def batches(of: Samples, seed: int, how: SearchRecipe, taken: int = 0) -> Batches:
            crop = how.augmentation.crop_at(resolution)
            return Batches(of, seed, how.augmentation, crop, how.batch, taken, world.rank, world.size)

        def phases(of: Samples) -> dict[int, Batches]:
            return {phase.first: batches(of, seed, phase.recipe, phase.taken) for phase in schedule.phases}

        if recipe.split == "same":
            return cls(phases(samples), None)
        random = generator(seed, SPLIT, 0)
        order = random.permutation(len(samples))
        first = recipe.weight_pictures(len(samples))
        # Another seed, so that what is done to one half says nothing of what is done to the other.
        other = int(random.integers(2**63))
        halves = Selection(samples, order[:first]), Selection(samples, order[first:])
        return cls(phases(halves[0]), batches(halves[1], other, recipe))

    def iterate(
        self, start: int, stop: int, warmup: int | None, workers: int
    ) -> Generator[tuple[Batch, Batch | None], None, None]:
        """Of steps `start` to `stop` - 1, all of one phase, the batch of the weights and that of the architecture.

        Args:
            warmup: the step with which the architecture starts to learn; None: it has no batches.
        """
        begun = max(first for first in self.weights if first <= start)
        first = self.weights[begun].iterate(start - begun, stop - begun, workers)
        if warmup is None or self.architecture is None:
            with closing(first):
                for batch in first:
                    yield batch, None if warmup is None else batch
            return
        second = self.architecture.iterate(start - warmup, stop - warmup, workers)
        with closing(first), closing(second):
            yield from zip(first, second, strict=True)


class Excerpt(Dataset):
    """A data set of which fewer samples are used, evenly spread over each split.

    Args:
        limits: how many, by split; splits that are not named are whole.
    """

    def __init__(self, dataset: Dataset, limits: dict[str, int]) -> None:
        self.kind, self.labels = dataset.kind, dataset.labels
        self._dataset = dataset
        self._chosen = {split: spread(dataset.count(split), limits.get(split)) for split in dataset.splits()}

    def splits(self) -> tuple[str, ...]:
        return self._dataset.splits()

    def count(self, split: str) -> int:
        return len(self._chosen[split]) if split in self._chosen else self._dataset.count(split)

    def name(self, split: str, index: int) -> str:
        return self._dataset.name(split, self._chosen[split][index])

    def read(self, split: str, index: int) -> Sample:
        return self._dataset.read(split, self._chosen[split][index])

    def fingerprint(self, split: str) -> str:
        whole = self._dataset.fingerprint(split)
        chosen = self._chosen[split]
        return whole if len(chosen) == self._dataset.count(split) else sha256_bytes(f"{whole} {chosen}".encode())

    def check(self) -> Iterator[Problem]:
        return self._dataset.check()
