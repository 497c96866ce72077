"""The prefix residual as a plain addition between equal widths.

A block of SSR that narrows computes y + x[:, :c] with y of c channels. Give y the width of x, by zero filters: then
[y, 0] + x has the wanted values in its first c channels and channels of x in the rest. Whoever reads the result gives
zero weights to the rest (`widths`), or never reads it: the next residual takes a prefix only. So the rest, which is
finite and not the network's, reaches no result.

A block that widens must not see that rest in its own channels. Its residual is y + P x with P as in
`prefix-convolution`, which has zeros there; so is that of a block whose width in whole vectors is less than that of x,
where zero filters would cost more than P.

Why: no slice, no copy, and the addition and the ReLU are fused into the convolution. Runtimes that compute channels in
blocks of 16 make the zero filters anyway.
"""

from __future__ import annotations

import onnx

from .. import Rewrite
from ..editing import Editor
from ..residuals import PrefixResidual, prefix_residuals, selection
from ..widths import Widths, rounded_up


def apply(model: bytes) -> bytes | None:
    """The model with all residuals between equal widths; None where they are so already."""
    editor = Editor(model)
    found = {id(residual.last): residual for residual in prefix_residuals(editor)}
    if all(editor.shape(residual.x) == editor.shape(residual.y) for residual in found.values()):
        return None
    inner = {id(node) for residual in found.values() for node in residual.inner}
    widths = Widths(editor)
    for node in list(editor.nodes):
        if id(node) in found:
            _rewrite(widths, found[id(node)])
        elif id(node) not in inner or _has_readers_of_its_own(editor, node, inner, found):
            widths.read(node)
    return editor.finished()


def _has_readers_of_its_own(
    editor: Editor, node: onnx.NodeProto, inner: set[int], found: dict[int, PrefixResidual]
) -> bool:
    """Whether something outside the residuals reads an inner node as well."""
    readers = editor.readers(node.output[0])
    return editor.is_output(node.output[0]) or any(id(r) not in inner and id(r) not in found for r in readers)


def _rewrite(widths: Widths, residual: PrefixResidual) -> None:
    editor, y, x, last = widths.editor, residual.y, residual.x, residual.last
    if y in widths.own and not residual.inner:
        y, x = x, y
    if y in widths.own:
        for node in (*residual.inner, last):
            widths.cut(node)
        return
    real, channels = editor.shape(y)[1], editor.shape(x)[1]
    if real == channels and x not in widths.own:
        return
    fits = real <= widths.of(x) and rounded_up(real) == rounded_up(channels)
    shape = editor.shape(last.output[0])
    if fits and not editor.is_output(last.output[0]) and widths.can_widen(y):
        if real < channels:
            widths.widen(y, channels)
        shape = (shape[0], channels, *shape[2:])
        editor.replace(last, [editor.node("Add", [y, x], last.output[0], shape)])
        widths.settle(last.output[0], real, channels)
        return
    matrix = selection(editor, real, x)
    matrix[:, widths.of(x) :] = 0
    padded = editor.pointwise(x, matrix, None, f"{x}.prefix")
    editor.replace(last, [padded, editor.node("Add", [y, padded.output[0]], last.output[0], shape)])


REWRITE = Rewrite(apply)
