"""What an exported network computes and moves, layer by layer, after the fusion that compilers do.

A layer is one *anchor* and what is merged into it. Anchors are the operators that no compiler merges with one another:
convolutions, matrix products, pooling, reductions, resizing, arg-max, softmax, and every operator that this module does
not know. The rule of fusion:

1. What depends on constants alone is computed when the model is compiled, and costs nothing.
2. What moves or renames values (concatenation, slicing, reshaping, transposition) costs nothing: they are written to
   the right place at once, and read from there.
3. What works value by value on one tensor (activation, scale, shift) is merged into the layer or layers that make it.
4. What works value by value on several (addition, gating) is merged into the last layer that makes one of them; the
   others are read from memory.
5. A layer reads each tensor once, however many of its operators want it, and writes a tensor only if another layer or
   the caller reads it. Resizing reads at most as many source values as its interpolation has taps.
6. A tensor passes through memory between any two layers. Where it fits into a cache a device can be faster than that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from searchkit.errors import InputFileError, UsageError

from .devices import WIDTHS

MOVES = frozenset(
    (
        "Concat",
        "Slice",
        "Split",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "DepthToSpace",
        "SpaceToDepth",
        "Identity",
        "Expand",
        "Pad",
    )
)
POINTWISE = frozenset(
    (
        "Relu",
        "PRelu",
        "LeakyRelu",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Tanh",
        "Clip",
        "Exp",
        "Sqrt",
        "Neg",
        "Abs",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Min",
        "Max",
        "Pow",
        "Equal",
        "Less",
        "Greater",
        "Where",
        "Not",
        "And",
        "Or",
        "Cast",
        "Floor",
        "Ceil",
        "Round",
        "QuantizeLinear",
        "DequantizeLinear",
        "BatchNormalization",
    )
)

_TAPS = {"nearest": 1, "linear": 4, "cubic": 16}
_FLOATS = frozenset(getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"))
_INPUT = -1


@dataclass(frozen=True, slots=True)
class Layer:
    """One anchor with what is merged into it.

    Attributes:
        name: of the anchor's node in the ONNX model.
        operator: of the anchor, such as `Conv`.
        nodes: names of all its nodes, the anchor's first.
        macs: multiply-accumulates of convolutions and matrix products.
        weight_bytes, read_bytes, written_bytes: constants, and tensors to and from memory.
    """

    name: str
    operator: str
    nodes: tuple[str, ...]
    macs: int
    weight_bytes: int
    read_bytes: int
    written_bytes: int

    @property
    def bytes(self) -> int:
        """All that passes between the layer and memory."""
        return self.weight_bytes + self.read_bytes + self.written_bytes


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stored tensor, or a part of it: `group` made it, `root` names it, `whole` and `seen` are bytes."""

    group: int
    root: str
    whole: int
    seen: int


@dataclass
class _Group:
    """A layer while it is being put together."""

    anchor: onnx.NodeProto
    nodes: list[str]
    macs: int = 0
    constants: dict[str, int] = field(default_factory=dict)
    reads: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    wholes: dict[str, int] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)


def layers_of(model: bytes, precision: str = "fp32") -> tuple[Layer, ...]:
    """The layers of a float32 ONNX model, in the order in which they run.

    Args:
        model: serialised; all shapes must be known or follow by inference.
        precision: of `devices.WIDTHS`: how many bytes each float value takes. Other types keep their own width.

    Raises:
        InputFileError: it is no ONNX model, or the shape of a tensor is not known.
        UsageError: an unknown precision.
    """
    if precision not in WIDTHS:
        raise UsageError("unknown precision", got=precision, allowed=", ".join(WIDTHS))
    try:
        parsed = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    except Exception as error:
        # protobuf's and onnx's own errors have no common base; the file is what is wrong in all of them.
        raise InputFileError(f"not an ONNX model: {str(error).splitlines()[0][:120]}", where="model") from None
    if not parsed.graph.node:
        raise InputFileError("not an ONNX model: it has no nodes", where="model")
    return _Builder(parsed.graph, WIDTHS[precision]).layers()


class _Builder:
    """One walk over the nodes, which ONNX keeps in an order in which they can run."""

    def __init__(self, graph: onnx.GraphProto, width: int) -> None:
        self._graph, self._width = graph, width
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._fixed: set[str] = set(self._constants)
        self._shapes, self._types = _shapes_and_types(graph)
        self._pieces: dict[str, tuple[_Piece, ...]] = {}
        self._groups: list[_Group] = []

    def layers(self) -> tuple[Layer, ...]:
        for value in self._graph.input:
            if value.name not in self._fixed:
                size = self._bytes(value.name)
                self._pieces[value.name] = (_Piece(_INPUT, value.name, size, size),)
        for node in self._graph.node:
            self._take(node)
        for value in self._graph.output:
            for piece in self._pieces.get(value.name, ()):
                self._store(piece)
        return tuple(_frozen(group) for group in self._groups)

    def _take(self, node: onnx.NodeProto) -> None:
        inputs = [name for name in node.input if name and name not in self._fixed]
        if not inputs:
            self._fixed.update(node.output)
        elif node.op_type in MOVES:
            self._move(node, inputs)
        elif node.op_type in POINTWISE:
            self._merge(node, list(dict.fromkeys(inputs)))
        else:
            self._anchor(node, list(dict.fromkeys(inputs)))

    def _move(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        pieces = [piece for name in inputs for piece in self._pieces[name]]
        total = sum(piece.seen for piece in pieces)
        for name in node.output:
            # Of a slice of several pieces each gives its share; of a concatenation, all of each.
            share = min(1.0, self._bytes(name) / total) if total else 0.0
            self._pieces[name] = tuple(replace(piece, seen=math.ceil(piece.seen * share)) for piece in pieces)
        for group in {piece.group for piece in pieces} - {_INPUT}:
            self._groups[group].nodes.append(node.name)
            break

    def _merge(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        pieces = [piece for name in inputs for piece in self._pieces[name]]
        last = max(piece.group for piece in pieces)
        output = node.output[0]
        if last == _INPUT:
            # Before the first layer: that one does it as it reads.
            self._pieces[output] = tuple(pieces)
            return
        group = self._groups[last]
        group.nodes.append(node.name)
        self._hold_constants(group, node)
        if len(inputs) == 1:
            self._pieces[output] = self._remade(pieces, output)
            return
        for name in inputs:
            self._read(last, name)
        size = self._bytes(output)
        self._pieces[output] = (_Piece(last, output, size, size),)

    def _remade(self, pieces: Sequence[_Piece], output: str) -> tuple[_Piece, ...]:
        """What a value-by-value operator makes of pieces: other tensors, each made where its piece is made.

        Their values may be of another width: a cast, or a constant that spreads one value over many.
        """
        scale = self._bytes(output) / sum(piece.seen for piece in pieces)
        made = []
        for index, piece in enumerate(pieces):
            size = math.ceil(piece.seen * scale)
            is_input = piece.group == _INPUT
            made.append(piece if is_input else _Piece(piece.group, f"{output}#{index}", size, size))
        return tuple(made)

    def _anchor(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        self._groups.append(_Group(node, [node.name], self._macs(node)))
        index = len(self._groups) - 1
        self._hold_constants(self._groups[index], node)
        for name in inputs:
            self._read(index, name, self._most_read(node))
        for name in filter(None, node.output):
            size = self._bytes(name)
            self._pieces[name] = (_Piece(index, name, size, size),)

    def _read(self, group: int, name: str, most: int | None = None) -> None:
        """A group needs a tensor: it reads what other groups, or the caller, made of it."""
        reader = self._groups[group]
        for piece in self._pieces[name]:
            if piece.group == group:
                continue
            self._store(piece)
            seen = piece.seen if most is None else min(piece.seen, most)
            reader.reads[piece.root][name] = max(seen, reader.reads[piece.root].get(name, 0))
            reader.wholes[piece.root] = piece.whole

    def _store(self, piece: _Piece) -> None:
        if piece.group != _INPUT:
            self._groups[piece.group].writes[piece.root] = piece.whole

    def _hold_constants(self, group: _Group, node: onnx.NodeProto) -> None:
        for name in node.input:
            tensor = self._constants.get(name)
            # Shapes, axes and sizes are whole numbers, and part of the compiled code.
            if tensor is not None and tensor.data_type in _FLOATS and not _is_setting(node, name):
                group.constants[name] = math.prod(tensor.dims) * self._width

    def _most_read(self, node: onnx.NodeProto) -> int | None:
        if node.op_type != "Resize":
            return None
        return _TAPS.get(_text(node, "mode", "nearest"), 16) * self._bytes(node.output[0])

    def _macs(self, node: onnx.NodeProto) -> int:
        count = {"Conv": self._conv, "ConvTranspose": self._conv_transpose, "Gemm": self._gemm, "MatMul": self._matmul}
        return count[node.op_type](node) if node.op_type in count else 0

    def _conv(self, node: onnx.NodeProto) -> int:
        # Of the weight (out, in / groups, kernel ...) all but the first is multiplied for each output value.
        return math.prod(self._shape(node.output[0])) * math.prod(self._shape(node.input[1])[1:])

    def _conv_transpose(self, node: onnx.NodeProto) -> int:
        # The weight is (in, out / groups, kernel ...): each input value goes into all of that.
        return math.prod(self._shape(node.input[0])) * math.prod(self._shape(node.input[1])[1:])

    def _gemm(self, node: onnx.NodeProto) -> int:
        shape = self._shape(node.input[0])
        inner = shape[0] if _number(node, "transA", 0) else shape[1]
        return math.prod(self._shape(node.output[0])) * inner

    def _matmul(self, node: onnx.NodeProto) -> int:
        return math.prod(self._shape(node.output[0])) * self._shape(node.input[0])[-1]

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise InputFileError("the shape of a tensor is not known", where="model", got=name, fix="export it again")
        return self._shapes[name]

    def _bytes(self, name: str) -> int:
        kind = self._types.get(name, onnx.TensorProto.FLOAT)
        width = self._width if kind in _FLOATS else onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
        return math.prod(self._shape(name)) * width


def _shapes_and_types(graph: onnx.GraphProto) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        sides = [side.dim_value for side in kind.shape.dim]
        types[value.name] = kind.elem_type
        if kind.HasField("shape") and all(side > 0 for side in sides):
            shapes[value.name] = tuple(sides)
    return shapes, types


def _is_setting(node: onnx.NodeProto, name: str) -> bool:
    """Scales and regions of a resize are float, but no weights."""
    return node.op_type == "Resize" and name in list(node.input)[1:]


def _frozen(group: _Group) -> Layer:
    read = sum(min(group.wholes[root], sum(views.values())) for root, views in group.reads.items())
    return Layer(
        name=group.anchor.name,
        operator=group.anchor.op_type,
        nodes=tuple(group.nodes),
        macs=group.macs,
        weight_bytes=sum(group.constants.values()),
        read_bytes=read,
        written_bytes=sum(group.writes.values()),
    )


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def _text(node: onnx.NodeProto, name: str, default: str) -> str:
    value = _attribute(node, name)
    return value.decode() if value else default


def _number(node: onnx.NodeProto, name: str, default: int) -> int:
    value = _attribute(node, name)
    return default if value is None else int(value)


def total_macs(layers: Iterable[Layer]) -> int:
    """Multiply-accumulates of all layers."""
    return sum(layer.macs for layer in layers)
