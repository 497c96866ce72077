"""Triton: uint8 RGB NHWC in, uint8 label map out, batch 1 in the dimensions; `labels` as a server likes it.

Triton passes any tensor. A picture is three bytes a pixel on the wire and a label one, against twelve and four a class
as floats, so this takes and gives bytes; mean, standard deviation and arg-max are in the graph. The batch is one of
the dimensions that the client states (`max_batch_size: 0`).
"""

from __future__ import annotations

from .labels import Labels


class Triton(Labels):
    """The graph of `labels`."""

    name = "triton"


CONTRACT = Triton()
