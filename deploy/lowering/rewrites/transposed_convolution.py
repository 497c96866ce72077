"""A transposed convolution as a convolution whose output channels are laid out as pixels.

With stride s, kernel w and padding p, a transposed convolution is out[s q + a] = sum over d of w[a + p - s d] x[q + d]
for each phase a = 0 ... s - 1, along rows and columns alike: at each phase a plain convolution, with the taps of w that
exist. All s * s phases together are one convolution with s * s times the output channels, the same products in the
same sums; zeros stand where a phase has no tap. A Reshape, a Transpose and a Reshape put phase (a, b) of (q, r) at
(s q + a, s r + b).

Done where the output is exactly s times as large as the input and there is one group.
"""

from __future__ import annotations

import numpy as np
import onnx

from .. import Rewrite
from ..editing import Editor, attribute

# From batch, phase of the row, phase of the column, channel, row, column
# to batch, channel, row, its phase, column, its phase.
_INTERLEAVED = [0, 3, 4, 1, 5, 2]


def apply(model: bytes) -> bytes | None:
    """The model without such transposed convolutions; None where there are none."""
    editor = Editor(model)
    for node in editor.of_type("ConvTranspose"):
        stride = _stride(editor, node)
        if stride:
            _rewrite(editor, node, stride)
    return editor.finished()


def _stride(editor: Editor, node: onnx.NodeProto) -> int:
    """The stride, where the node is one that can be rewritten; else 0."""
    strides = set(attribute(node, "strides", [1]))
    before, after = editor.shape(node.input[0]), editor.shape(node.output[0])
    if len(strides) != 1 or not all(map(editor.is_constant, node.input[1:])) or len(before) != 4:
        return 0
    (stride,) = strides
    exact = after[2:] == tuple(stride * side for side in before[2:])
    simple = attribute(node, "group", 1) == 1 and set(attribute(node, "dilations", [1])) == {1}
    pads = attribute(node, "pads", None)
    return int(stride) if exact and simple and stride > 1 and pads is not None else 0


def _rewrite(editor: Editor, node: onnx.NodeProto, stride: int) -> None:
    weight = editor.array(node.input[1]).astype(np.float64).transpose(1, 0, 2, 3)
    top, left = attribute(node, "pads", None)[:2]
    weight, rows = _phases(weight, stride, top)
    weight, columns = _phases(weight.transpose(0, 1, 2, 4, 3), stride, left)
    # Phase of the column, phase of the row, out, in, column, row.
    weight = weight.transpose(1, 0, 2, 3, 5, 4)
    batch, _, height, width = editor.shape(node.input[0])
    channels = weight.shape[2]
    flat = weight.reshape(stride * stride * channels, *weight.shape[3:])
    near = node.input[1].partition(".weight")[0]
    names = [editor.constant(f"{near}.weight", flat)]
    if len(node.input) > 2:
        names.append(editor.constant(f"{near}.bias", np.tile(editor.array(node.input[2]), stride * stride)))
    pads = [rows[0], columns[0], rows[1], columns[1]]
    settings = {"dilations": [1, 1], "group": 1, "kernel_shape": list(flat.shape[2:]), "pads": pads}
    shape = (batch, len(flat), height, width)
    conv = editor.node("Conv", [node.input[0], *names], near, shape, **settings, strides=[1, 1])
    apart = (batch, stride, stride, channels, height, width)
    turned = tuple(apart[axis] for axis in _INTERLEAVED)
    made = [conv, _reshape(editor, conv.output[0], apart)]
    made.append(editor.node("Transpose", [made[-1].output[0]], near, turned, perm=_INTERLEAVED))
    made.append(_reshape(editor, made[-1].output[0], editor.shape(node.output[0])))
    editor.replace(node, made)


def _phases(weight: np.ndarray, stride: int, padding: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The kernels of all phases along the axis before the last one.

    Args:
        weight: ... x kernel x other.

    Returns:
        phase x ... x taps x other, and how many rows of zeros the taps need before and behind the map.
    """
    kernel = weight.shape[-2]
    taps = {(a, d): a + padding - stride * d for a in range(stride) for d in range(-kernel, kernel + padding + 1)}
    used = [d for (_, d), t in taps.items() if 0 <= t < kernel]
    first, last = min(0, *used), max(0, *used)
    result = np.zeros((stride, *weight.shape[:-2], last - first + 1, weight.shape[-1]))
    for (a, d), t in taps.items():
        if 0 <= t < kernel:
            result[a, ..., d - first, :] = weight[..., t, :]
    return result, (-first, last)


def _reshape(editor: Editor, source: str, shape: tuple[int, ...]) -> onnx.NodeProto:
    target = editor.constant(f"{source}.shape", np.array(shape, np.int64))
    return editor.node("Reshape", [source, target], source, shape)


REWRITE = Rewrite(apply)
