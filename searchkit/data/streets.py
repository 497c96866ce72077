"""Street scenes drawn from a seed: no download, exact labels, all 19 Cityscapes classes.

Surfaces share colour and grain, so that position, extent and neighbours tell them apart, and many things are
thin or small. The scene of an index is laid out in metres and painted at any size; nothing but the arguments
decides a byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UsageError
from ..sizes import MAX_SIDE_PX, Size
from ._streets_layout import NOISE_STREAM, lay_out
from ._streets_paint import paint
from ._streets_scene import generator


@dataclass(frozen=True)
class Sample:
    """A picture and its labels.

    Args:
        image: H x W x 3, uint8, RGB.
        labels: H x W, uint8; Cityscapes trainIds 0 to 18, and 255 where the camera car's own bonnet shows.
    """

    image: np.ndarray
    labels: np.ndarray


def draw(seed: int, index: int, size: Size, difficulty: float = 0.5) -> Sample:
    """Picture `index` of the endless set `seed`, at `size` (each side 1 to 8192 px).

    The scene does not depend on the size. `difficulty`, 0 to 1, raises what surfaces share, sensor noise, the
    spread of the light, and the number of vehicles, people and small things.

    Raises:
        UsageError: an argument is out of its range.
    """
    for name, value in (("seed", seed), ("index", index)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise UsageError("not a number of the series", where=name, got=value, allowed="0 to 2**63 - 1")
    for name, value in zip(("height", "width"), size, strict=True):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE_PX:
            raise UsageError("side out of range", where=name, got=value, allowed=f"1 to {MAX_SIDE_PX} px")
    if isinstance(difficulty, bool) or not isinstance(difficulty, int | float) or not 0 <= difficulty <= 1:
        raise UsageError("not a difficulty", where="difficulty", got=difficulty, allowed="0 to 1")
    scene = lay_out(seed, index, float(difficulty))
    image, labels = paint(scene, Size(*size), generator(seed, index, NOISE_STREAM))
    return Sample(image, labels)
