"""A residual around a single convolution, inside its kernel.

(w * x) + x = (w + d) * x, where d is the identity: 1 at the centre tap from each channel to itself, 0 elsewhere. That
holds where the convolution keeps the shape, has stride 1 and an odd kernel padded evenly, and nothing, no activation
above all, stands between it and the addition. A BatchNorm there has been folded into w before. Where the block has more
channels than x, or fewer, d is the rectangular identity: the prefix residual of SSR.

Products are the same; the sum is made in one accumulation instead of two, so values differ by rounding.
"""

from __future__ import annotations

import numpy as np
import onnx

from .. import Rewrite
from ..editing import Editor, attribute, is_plain_conv, weights_of
from ..residuals import PrefixResidual, prefix_residuals


def apply(model: bytes) -> bytes | None:
    """The model without residuals around single convolutions; None where there are none."""
    editor = Editor(model)
    for found in list(prefix_residuals(editor)):
        y, x = _sides(editor, found)
        conv = editor.producer(y)
        if conv is not None and _is_centred(editor, conv) and conv.input[0] == x and _is_read_here_alone(editor, found):
            _fold(editor, conv, found)
    return editor.finished()


def _sides(editor: Editor, found: PrefixResidual) -> tuple[str, str]:
    """Block and input; between equal widths the graph does not say which is which."""
    conv = editor.producer(found.x)
    if not found.inner and conv is not None and conv.op_type == "Conv" and conv.input[0] == found.y:
        return found.x, found.y
    return found.y, found.x


def _is_read_here_alone(editor: Editor, found: PrefixResidual) -> bool:
    y, _ = _sides(editor, found)
    here = {id(node) for node in (found.last, *found.inner)}
    return not editor.is_output(y) and all(id(reader) in here for reader in editor.readers(y))


def _is_centred(editor: Editor, conv: onnx.NodeProto) -> bool:
    """Whether the centre tap of each output lies on the pixel of that output."""
    if not is_plain_conv(editor, conv) or set(attribute(conv, "strides", [1])) != {1}:
        return False
    kernel = editor.shape(conv.input[1])[2:]
    dilations, pads = attribute(conv, "dilations", [1, 1]), attribute(conv, "pads", [0] * 4)
    even = [d * (k - 1) // 2 for d, k in zip(dilations, kernel, strict=True)]
    return all(k % 2 for k in kernel) and list(pads) == [*even, *even]


def _fold(editor: Editor, conv: onnx.NodeProto, found: PrefixResidual) -> None:
    weight, bias = weights_of(editor, conv)
    height, width = (k // 2 for k in weight.shape[2:])
    weight[:, :, height, width] += np.eye(*weight.shape[:2])
    editor.reweigh(conv, weight, bias)
    if editor.is_output(found.last.output[0]):
        editor.replace(found.last, [_moved(editor, conv)])
    else:
        editor.bypass(found.last, conv.output[0])


def _moved(editor: Editor, conv: onnx.NodeProto) -> onnx.NodeProto:
    """The same convolution, to stand where the residual stood."""
    copied = onnx.NodeProto.FromString(conv.SerializeToString())
    copied.name = f"{conv.name}.residual"
    return copied


REWRITE = Rewrite(apply)
