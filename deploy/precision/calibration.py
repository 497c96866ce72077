"""What int8 learns from: pictures of a data set, a method, and how much quality it may cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from searchkit.data import Dataset
from searchkit.errors import UsageError, VerificationError, unknown_name
from searchkit.sizes import Size
from searchkit.training.evaluate import spread

from .activations import largest_magnitudes, observe
from .samples import Samples
from .thresholds import METHODS, Histogram

#: Called with what is being done, how many pictures (or layers) are done, and of how many.
Progress = Callable[[str, int, int], None]

#: Pictures to measure mIoU on: the whole split where it has no more, else so many, spread evenly.
MIOU_PICTURES = 200
_SPLIT, _MIOU_SPLIT = "train", "val"


@dataclass(frozen=True)
class Calibration:
    """Pictures to find ranges on and to measure the loss on.

    Attributes:
        dataset: ranges come from its split `train` (its first split where it has none), mIoU is measured on `val`.
        method: how a range comes from magnitudes, one of `METHODS`.
        pictures: for the ranges, spread evenly over the split.
        max_miou_drop: in points of mIoU (0.5: from 68.0 % to 67.5 %); None for 1 % of the float32 mIoU in int8 and for
            0.1 points in fp16.
        rest: what int8 leaves of the network, `fp32` or `fp16`. fp16 is for GPUs: a CPU computes it in float32 and
            rounds.
        progress: told what is going on.

    Raises:
        UsageError: an unknown method or rest, no picture, or a negative drop.
    """

    dataset: Dataset
    method: str = "entropy"
    pictures: int = 64
    max_miou_drop: float | None = None
    rest: str = "fp32"
    progress: Progress | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown_name("calibration method", self.method, METHODS)
        if self.rest not in ("fp32", "fp16"):
            raise unknown_name("precision for the rest of an int8 model", self.rest, ("fp32", "fp16"))
        if self.pictures < 1:
            raise UsageError("no picture to calibrate on", got=self.pictures, allowed="at least 1")
        drop = self.max_miou_drop
        # Written so that NaN is refused.
        if drop is not None and not 0 <= drop <= 100:
            raise UsageError("the drop of mIoU is out of range", got=drop, allowed="0 to 100 points")

    @property
    def split(self) -> str:
        """Where the pictures for the ranges come from."""
        splits = self.dataset.splits()
        return _SPLIT if _SPLIT in splits else splits[0]

    def samples(self, size: Size, limit: int | None = None) -> Samples:
        """The pictures for the ranges, or `limit` of them.

        Raises:
            UsageError: the split is empty.
        """
        return _spread_samples(self.dataset, self.split, min(limit or self.pictures, self.pictures), size)

    def miou_samples(self, size: Size) -> Samples | None:
        """What mIoU is measured on; None where the data set has no split `val`."""
        if _MIOU_SPLIT not in self.dataset.splits() or not self.dataset.count(_MIOU_SPLIT):
            return None
        return _spread_samples(self.dataset, _MIOU_SPLIT, MIOU_PICTURES, size)

    def tell(self, what: str) -> Callable[[int, int], None]:
        """`progress` for one kind of work: call it with how many are done, and of how many."""
        progress = self.progress
        return (lambda done, total: progress(what, done, total)) if progress else _nothing


def _nothing(_done: int, _total: int) -> None:
    """Where nobody listens."""


def _spread_samples(dataset: Dataset, split: str, limit: int, size: Size) -> Samples:
    available = dataset.count(split)
    if not available:
        raise UsageError("no picture to calibrate on", where=f"{dataset.kind}, split {split}", fix="check its folder")
    return Samples(dataset, split, spread(available, limit), size)


def calibrate(model: bytes, names: Sequence[str], batches: Iterable[np.ndarray], method: str) -> dict[str, float]:
    """Activation -> the largest |x| that int8 shall represent.

    Args:
        model: serialised ONNX, float32.
        names: activations of it.
        batches: input tensors; iterated once or twice: ranges first, then histograms within them.
        method: one of `METHODS`.

    Raises:
        VerificationError: an activation is no number, or infinite.
    """
    largest = largest_magnitudes(model, names, batches)
    for name, value in largest.items():
        if not math.isfinite(value):
            raise VerificationError(
                "the float32 model computes no numbers on the calibration's pictures",
                where=f"activation {name}",
                got=value,
                fix="use weights of an earlier checkpoint",
            )
    if method == "minmax":
        return largest
    histograms = {name: Histogram(value) for name, value in largest.items()}
    for name, values in observe(model, names, batches):
        histograms[name].add(values)
    return {name: histogram.threshold(method) for name, histogram in histograms.items()}
