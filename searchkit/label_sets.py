"""Label sets: what the numbers in a label map mean, and the colours they are shown in."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from .errors import UsageError

MAX_CLASSES = 255


@dataclass(frozen=True)
class LabelSet:
    """The classes of a label map; class `i` has name `names[i]` and colour `palette[i]`.

    Args:
        name: short name of the set.
        names: one name a class, in the order of the labels.
        palette: one RGB colour a class, 0 to 255 each.
        ignore: the label of pixels that no loss and no metric counts; not a class.
    """

    name: str
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore: int = 255

    def __len__(self) -> int:
        return len(self.names)

    def colour(self, labels: np.ndarray) -> np.ndarray:
        """An RGB picture (H x W x 3, uint8) of a label map (H x W, uint8); what is no class is black.

        Raises `UsageError` where `labels` is not uint8.
        """
        if labels.dtype != np.uint8:
            raise UsageError("labels have the wrong type", where="labels", got=str(labels.dtype), allowed="uint8")
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table[labels]


CITYSCAPES_19 = LabelSet(
    name="cityscapes19",
    names=(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    palette=(
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
)


def generic_labels(classes: int) -> LabelSet:
    """The Cityscapes classes for 19, otherwise `class 0` to `class n-1` in distinct colours, none black.

    Raises `UsageError` unless `classes` is an integer from 1 to 255.
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or not 1 <= classes <= MAX_CLASSES:
        raise UsageError("not a number of classes", where="classes", got=classes, allowed=f"1 to {MAX_CLASSES}")
    if classes == len(CITYSCAPES_19):
        return CITYSCAPES_19
    return LabelSet(
        name=f"generic{classes}",
        names=tuple(f"class {label}" for label in range(classes)),
        palette=tuple(_spread_colour(label) for label in range(classes)),
    )


def _spread_colour(label: int) -> tuple[int, int, int]:
    """Hues a golden-ratio turn apart, so that neighbouring labels never look alike, in three brightnesses."""
    hue = label * 0.618033988749895 % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 - 0.3 * (label // 3 % 2), 1.0 - 0.25 * (label % 3))
    return round(255 * red), round(255 * green), round(255 * blue)
