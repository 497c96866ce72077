"""The prefix residual as padding and one addition, where the block widens.

y[:, :c] += x with x of c channels and y of more is y + [x, 0]: 0 is added to the channels that x does not have, which
changes no value. Where the block narrows, the residual stays what it is, one slice and one addition.

Why: one concatenation in front of the addition instead of two slices and a concatenation behind it, so that the
addition and the ReLU stand next to the convolution.
"""

from __future__ import annotations

import numpy as np

from .. import Rewrite
from ..editing import Editor
from ..residuals import prefix_residuals


def apply(model: bytes) -> bytes | None:
    """The model with zeros behind each residual that is narrower than its block; None where there is none."""
    editor = Editor(model)
    for found in list(prefix_residuals(editor)):
        batch, channels, height, width = editor.shape(found.y)
        missing = channels - editor.shape(found.x)[1]
        if missing <= 0:
            continue
        zeros = editor.constant(f"{found.x}.zeros", np.zeros((batch, missing, height, width), np.float32))
        shape = (batch, channels, height, width)
        padded = editor.node("Concat", [found.x, zeros], f"{found.x}.padded", shape, axis=1)
        add = editor.node("Add", [found.y, padded.output[0]], found.last.output[0], shape)
        editor.replace(found.last, [padded, add])
    return editor.finished()


REWRITE = Rewrite(apply)
