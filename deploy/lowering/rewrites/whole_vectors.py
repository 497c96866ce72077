"""Channels rounded up to whole vectors of `WIDTH`, by zero filters.

A convolution with n output channels becomes one with n' >= n, whose further filters and biases are zero, and whoever
reads them has zero weights there: sum_n w_n x_n + sum_n' 0 * 0 is the same sum. ReLU, pooling and resizing work on each
channel by itself and keep zeros zero. Only convolutions are widened whose output reaches convolutions alone, by way of
such operators and of concatenations.

Why: runtimes that compute in blocks of channels keep their layout through a concatenation only where each part fills
whole blocks.
"""

from __future__ import annotations

import onnx

from .. import Rewrite
from ..editing import Editor, is_plain_conv
from ..widths import Widths, rounded_up


def apply(model: bytes) -> bytes | None:
    """The model with whole vectors of channels; None where no convolution can be widened."""
    editor = Editor(model)
    widths = Widths(editor)
    for node in list(editor.nodes):
        widths.read(node)
        channels = editor.shape(node.output[0])[1] if is_plain_conv(editor, node) else 0
        if channels != rounded_up(channels) and _reaches_convs_alone(widths, node):
            widths.widen_conv(node, rounded_up(channels))
    return editor.finished()


def _reaches_convs_alone(widths: Widths, node: onnx.NodeProto) -> bool:
    name = node.output[0]
    if widths.editor.is_output(name):
        return False
    return all(
        is_plain_conv(widths.editor, reader) or (widths.passes(reader) and _reaches_convs_alone(widths, reader))
        for reader in widths.editor.readers(name)
    )


REWRITE = Rewrite(apply)
