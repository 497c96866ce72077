"""A 1x1 depthwise convolution with the weights 1 behind a transposed convolution: it changes nothing.

1 * x is x, bit for bit. ReLU behind it stays where it was.

Why: runtimes that keep maps in blocks of channels have no transposed convolution in that layout. Its result comes in
the plain layout, and every residual that starts from it is then added in the plain layout, after reordering each
block's output. With the copy in between, the maps behind it are in blocks again.
"""

from __future__ import annotations

import numpy as np

from .. import Rewrite
from ..editing import Editor
from ..widths import WIDTH


def apply(model: bytes) -> bytes | None:
    """The model with such a convolution behind each transposed one of whole vectors of channels; None without any."""
    editor = Editor(model)
    for node in editor.of_type("ConvTranspose"):
        result = node.output[0]
        channels = editor.shape(result)[1]
        if channels % WIDTH or editor.is_output(result) or not editor.is_map(result):
            continue
        copied = editor.pointwise(result, np.ones((channels, 1)), None, f"{result}.blocks", group=channels)
        editor.insert_behind(node, copied)
    return editor.finished()


REWRITE = Rewrite(apply)
