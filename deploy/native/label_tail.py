"""The end of a graph that gives labels: Resize, ArgMax and Cast, or the last two where nothing is resized.

That is what the label head replaces, and what is cut off where the head stands behind the session instead of in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from searchkit.sizes import Size

from .head_arguments import CORNERS

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_UINT8 = 2
# What ONNX takes of an attribute that a node does not state.
_DEFAULTS: dict[str, Any] = {
    "antialias": 0,
    "axis": 0,
    "coordinate_transformation_mode": b"half_pixel",
    "keepdims": 1,
    "mode": b"nearest",
    "select_last_index": 0,
}


@dataclass(frozen=True)
class LabelTail:
    """The last operators of a graph, which make labels of logits.

    Attributes:
        nodes: those operators, in order.
        logits: name of the tensor that they start from, N x C x h x w.
        shape: of that tensor.
        corners: `half_pixel` or `align_corners`.
        size: of the labels.
    """

    nodes: tuple[NodeProto, ...]
    logits: str
    shape: tuple[int, ...]
    corners: str
    size: Size


@dataclass(frozen=True)
class Headless:
    """A serialised model that ends in its logits, and what is left to do: resize them to `size`, and arg-max."""

    model: bytes
    corners: str
    size: Size


def label_tail(model: ModelProto) -> LabelTail | None:
    """The tail of a model, as the contracts `labels` and `triton` have it; None where it does not end so.

    Resize must be linear and to sizes that the model states, ArgMax over the classes, and Cast to uint8.
    """
    graph = model.graph
    labels = _static_shape(graph, graph.output[0].name)
    if len(graph.output) != 1 or len(labels) != 3:
        return None
    cast = _producer(graph, graph.output[0].name, "Cast", {"to": _UINT8})
    best = cast and _producer(graph, cast.input[0], "ArgMax", {"axis": 1, "keepdims": 0, "select_last_index": 0})
    if not cast or not best:
        return None
    resize = _producer(graph, best.input[0], "Resize", {"mode": b"linear", "antialias": 0})
    nodes = tuple(node for node in (resize, best, cast) if node)
    logits = nodes[0].input[0]
    corners = _corners(graph, resize) if resize else "half_pixel"
    before = _static_shape(graph, logits)
    if corners is None or len(before) != 4 or before[0] != labels[0] or (not resize and before[2:] != labels[1:]):
        return None
    return LabelTail(nodes, logits, before, corners, Size(*labels[1:]))


def without_label_tail(model: bytes) -> Headless | None:
    """A copy of a serialised model that answers with its logits, float32 or float16; None where it has no such tail."""
    import onnx

    changed = onnx.load_from_string(model)
    tail = label_tail(changed)
    if tail is None:
        return None
    graph = changed.graph
    stated = next(value for value in graph.value_info if value.name == tail.logits)
    remove(graph, tail)
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(tail.logits, _element_type(stated), tail.shape))
    graph.value_info.remove(stated)
    return Headless(bytes(changed.SerializeToString(deterministic=True)), tail.corners, tail.size)


def remove(graph: GraphProto, tail: LabelTail) -> None:
    """Take the tail's operators out of a graph, and all that only they read or made."""
    for node in tail.nodes:
        graph.node.remove(node)
    used = {name for node in graph.node for name in (*node.input, *node.output)} | {tail.logits}
    for values in (graph.initializer, graph.value_info):
        for value in [v for v in values if v.name not in used]:
            values.remove(value)


def _element_type(value: Any) -> int:
    return int(value.type.tensor_type.elem_type)


def _producer(graph: GraphProto, name: str, kind: str, attributes: dict[str, Any]) -> NodeProto | None:
    """The node that makes a tensor which nothing else reads, if it is of this kind and these attributes."""
    if sum(list(node.input).count(name) for node in graph.node) > 1:
        return None
    node = next((node for node in graph.node if name in node.output), None)
    if node is None or node.op_type != kind or node.domain:
        return None
    return node if all(_attribute(node, key) == value for key, value in attributes.items()) else None


def _attribute(node: NodeProto, name: str) -> Any:
    """What a node states of an attribute, else ONNX's default; None where there is none."""
    import onnx

    stated = (onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(stated, _DEFAULTS.get(name))


def _corners(graph: GraphProto, resize: NodeProto) -> str | None:
    """The convention of corners; None for another one, and for a resize that is not to stated N, C, H, W."""
    from onnx import numpy_helper

    inputs = list(resize.input)
    if len(inputs) != 4 or inputs[1] or inputs[2] or _attribute(resize, "axes") is not None:
        return None
    stated = [numpy_helper.to_array(t).tolist() for t in graph.initializer if t.name == inputs[3]]
    sizes: list[int] = stated[0] if stated else []
    if len(sizes) != 4 or tuple(sizes[:2]) != _static_shape(graph, inputs[0])[:2]:
        return None
    mode = _attribute(resize, "coordinate_transformation_mode").decode()
    return mode if mode in CORNERS else None


def _static_shape(graph: GraphProto, name: str) -> tuple[int, ...]:
    """The shape that the model states of a tensor; empty where it does not."""
    for value in (*graph.output, *graph.value_info, *graph.input):
        if value.name == name:
            shape = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            return shape if all(shape) else ()
    return ()
