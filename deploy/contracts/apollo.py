"""Apollo's perception inference: float BGR 0 to 255 NCHW in, probabilities out, opset 17.

- Its blobs are float32, batch 1, of one shape. Its resize kernel subtracts one whole number a channel and multiplies
  by 1, which no standard deviation fits: mean and standard deviation are in the graph, the means in its file are 0.
- The order of the channels is a switch, `is_bgr`, that is on where the file says nothing. So BGR: a file that forgets
  the switch then still feeds the right channels.
- Its segmentation blob is named `softmax` and held against a confidence threshold: probabilities.
- Its TensorRT is of the 8 series, whose parser reads opset 17 at most.
"""

from __future__ import annotations

from ._pixels import PixelsToProbabilities


class Apollo(PixelsToProbabilities):
    """Float32 BGR N x 3 x H x W, 0 to 255, in; float32 N x C x H x W probabilities out."""

    colour_order = "BGR"
    max_opset = 17


CONTRACT = Apollo()
