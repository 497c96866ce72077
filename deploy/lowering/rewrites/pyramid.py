"""The resized maps of a pyramid pooling, summed by two matrices instead of resized and concatenated.

A 1x1 convolution with the matrix W reads [x, R_1 c_1, ..., R_n c_n], where R_i resizes a few bins to the size of x.
Resizing works on each channel and W at each position, so (as in `late-resize`) W splits by columns and changes places
with R_i: the result is W_x x + b + sum_i R_i (W_i c_i), and W_i c_i are bins again, h_i x w_i of them.

Bilinear resizing is separable: R_i Z = A_i Z B_i^T with constant matrices for rows and columns. So the sum is
sum_i A_i (Z_i B_i^T) = [A_1 ... A_n] [Z_1 B_1^T; ...; Z_n B_n^T], one product for the rows of all bins. Products
are 1x1 convolutions with channels in the batch, as in `FixedAvgPools`.

It is done where each map has at most `_MOST` rows and as many columns, and there are two or more.
"""

from __future__ import annotations

import numpy as np
import onnx

from .. import Rewrite
from ..editing import Editor, attribute, is_channel_concat, is_pointwise, weights_of
from ..interpolation import is_bilinear, matrix

_MOST = 16
# Swaps channels with columns.
_TURNED = [0, 3, 2, 1]


def apply(model: bytes) -> bytes | None:
    """The model with its pyramid poolings so; None where there is none."""
    editor = Editor(model)
    for conv in editor.of_type("Conv"):
        concat = editor.producer(conv.input[0])
        if is_pointwise(editor, conv) and concat is not None and is_channel_concat(concat):
            _rewrite(editor, conv, concat)
    return editor.finished()


def _rewrite(editor: Editor, conv: onnx.NodeProto, concat: onnx.NodeProto) -> None:
    if editor.only_reader(concat.output[0]) is None or not all(map(editor.is_map, concat.input)):
        return
    weight, bias = weights_of(editor, conv)
    starts = np.cumsum([0, *(editor.shape(name)[1] for name in concat.input)])
    columns = {i: weight[:, starts[i] : starts[i + 1], 0, 0] for i in range(len(concat.input))}
    bins = [i for i, name in enumerate(concat.input) if _is_of_bins(editor, name)]
    rest = [i for i in columns if i not in bins]
    if len(bins) < 2 or not rest:
        return
    near, shape = conv.input[1].partition(".weight")[0], editor.shape(conv.output[0])
    made = _summed(editor, [(concat.input[i], columns[i]) for i in bins], near, shape)
    total = made[-1].output[0]
    source = concat.input[rest[0]]
    if len(rest) > 1:
        parts = [concat.input[i] for i in rest]
        channels = sum(columns[i].shape[1] for i in rest)
        made.append(editor.node("Concat", parts, concat.output[0], (shape[0], channels, *shape[2:]), axis=1))
        source = made[-1].output[0]
    made.append(editor.pointwise(source, np.concatenate([columns[i] for i in rest], axis=1), bias, f"{near}.rest"))
    made.append(editor.node("Add", [made[-1].output[0], total], conv.output[0], shape))
    editor.replace(conv, made)


def _is_of_bins(editor: Editor, name: str) -> bool:
    resize = editor.producer(name)
    if resize is None or not is_bilinear(editor, resize) or editor.only_reader(name) is None:
        return False
    return max(editor.shape(resize.input[0])[2:]) <= _MOST and editor.shape(name)[0] == 1


def _summed(
    editor: Editor, parts: list[tuple[str, np.ndarray]], near: str, shape: tuple[int, ...]
) -> list[onnx.NodeProto]:
    """The nodes that make the sum over resized maps, each with its columns of the weights."""
    channels, height, width = shape[1:]
    made: list[onnx.NodeProto] = []
    turned, rows = [], []
    for name, columns in parts:
        resize = editor.producer(name)
        assert resize is not None
        convention = attribute(resize, "coordinate_transformation_mode", "half_pixel")
        low = editor.pointwise(resize.input[0], columns, None, f"{near}.bins")
        high, wide = editor.shape(low.output[0])[2:]
        apart = _reshape(editor, low.output[0], (channels, high, 1, wide))
        turn = editor.node("Transpose", [apart.output[0]], near, (channels, wide, 1, high), perm=_TURNED)
        out = editor.pointwise(turn.output[0], matrix(width, wide, convention), None, f"{near}.columns")
        made += [low, apart, turn, out]
        turned.append(out.output[0])
        rows.append(matrix(height, high, convention))
    weights = np.concatenate(rows, axis=1)
    count = weights.shape[1]
    made.append(editor.node("Concat", turned, f"{near}.columns", (channels, width, 1, count), axis=3))
    back = editor.node("Transpose", [made[-1].output[0]], near, (channels, count, 1, width), perm=_TURNED)
    both = editor.pointwise(back.output[0], weights, None, f"{near}.rows")
    return [*made, back, both, _reshape(editor, both.output[0], shape)]


def _reshape(editor: Editor, source: str, shape: tuple[int, ...]) -> onnx.NodeProto:
    target = editor.constant(f"{source}.shape", np.array(shape, np.int64))
    return editor.node("Reshape", [source, target], source, shape)


REWRITE = Rewrite(apply)
