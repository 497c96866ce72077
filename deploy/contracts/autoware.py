"""Autoware's camera nodes: float BGR 0 to 255 NCHW in, probabilities out.

- Its preprocessing letterboxes an OpenCV picture with 114 and feeds float32 planes in OpenCV's order, BGR, 0 to 255
  (norm_factor 1.0). Swap, mean and standard deviation are in the graph.
- Its arg-max on the GPU starts at 0.0 and class 0, so a pixel whose logits are all negative would be class 0 whatever
  they say. Probabilities are never negative and the largest is above 0.
- The mask is published as MONO8: at most 255 classes.
"""

from __future__ import annotations

from ._label_map import check_label_map
from ._pixels import PixelsToProbabilities


class Autoware(PixelsToProbabilities):
    """Float32 BGR N x 3 x H x W, 0 to 255, in; float32 N x C x H x W probabilities out."""

    colour_order = "BGR"

    def check_classes(self, classes: int) -> None:
        check_label_map(classes, "autoware")


CONTRACT = Autoware()
