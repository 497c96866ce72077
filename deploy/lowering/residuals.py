"""Residuals of SSR: an addition on the common channel prefix, in the form that the exporter writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from .editing import Editor, is_channel_concat


@dataclass(frozen=True)
class PrefixResidual:
    """y, with x added on the channels that both have; further channels of y pass, those of x are cut.

    Attributes:
        last: the node that makes the result.
        inner: the other nodes that belong to it.
        y, x: the block's tensor, and its input that is added.
    """

    last: onnx.NodeProto
    inner: tuple[onnx.NodeProto, ...]
    y: str
    x: str


def prefix_residuals(editor: Editor) -> Iterator[PrefixResidual]:
    """Those of a graph, the plain ones between equal widths included, in order."""
    for node in list(editor.nodes):
        if node.op_type == "Add":
            found = _cut(editor, node)
        elif is_channel_concat(node):
            found = _grown(editor, node)
        else:
            found = None
        if found is not None:
            yield found


def selection(editor: Editor, out_channels: int, of: str) -> np.ndarray:
    """The matrix of ones and zeros that keeps the first channels of a map, cut or padded to `out_channels`."""
    return np.eye(out_channels, editor.shape(of)[1])


def _cut(editor: Editor, add: onnx.NodeProto) -> PrefixResidual | None:
    """y + x, or y + x[:, :C]: y has at most as many channels as x."""
    if not all(map(editor.is_map, add.input)) or len({editor.shape(name) for name in add.input}) > 1:
        return None
    reader = editor.only_reader(add.output[0])
    if is_channel_concat(reader) and reader is not None and _grown(editor, reader) is not None:
        return None
    for y, other in (tuple(add.input), tuple(reversed(add.input))):
        piece = editor.producer(other)
        bounds = _channel_slice(editor, piece)
        if piece is not None and bounds is not None and bounds[0] == 0:
            return PrefixResidual(add, (piece,), y, piece.input[0])
    return PrefixResidual(add, (), *add.input)


def _grown(editor: Editor, concat: onnx.NodeProto) -> PrefixResidual | None:
    """[y[:, :C] + x, y[:, C:]]: y has more channels than x."""
    if len(concat.input) != 2:
        return None
    add, rest = (editor.producer(name) for name in concat.input)
    tail = _channel_slice(editor, rest)
    if add is None or add.op_type != "Add" or rest is None or tail is None:
        return None
    for head, x in (tuple(add.input), tuple(reversed(add.input))):
        piece = editor.producer(head)
        bounds = _channel_slice(editor, piece)
        if piece is None or bounds is None or piece.input[0] != rest.input[0]:
            continue
        total = editor.shape(rest.input[0])[1]
        if bounds[0] == 0 and bounds[1] == tail[0] == editor.shape(x)[1] and tail[1] == total:
            return PrefixResidual(concat, (piece, add, rest), rest.input[0], x)
    return None


def _channel_slice(editor: Editor, node: onnx.NodeProto | None) -> tuple[int, int] | None:
    """First and one past the last channel of a Slice that takes channels one by one, of a map."""
    if node is None or node.op_type != "Slice" or not editor.is_map(node.input[0]):
        return None
    if not all(editor.is_constant(name) and editor.shape(name) == (1,) for name in node.input[1:]):
        return None
    start, end, axis, *step = (int(editor.array(name)[0]) for name in node.input[1:])
    channels = editor.shape(node.input[0])[1]
    if axis not in (1, -3) or step not in ([], [1]) or start < 0:
        return None
    return start, min(end, channels) if end >= 0 else channels + end
