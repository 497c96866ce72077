"""Half precision: a typed float16 copy of a float32 graph, with everything that float16 would spoil left as it is.

Types stand in the graph, so that a strongly typed compiler needs no flags: the model's input and output keep the
contract's types, and Cast nodes stand where float32 and float16 meet. Float32 stay

- what comes before the first convolution: values from 0 to 255 are normalised exactly, then rounded once;
- what comes behind the last convolution (Resize, Softmax, ArgMax): it decides the labels, and a rounding to 11 bits
  there makes ties of near-ties;
- a node with an activation that comes within a factor of 4 of float16's largest value, 65504, on the pictures that were
  looked at, or whose values are all below its smallest normal one; a mean also where the sum that it divides would;
- a node whose weights exceed that largest value, or lose more by rounding than weights of a normal size do;
- a DequantizeLinear that only such nodes read: a Cast between the two would hide from a compiler that they are int8;
- Resize's scales and region, which ONNX defines as float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from .graph import WEIGHTED, Graph

LARGEST = 65504.0
SMALLEST_NORMAL = 2.0**-14
#: Pictures to come may reach further than those looked at.
HEADROOM = 4.0
#: Relative, in the Euclidean norm. Rounding to nearest costs normal values at most 2^-11 each.
MAX_WEIGHT_ERROR = 2.0**-11

# Nothing but pixel values has gone through these.
_POINTWISE = frozenset(
    {"Add", "Cast", "Concat", "Div", "Gather", "Identity", "Mul", "Reshape", "Slice", "Split", "Sub", "Transpose"}
)
_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})
# Operator -> inputs that are float32 whatever the data are.
_ALWAYS_FLOAT32 = {"Resize": (1, 2)}


@dataclass(frozen=True)
class Kept:
    """A node between the first and the last convolution that stays float32, and why."""

    node: str
    operator: str
    why: str


def to_fp16(model: bytes, largest: Mapping[str, float]) -> tuple[bytes, list[Kept]]:
    """A float32 model in float16.

    Args:
        model: serialised ONNX. One with QuantizeLinear nodes must declare opset 19 or later.
        largest: activation -> the largest |x| that was seen; one that is missing is not checked.

    Returns:
        The model, and the nodes that stayed float32 for the sake of their values.
    """
    graph = Graph(model)
    kept = [
        Kept(node.name, node.op_type, why) for node in _inner_nodes(graph) if (why := _unsafe(graph, node, largest))
    ]
    half = _half_nodes(graph, {item.node for item in kept})
    return _Conversion(graph, half).run(), kept


def _half_nodes(graph: Graph, spoiled: set[str]) -> set[str]:
    """The nodes that become float16."""
    half = {node.name for node in _inner_nodes(graph) if node.name not in spoiled}
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear":
            readers = {reader.name for reader in graph.consumers[node.output[0]]}
            if readers <= spoiled:
                half.discard(node.name)
    return half


def _inner_nodes(graph: Graph) -> list[onnx.NodeProto]:
    """The nodes from the first convolution to the last, whatever branch they are on."""
    early = {value.name for value in graph.model.graph.input}
    for node in graph.nodes:
        computed = [name for name in node.input if graph.is_computed(name)]
        if node.op_type in _POINTWISE and computed and early.issuperset(computed):
            early.update(node.output)
    late: set[str] = set()
    for node in reversed(graph.nodes):
        readers = [reader for name in node.output for reader in graph.consumers.get(name, ())]
        if node.op_type not in WEIGHTED and all(reader.name in late for reader in readers):
            late.add(node.name)
    return [node for node in graph.nodes if node.name not in late and not early.issuperset(node.output)]


def _unsafe(graph: Graph, node: onnx.NodeProto, largest: Mapping[str, float]) -> str | None:
    """Why float16 would spoil this node; None if it would not."""
    limit = LARGEST / HEADROOM
    for name in (*node.input, *node.output):
        value = largest.get(name, SMALLEST_NORMAL)
        # Written so that NaN is unsafe.
        if not value <= limit:
            return f"an activation reaches {value:.3g}, over {limit:g}"
        if 0 < value < SMALLEST_NORMAL:
            return f"an activation reaches {value:.3g} only, below {SMALLEST_NORMAL:.3g}"
    if node.op_type in _MEANS:
        terms = _averaged(graph, node)
        bound = terms * largest.get(node.input[0], 0.0)
        if not bound <= limit:
            return f"a sum of {terms} values may reach {bound:.3g}, over {limit:g}"
    for index, name in enumerate(node.input):
        if name in graph.initialisers and graph.is_float(name) and index not in _fixed(node):
            why = _unsafe_weights(graph.array(name))
            if why:
                return why
    return None


def _unsafe_weights(weights: np.ndarray) -> str | None:
    values = weights.astype(np.float64)
    if not np.abs(values).max(initial=0) <= LARGEST:
        return f"a weight of {np.abs(values).max():.3g}, over {LARGEST:g}"
    norm = np.linalg.norm(values)
    error = np.linalg.norm(values - values.astype(np.float16))
    if error > MAX_WEIGHT_ERROR * norm:
        return f"rounding changes the weights by {error / norm:.3g} of their norm"
    return None


def _averaged(graph: Graph, node: onnx.NodeProto) -> int:
    """How many values one output of a mean or sum is made of."""
    if node.op_type == "AveragePool":
        return math.prod(next(a.ints for a in node.attribute if a.name == "kernel_shape"))
    return math.prod(graph.shape(node.input[0])) // math.prod(graph.shape(node.output[0]))


def _fixed(node: onnx.NodeProto) -> tuple[int, ...]:
    return _ALWAYS_FLOAT32.get(node.op_type, ())


class _Conversion:
    """The rewriting itself, with the nodes of `half` in float16."""

    def __init__(self, graph: Graph, half: set[str]) -> None:
        self.graph = graph
        self.half = half
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.casts: set[str] = set()

    def run(self) -> bytes:
        for node in self.graph.nodes:
            self.nodes.append(self.converted(node))
        for name in self.graph.outputs:
            if self.graph.is_float(name):
                self.read(name, half=False)
        return self.graph.finished(self.nodes, list(self.constants.values()))

    def converted(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A copy of `node` on tensors of its own type; the Casts that it needs are put in front."""
        copied = onnx.NodeProto.FromString(node.SerializeToString())
        half = node.name in self.half
        for index, name in enumerate(node.input):
            if self.graph.is_float(name):
                copied.input[index] = self.read(name, half=half and index not in _fixed(node))
        for index, name in enumerate(node.output):
            if half and self.graph.is_float(name):
                copied.output[index] = _half_name(name)
        return copied

    def read(self, name: str, *, half: bool) -> str:
        """The tensor `name` in the wanted type; a Cast is made where it does not exist so yet."""
        if name in self.graph.initialisers:
            return self.half_constant(name) if half else name
        producer = self.graph.producers.get(name)
        made_half = producer is not None and producer.name in self.half
        wanted = _half_name(name) if half else name
        if half != made_half and wanted not in self.casts:
            self.casts.add(wanted)
            source, to = (name, TensorProto.FLOAT16) if half else (_half_name(name), TensorProto.FLOAT)
            self.nodes.append(onnx.helper.make_node("Cast", [source], [wanted], name=f"{wanted}.cast", to=to))
        return wanted

    def half_constant(self, name: str) -> str:
        array = self.graph.array(name).astype(np.float16)
        self.constants[name] = numpy_helper.from_array(array, _half_name(name))
        return _half_name(name)


def _half_name(name: str) -> str:
    return f"{name}.fp16"
