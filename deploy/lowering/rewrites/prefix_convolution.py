"""The prefix residual as a 1x1 convolution and one addition.

SSR adds a block's input x to its output y on the channels that both have: y[:, :c] += x[:, :c]. With P the matrix of
ones and zeros that keeps the first c channels of x and pads them with zeros to the width of y, that is y + P x, and P x
is a 1x1 convolution. Each value of P x is one value of x times 1 plus zeros, so it is exact for all finite inputs.

Why: the addition and the ReLU behind it are fused into the block's convolution, and nothing is sliced or copied.
"""

from __future__ import annotations

from .. import Rewrite
from ..editing import Editor
from ..residuals import prefix_residuals, selection


def apply(model: bytes) -> bytes | None:
    """The model without slices around its residuals; None where there are none."""
    editor = Editor(model)
    for found in list(prefix_residuals(editor)):
        shape = editor.shape(found.y)
        if shape[1] == editor.shape(found.x)[1]:
            continue
        padded = editor.pointwise(found.x, selection(editor, shape[1], found.x), None, f"{found.x}.prefix")
        add = editor.node("Add", [found.y, padded.output[0]], found.last.output[0], shape)
        editor.replace(found.last, [padded, add])
    return editor.finished()


REWRITE = Rewrite(apply)
