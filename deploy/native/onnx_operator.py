"""The label head as an operator of ONNX Runtime: `LabelHead` of the domain `searchkit`.

Exported graphs stay pure: they end in Resize and ArgMax, which any runtime has. Where the native library is there, a
copy of the graph can end in the operator instead, on the runtime's own threads.
"""

from __future__ import annotations

from typing import Any

from searchkit.errors import BackendUnavailableError

from .label_tail import label_tail, remove
from .library import Missing, native

DOMAIN = "searchkit"
OPERATOR = "LabelHead"


def register(options: Any) -> None:
    """Make the operator known to an `onnxruntime.SessionOptions`.

    Raises:
        BackendUnavailableError: there is no native library here.
    """
    found = native()
    if isinstance(found, Missing):
        raise BackendUnavailableError(f"the operator {OPERATOR} is not available: {found.reason}", fix=found.fix)
    options.register_custom_ops_library(str(found.path))


def with_label_head(model: bytes) -> bytes | None:
    """A serialised model whose last operators are replaced by `LabelHead`, for sessions with `register`ed options.

    Replaced is what `label_tail` finds. Labels are the same but for classes that float32 cannot tell apart. None where
    the model does not end so.
    """
    import onnx

    changed = onnx.load_from_string(model)
    tail = label_tail(changed)
    if tail is None:
        return None
    graph = changed.graph
    head = onnx.helper.make_node(
        OPERATOR,
        [tail.logits],
        [graph.output[0].name],
        domain=DOMAIN,
        height=tail.size.height,
        width=tail.size.width,
        align_corners=int(tail.corners == "align_corners"),
    )
    remove(graph, tail)
    graph.node.append(head)
    changed.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return bytes(changed.SerializeToString(deterministic=True))
