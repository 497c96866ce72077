"""A 1x1 convolution before the resize that it follows, through a concatenation.

Bilinear resizing R mixes positions of each channel by itself, a 1x1 convolution with the matrix W and the bias b mixes
channels at each position by itself: so W (R x) = R (W x). The weights of R at a position sum to 1 (with both corner
conventions, at the edges too), so the bias may stand on either side. Over a concatenation W splits by columns:
W [R x, z] + b = R (W_x x) + (W_z z + b).

It is done where x has fewer positions than R x and at least as many channels as W gives, so that the convolution has
less to compute and the resize no more.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from .. import Rewrite
from ..editing import Editor, is_channel_concat, is_pointwise, weights_of
from ..interpolation import is_bilinear


def apply(model: bytes) -> bytes | None:
    """The model with such convolutions at the lower resolution; None where there are none."""
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
    late = [i for i, name in enumerate(concat.input) if _gains(editor, name, len(weight))]
    stay = [i for i in columns if i not in late]
    if not late:
        return
    result, near = conv.output[0], conv.input[1].partition(".weight")[0]
    made: list[onnx.NodeProto] = []
    terms: list[str] = []
    for number, i in enumerate(late):
        resize = editor.producer(concat.input[i])
        assert resize is not None
        own = bias if not stay and number == 0 else None
        low = editor.pointwise(resize.input[0], columns[i], own, f"{near}.low")
        made += [low, _resized(editor, resize, low.output[0], editor.shape(result))]
        terms.append(made[-1].output[0])
    if stay:
        rest = concat.input[stay[0]]
        if len(stay) > 1:
            parts = [concat.input[i] for i in stay]
            shape = editor.shape(concat.output[0])
            channels = sum(columns[i].shape[1] for i in stay)
            made.append(editor.node("Concat", parts, concat.output[0], (shape[0], channels, *shape[2:]), axis=1))
            rest = made[-1].output[0]
        made.append(editor.pointwise(rest, np.concatenate([columns[i] for i in stay], axis=1), bias, f"{near}.rest"))
        # First, so that a runtime fuses the addition into this convolution.
        terms.insert(0, made[-1].output[0])
    _replace_by_sum(editor, conv, made, terms)


def _replace_by_sum(editor: Editor, conv: onnx.NodeProto, made: list[onnx.NodeProto], terms: list[str]) -> None:
    total = terms[0]
    for term in terms[1:]:
        made.append(editor.node("Add", [total, term], conv.output[0], editor.shape(conv.output[0])))
        total = made[-1].output[0]
    editor.replace(conv, made)


def _gains(editor: Editor, name: str, channels: int) -> bool:
    """Whether a Resize that nothing else reads makes this tensor, from fewer positions and from channels enough."""
    resize = editor.producer(name)
    if resize is None or not is_bilinear(editor, resize) or editor.only_reader(name) is None:
        return False
    before, after = editor.shape(resize.input[0]), editor.shape(name)
    return before[1] >= channels and math.prod(before[2:]) < math.prod(after[2:])


def _resized(editor: Editor, like: onnx.NodeProto, source: str, shape: tuple[int, ...]) -> onnx.NodeProto:
    sizes = editor.constant(f"{source}.sizes", np.array(shape, np.int64))
    node = editor.node("Resize", [source, "", "", sizes], source, shape)
    node.attribute.extend(like.attribute)
    return node


REWRITE = Rewrite(apply)
