"""DeepStream's own segmentation parser: float RGB 0 to 255 NCHW in, probabilities out.

What `nvinfer` asks for, and how it is met (DeepStream 9.1):

- It feeds float32 planes y = scale * (x - offset) with one scale for all channels, so a standard deviation a channel
  cannot be left to it. Mean and standard deviation are in the graph; scale is 1 and there are no offsets.
- Its parser starts every pixel's arg-max at -1 and takes a class only above the threshold, so logits below -1 would
  be no class at all. Probabilities with threshold 0 give every pixel its class.
- It loops over the network's height and width, so the answer has the input's resolution, a plane a class (CHW).
"""

from __future__ import annotations

from ._pixels import PixelsToProbabilities


class DeepStream(PixelsToProbabilities):
    """Float32 RGB N x 3 x H x W, 0 to 255, in; float32 N x C x H x W probabilities out."""

    colour_order = "RGB"


CONTRACT = DeepStream()
