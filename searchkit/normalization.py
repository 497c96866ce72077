"""The one pixel normalisation that training, export and the examples share.

Networks take RGB, scaled to [0, 1], minus the mean, over the standard deviation, per channel. The constants are those
of ImageNet, which FasterSeg and most of its successors use; a bundle states them, so that a stack need not guess.
"""

from __future__ import annotations

import numpy as np

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(image_HWC: np.ndarray) -> np.ndarray:
    """uint8 RGB H x W x 3 to float32 1 x 3 x H x W."""
    scaled = image_HWC.astype(np.float32) / np.float32(255)
    normal = (scaled - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])
