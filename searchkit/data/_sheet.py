"""A data set at a glance: a contact sheet, and how much of it each class covers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..label_sets import LabelSet
from ..pictures import resize_picture
from ..sizes import Size
from . import Sample

_GAP_PX = 4
_WHITE = 255


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices below `count`, evenly spread, so that no one drive or city stands for all."""
    wanted = min(wanted, count)
    return [place * count // wanted for place in range(wanted)]


def contact_sheet(samples: Sequence[Sample], labels: LabelSet, columns: int, tile: Size) -> np.ndarray:
    """Pictures in rows of `columns`, each above its labels in colour: H x W x 3, uint8.

    Args:
        samples: at least one.
        labels: the classes and their colours.
        columns: how many samples a row holds.
        tile: size of one picture on the sheet.
    """
    columns = min(columns, len(samples))
    rows = -(-len(samples) // columns)
    down, across = 2 * tile.height + _GAP_PX, tile.width + _GAP_PX
    sheet = np.full((rows * down + _GAP_PX, columns * across + _GAP_PX, 3), _WHITE, np.uint8)
    for place, sample in enumerate(samples):
        row, column = divmod(place, columns)
        top, left = _GAP_PX + row * down, _GAP_PX + column * across
        both = (
            resize_picture(sample.image, tile),
            labels.colour(resize_picture(sample.labels, tile, nearest=True)),
        )
        sheet[top : top + 2 * tile.height, left : left + tile.width] = np.concatenate(both)
    return sheet


def label_shares(samples: Iterable[Sample], labels: LabelSet) -> dict[str, dict[str, float]]:
    """For each class the share of all pixels that it covers and the share of samples that it is in, 0 to 1.

    The last entry, `ignored`, is what stands for no class. Shares of pixels sum to 1 where there is any sample.
    """
    pixels, seen = np.zeros(256, np.int64), np.zeros(256, np.int64)
    count = 0
    for sample in samples:
        found = np.bincount(sample.labels.ravel(), minlength=256)
        pixels += found
        seen += found > 0
        count += 1
    total = max(int(pixels.sum()), 1)
    rows = [*enumerate(labels.names), (labels.ignore, "ignored")]
    return {
        name: {"share_of_pixels": int(pixels[label]) / total, "share_of_samples": int(seen[label]) / max(count, 1)}
        for label, name in rows
    }
