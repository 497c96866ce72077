"""`validation.png`: what the network sees now, as a few validation samples: picture beside truth beside prediction."""

from __future__ import annotations

import numpy as np

from ..data import Sample
from ..label_sets import LabelSet
from ..sizes import Size
from .drawing import FONT_PX, MARGIN_PX, band, heads, stacked, tiles, tiles_width
from .evaluate import spread

# Enough to see what goes wrong; TensorBoard keeps a sheet of them for every validation.
_SAMPLES = 3


class ValidationPictures:
    """Keeps the same few samples in every validation, evenly spread, so that sheets can be compared.

    Args:
        available: how many samples the validation has; at least one.
    """

    def __init__(self, available: int) -> None:
        self._wanted = frozenset(spread(available, _SAMPLES))
        self._seen: dict[int, tuple[Sample, np.ndarray]] = {}

    def add(self, index: int, sample: Sample, prediction: np.ndarray) -> None:
        """Take note of a sample and of its predicted labels, H x W, uint8, where it is one of those to show."""
        if index in self._wanted:
            self._seen[index] = (sample, prediction)

    def draw(self, labels: LabelSet, title: str) -> np.ndarray:
        """The sheet, RGB: a row a sample, over the legend of the classes. What has no label is black in the truth."""
        bands = [band([(MARGIN_PX, title)], 24), heads(("picture", "truth", "prediction"))]
        for index, (sample, prediction) in sorted(self._seen.items()):
            pictures = (sample.image, labels.colour(sample.labels), labels.colour(prediction))
            bands += [band([(MARGIN_PX, f"sample {index}")], FONT_PX), tiles(pictures, Size(*sample.labels.shape))]
        return stacked(bands, labels, tiles_width(3))
