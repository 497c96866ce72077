"""An exported model in an older opset, for stacks whose parser is old.

torch exports opset 18 and newer only, and onnx's own converter leaves opset-18 attributes on reductions. So the few
operators that changed between the two opsets are rewritten here, each only where the older form says the same; anything
else that changed is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import numpy_helper

from searchkit.errors import UsageError


def downgrade(model_bytes: bytes, opset: int) -> bytes:
    """The same function in `opset`, with the IR version that belongs to it; the bytes as they are if it is no newer.

    Raises:
        UsageError: an operator has no equal in `opset`.
    """
    model = onnx.load_from_string(model_bytes)
    imported = next(entry for entry in model.opset_import if not entry.domain)
    if imported.version <= opset:
        return model_bytes
    for node in model.graph.node:
        if not node.domain:
            _rewrite(model.graph, node, imported.version, opset)
    imported.version = opset
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import))
    _drop_unused(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _rewrite(graph: onnx.GraphProto, node: onnx.NodeProto, opset: int, older: int) -> None:
    wanted = _revision(node.op_type, older)
    if _revision(node.op_type, opset) == wanted:
        return
    if (node.op_type, wanted) not in _REWRITES:
        raise _refused(node, f"operator {node.op_type}", older)
    _REWRITES[node.op_type, wanted](graph, node, older)


def _revision(operator: str, opset: int) -> int:
    """The opset that defines the operator as `opset` has it; 0 where it has none."""
    try:
        return int(onnx.defs.get_schema(operator, opset).since_version)
    except onnx.defs.SchemaError:
        return 0


def _resize(_graph: onnx.GraphProto, node: onnx.NodeProto, older: int) -> None:
    """Opset 18 added three attributes; their defaults are what the older operator does."""
    _drop_default(node, "antialias", 0, older)
    _drop_default(node, "keep_aspect_ratio_policy", b"stretch", older)
    _drop_default(node, "axes", None, older)


def _reduction(graph: onnx.GraphProto, node: onnx.NodeProto, older: int) -> None:
    """Opset 18 made the axes an input; before, they were an attribute."""
    _drop_default(node, "noop_with_empty_axes", 0, older)
    if len(node.input) < 2 or not node.input[1]:
        return
    axes = next((t for t in graph.initializer if t.name == node.input[1]), None)
    if axes is None:
        raise _refused(node, f"operator {node.op_type} with axes that are computed", older)
    del node.input[1:]
    node.attribute.append(onnx.helper.make_attribute("axes", numpy_helper.to_array(axes).tolist()))


# Operator and the opset that defines its older form.
_REWRITES: dict[tuple[str, int], Callable[[onnx.GraphProto, onnx.NodeProto, int], None]] = {
    ("Resize", 13): _resize,
    ("ReduceMean", 13): _reduction,
}


def _drop_default(node: onnx.NodeProto, name: str, default: object, older: int) -> None:
    """Remove an attribute that the older operator lacks; it must say what the older operator does anyway."""
    for attribute in [a for a in node.attribute if a.name == name]:
        value = onnx.helper.get_attribute_value(attribute)
        if value != default:
            raise _refused(node, f"operator {node.op_type} with {name} {value!r}", older)
        node.attribute.remove(attribute)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)


def _refused(node: onnx.NodeProto, what: str, older: int) -> UsageError:
    return UsageError(
        f"{what} cannot be written in opset {older}",
        where=node.name or node.output[0],
        fix="use another tensor contract, or report this as a bug",
    )
