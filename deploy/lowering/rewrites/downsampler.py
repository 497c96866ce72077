"""A concatenation of convolutions and scaled maps, with the ReLU behind it, as convolutions alone.

ERFNet's downsampler is relu([conv(x), s * pool(x) + t]), with s and t the BatchNorm's share for the pooled channels.

ReLU works on each value by itself, so relu([a, b]) = [relu(a), relu(b)], bit for bit. s * p + t with a scale a channel
is a depthwise 1x1 convolution with the weights s and the bias t: the same products and sums.

Where a part does not fill vectors of `WIDTH` channels, concatenation is an addition of convolutions instead. With E_a
and E_b the matrices that put channels where the concatenation has them, [a, b] = E_a a + E_b b. A convolution takes E
into its weights, as zero filters, and s * p + t becomes the 1x1 convolution with the matrix E_b diag(s). Nothing but
zeros is added, so values stay the same for all finite inputs.

Why: runtimes that keep maps in blocks of channels (ONNX Runtime's NCHWc, oneDNN's nChw16c) leave that layout for Mul,
Add and a concatenation of odd widths, and all residuals behind it are then unfused as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from .. import Rewrite
from ..editing import Editor, is_channel_concat, is_plain_conv, weights_of
from ..widths import WIDTH


@dataclass(frozen=True)
class _Affine:
    """scale * source + shift, a value a channel each."""

    source: str
    scale: np.ndarray
    shift: np.ndarray


def apply(model: bytes) -> bytes | None:
    """The model without scaled maps in front of concatenations; None where there are none."""
    editor = Editor(model)
    for concat in editor.of_type("Concat"):
        if is_channel_concat(concat) and all(map(editor.is_map, concat.input)):
            _rewrite(editor, concat)
    return editor.finished()


def _rewrite(editor: Editor, concat: onnx.NodeProto) -> None:
    affines = [_affine(editor, name) for name in concat.input]
    if not any(affines):
        return
    if all(editor.shape(name)[1] % WIDTH == 0 for name in concat.input):
        _side_by_side(editor, concat, affines)
    elif all(found or _is_own_conv(editor, name) for found, name in zip(affines, concat.input, strict=True)):
        _summed(editor, concat, affines)


def _side_by_side(editor: Editor, concat: onnx.NodeProto, affines: list[_Affine | None]) -> None:
    made, parts = [], []
    for name, found in zip(concat.input, affines, strict=True):
        if found:
            weight = found.scale[:, None]
            made.append(editor.pointwise(found.source, weight, found.shift, name, group=len(weight)))
        parts.append(made[-1].output[0] if found else name)
    relu = editor.only_reader(concat.output[0])
    relu = relu if relu is not None and relu.op_type == "Relu" else None
    if relu is not None:
        active = [editor.node("Relu", [name], name, editor.shape(name)) for name in parts]
        made, parts = [*made, *active], [node.output[0] for node in active]
    last = relu or concat
    shape = editor.shape(last.output[0])
    editor.replace(last, [*made, editor.node("Concat", parts, concat.output[0], shape, axis=1)])


def _summed(editor: Editor, concat: onnx.NodeProto, affines: list[_Affine | None]) -> None:
    channels = editor.shape(concat.output[0])[1]
    made: list[onnx.NodeProto] = []
    start = 0
    for name, found in zip(concat.input, affines, strict=True):
        part = slice(start, start + editor.shape(name)[1])
        start = part.stop
        bias = np.zeros(channels)
        if found:
            matrix = np.zeros((channels, len(found.scale)))
            matrix[part], bias[part] = np.diag(found.scale), found.shift
            made.append(editor.pointwise(found.source, matrix, bias, name))
        else:
            conv = editor.producer(name)
            assert conv is not None
            weight, own = weights_of(editor, conv)
            wide = np.zeros((channels, *weight.shape[1:]))
            wide[part], bias[part] = weight, own
            editor.reweigh(conv, wide, bias)
            made.append(conv)
    _add_up(editor, concat, made)


def _add_up(editor: Editor, concat: onnx.NodeProto, parts: list[onnx.NodeProto]) -> None:
    shape = editor.shape(concat.output[0])
    total, new = parts[0].output[0], [node for node in parts if all(node is not other for other in editor.nodes)]
    for part in parts[1:]:
        new.append(editor.node("Add", [total, part.output[0]], concat.output[0], shape))
        total = new[-1].output[0]
    editor.replace(concat, new)


def _is_own_conv(editor: Editor, name: str) -> bool:
    return is_plain_conv(editor, editor.producer(name)) and editor.only_reader(name) is not None


def _affine(editor: Editor, name: str) -> _Affine | None:
    """Add(Mul(x, constant), constant), both a value a channel, read by nothing else."""
    add = editor.producer(name)
    if add is None or add.op_type != "Add" or editor.only_reader(name) is None:
        return None
    shifted = _per_channel(editor, add)
    multiply = editor.producer(shifted[0]) if shifted else None
    if shifted is None or multiply is None or multiply.op_type != "Mul" or editor.only_reader(shifted[0]) is None:
        return None
    scaled = _per_channel(editor, multiply)
    return _Affine(scaled[0], scaled[1], shifted[1]) if scaled else None


def _per_channel(editor: Editor, node: onnx.NodeProto) -> tuple[str, np.ndarray] | None:
    """The map and the constant of a node that joins a map with a value for each of its channels."""
    left, right = node.input
    source, constant = (right, left) if editor.is_constant(left) else (left, right)
    if not editor.is_constant(constant) or not editor.is_map(source):
        return None
    shape, channels = editor.shape(constant), editor.shape(source)[1]
    if shape not in ((1, channels, 1, 1), (channels, 1, 1)):
        return None
    return source, editor.array(constant).reshape(-1).astype(np.float64)


REWRITE = Rewrite(apply)
