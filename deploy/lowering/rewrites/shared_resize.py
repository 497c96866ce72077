"""One resize or pool where several read the same map in the same way.

Two nodes of one operator, with the same input, attributes and constants, make the same tensor; the readers of the
second read the first. FasterSeg's two branches may both begin with a zoomed layer, which halves the same shared map.
"""

from __future__ import annotations

import onnx

from .. import Rewrite
from ..editing import Editor


def apply(model: bytes) -> bytes | None:
    """The model without repeated resizes and pools; None where none repeats."""
    editor = Editor(model)
    seen: dict[tuple[object, ...], str] = {}
    for node in editor.of_type("Resize", "AveragePool", "MaxPool"):
        first = seen.setdefault(_identity(editor, node), node.output[0])
        if first != node.output[0] and not editor.is_output(node.output[0]):
            editor.bypass(node, first)
    return editor.finished()


def _identity(editor: Editor, node: onnx.NodeProto) -> tuple[object, ...]:
    """What decides the result of a node."""
    inputs = [editor.array(name).tobytes() if editor.is_constant(name) else name for name in node.input]
    attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
    return (node.op_type, tuple(inputs), tuple(attributes))


REWRITE = Rewrite(apply)
