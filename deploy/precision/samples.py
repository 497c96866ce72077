"""Pictures of a data set at a model's input size, to calibrate on and to measure on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from searchkit.data import Dataset, Sample
from searchkit.pictures import resize_picture
from searchkit.sizes import Size

from ..contracts import Contract

#: Of decoded samples that stay in memory; further ones are read again each time.
_MAX_BYTES = 512 * 2**20


class Samples:
    """Some samples of one split, their pictures resized, their labels as stored; iterated as often as needed.

    Args:
        indices: which ones, in order.
        size: of the pictures.
    """

    def __init__(self, dataset: Dataset, split: str, indices: Sequence[int], size: Size) -> None:
        self.dataset, self.split, self.indices, self.size = dataset, split, indices, size
        self._kept: dict[int, Sample] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Sample]:
        return (self._sample(index) for index in self.indices)

    def described(self) -> dict[str, object]:
        """What they are, as JSON: enough to have the same ones again."""
        fingerprint = self.dataset.fingerprint(self.split)
        return {
            "dataset": self.dataset.kind,
            "split": self.split,
            "fingerprint": fingerprint,
            "pictures": len(self),
            "resolution": str(self.size),
        }

    def _sample(self, index: int) -> Sample:
        if index in self._kept:
            return self._kept[index]
        found = self.dataset.read(self.split, index)
        sample = Sample(resize_picture(found.image, self.size), found.labels)
        size_bytes = sample.image.nbytes + sample.labels.nbytes
        if self._kept_bytes + size_bytes <= _MAX_BYTES:
            self._kept[index] = sample
            self._kept_bytes += size_bytes
        return sample


class Batches:
    """The pictures of `samples` as a contract's input tensors; iterated as often as needed.

    Args:
        tell: called after each with how many were given out, and of how many.
    """

    def __init__(self, contract: Contract, samples: Samples, tell: Callable[[int, int], None]) -> None:
        self._contract, self._samples, self._tell = contract, samples, tell

    def __iter__(self) -> Iterator[np.ndarray]:
        for done, sample in enumerate(self._samples, 1):
            yield self._contract.encode(sample.image)
            self._tell(done, len(self._samples))
