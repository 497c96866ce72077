"""Int8 as pairs of QuantizeLinear and DequantizeLinear in the graph, in the form that every consumer reads alike.

Symmetric throughout: zero-point 0, int8, weights per output channel, activations per tensor. TensorRT and TensorRT-RTX
accept nothing else, nor a bias that comes from an int32 DequantizeLinear: the bias stays float. Zero-points are written
out, since an absent one means uint8.

A *layer* is a convolution (or Gemm) with constant weights. Where its pairs stand, and why:

- On its input and on its weights. Q commutes with Relu, MaxPool, Concat, Slice, Reshape and Transpose, so a pair in
  front of the convolution is enough for a compiler to move Q up to where the tensor is made: the parts of a Concat then
  share one scale by themselves, and a pool works on int8. Resize does not commute with rounding, and is left float.
- Not on its output: Conv, its ReLU and the Q of the next layer are fused by the compiler, and a pair between Conv and
  ReLU would break that.
- On the other side of an Add that follows it. Only so can the convolution, the Add and the ReLU become one int8 kernel.
  If both sides are convolutions, the later one is fused and the earlier one carries the pair.

One tensor has at most one pair, which all of these share; readers that are no layers (a Resize, the Slice of a branch)
read the float tensor in front of it. A slice, a pool or a reshaped copy of a tensor takes the range of its source, so
that all of them are the same int8 values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from .graph import Graph

#: The greatest int8 used; -128 is not, so that the range is symmetric.
LARGEST = 127
#: From here on scales may be float16.
FLOAT16_OPSET = 19
# Scales are exact in float16, which also hides their last bits, in which processors differ.
_SCALE_BITS, _SMALLEST_SCALE = 11, 2.0**-24
# ONNX Runtime's optimiser makes int32 of a bias, in steps of both scales' product, and computes it in the scales' type.
_MAX_BIAS = {"fp32": 2.0**30, "fp16": 2.0**15}
_OPERATORS = ("Conv", "ConvTranspose", "Gemm")
#: Their output holds values of their first input and no others.
_SELECTIONS = ("MaxPool", "Reshape", "Slice", "Transpose")


@dataclass(frozen=True)
class Layer:
    """Something that can be int8 or stay float.

    Attributes:
        node: name of the ONNX node.
        name: for people: the weights' name in the network.
        operator: such as `Conv`.
        input: the activation that it reads.
        weights: name of the constant.
        bias: likewise; None where there is none.
        axis: of the output channels in the weights; None where one scale serves all of them.
        add: the Add behind it that a compiler fuses with it; None where there is none.
        addend: the other side of that Add.
    """

    node: str
    name: str
    operator: str
    input: str
    weights: str
    bias: str | None
    axis: int | None
    add: str | None = None
    addend: str | None = None

    @property
    def activations(self) -> list[str]:
        """The tensors that carry a pair for it."""
        return list(dict.fromkeys([self.input, *([self.addend] if self.addend else [])]))


def find_layers(model: bytes) -> list[Layer]:
    """All layers of a float32 model, in the order of execution."""
    graph = Graph(model)
    found = [node for node in graph.nodes if node.op_type in _OPERATORS and not graph.is_computed(node.input[1])]
    adds = _fused_adds(graph, {node.output[0]: node.name for node in found})
    return [
        Layer(
            node.name,
            node.input[1].partition(".weight")[0],
            node.op_type,
            node.input[0],
            node.input[1],
            node.input[2] if len(node.input) > 2 else None,
            _channel_axis(node),
            *adds.get(node.name, (None, None)),
        )
        for node in found
    ]


def range_sources(model: bytes, layers: Sequence[Layer]) -> list[str]:
    """The activations whose ranges `quantise` needs for these layers."""
    graph = Graph(model)
    return list(dict.fromkeys(_source(graph, name) for layer in layers for name in layer.activations))


def quantise(model: bytes, layers: Sequence[Layer], thresholds: Mapping[str, float], rest: str = "fp32") -> bytes:
    """The model with these layers in int8, all else float32.

    Args:
        model: serialised ONNX, float32.
        layers: of `find_layers(model)`, those to quantise.
        thresholds: each of `range_sources(model, layers)` -> the largest |x| to represent.
        rest: `fp16` where the result will be made float16: it then declares an opset that has float16 scales, and they
            are chosen so that no bias overflows.
    """
    graph = Graph(model)
    nodes, constants = quantised_nodes(graph, layers, thresholds, rest)
    if rest == "fp16":
        (entry,) = (entry for entry in graph.model.opset_import if entry.domain in ("", "ai.onnx"))
        entry.version = max(entry.version, FLOAT16_OPSET)
    return graph.finished(nodes, constants)


def quantised_nodes(
    graph: Graph, layers: Sequence[Layer], thresholds: Mapping[str, float], rest: str = "fp32"
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes of `quantise`, in order, and the constants that they need beside those of `graph`."""
    constants: list[onnx.TensorProto] = []
    activations = dict.fromkeys(name for layer in layers for name in layer.activations)
    steps = {name: scale(thresholds[_source(graph, name)]) for name in activations}
    pairs = {name: _pair(name, step, constants) for name, step in steps.items()}
    nodes = [node for value in graph.model.graph.input for node in pairs.get(value.name, ())]
    for weights in dict.fromkeys(layer.weights for layer in layers):
        served = [layer for layer in layers if layer.weights == weights]
        nodes.append(_quantised_weights(graph, served, steps, _MAX_BIAS[rest], constants))
    reads = {layer.node: {layer.input, layer.weights} for layer in layers}
    reads |= {layer.add: {layer.addend} for layer in layers if layer.add and layer.addend}
    for node in graph.nodes:
        replaced = onnx.NodeProto.FromString(node.SerializeToString())
        replaced.input[:] = [dequantised(name) if name in reads.get(node.name, ()) else name for name in node.input]
        nodes.append(replaced)
        for name in node.output:
            nodes.extend(pairs.get(name, ()))
    return nodes, constants


def dequantised(name: str) -> str:
    """What the layers read in place of a tensor."""
    return f"{name}.dequantised"


def scale(threshold: float) -> float:
    """The step for a range, rounded up to a float16, so that nothing in the range saturates; 1 for a range of 0."""
    if threshold <= 0:
        return 1.0
    step = threshold / LARGEST
    unit = max(2.0 ** (int(np.frexp(step)[1]) - _SCALE_BITS), _SMALLEST_SCALE)
    return float(np.ceil(step / unit) * unit)


def quantised(weights: np.ndarray, axis: int | None, smallest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights as int8, and their scales: one an index of `axis`, or a single one.

    Args:
        smallest: that the range of each channel (of all of them, if `axis` is None) may be.
    """
    magnitudes = np.abs(weights.astype(np.float64))
    others = tuple(i for i in range(weights.ndim) if i != axis)
    largest = magnitudes.max(axis=others) if axis is not None else magnitudes.max()
    scales = np.vectorize(scale, otypes=[np.float64])(np.maximum(largest, smallest))
    steps = np.expand_dims(scales, others) if axis is not None else scales
    values = np.clip(np.rint(weights / steps), -LARGEST, LARGEST)
    return values.astype(np.int8), scales.astype(np.float32)


def _channel_axis(node: onnx.NodeProto) -> int | None:
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "ConvTranspose":
        return 1 if attributes.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attributes.get("transB", 0) else 1
    return 0


def _fused_adds(graph: Graph, layers: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Layer -> the Add of two equal shapes that alone reads its output, and the tensor on its other side.

    Args:
        layers: output -> name, in the order of execution.
    """
    order = list(layers)
    adds = {}
    for node in graph.nodes:
        if node.op_type != "Add" or len({graph.shape(name) for name in node.input}) != 1:
            continue
        sides = [name for name in node.input if name in layers and len(graph.consumers[name]) == 1]
        if sides and node.input[0] != node.input[1]:
            later = max(sides, key=order.index)
            (other,) = (name for name in node.input if name != later)
            if graph.is_computed(other):
                adds[layers[later]] = (node.name, other)
    return adds


def _source(graph: Graph, name: str) -> str:
    while name in graph.producers and graph.producers[name].op_type in _SELECTIONS:
        name = graph.producers[name].input[0]
    return name


def _pair(name: str, step: float, constants: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    scale_name, zero_name = f"{name}.scale_int8", f"{name}.zero_int8"
    constants.append(numpy_helper.from_array(np.asarray(step, np.float32), scale_name))
    constants.append(numpy_helper.from_array(np.asarray(0, np.int8), zero_name))
    quantise_inputs = [name, scale_name, zero_name]
    dequantise_inputs = [f"{name}.quantised", scale_name, zero_name]
    return [
        onnx.helper.make_node("QuantizeLinear", quantise_inputs, [f"{name}.quantised"], name=f"{name}.quantise"),
        onnx.helper.make_node("DequantizeLinear", dequantise_inputs, [dequantised(name)], name=f"{name}.dequantise"),
    ]


def _quantised_weights(
    graph: Graph,
    layers: Sequence[Layer],
    steps: Mapping[str, float],
    most: float,
    constants: list[onnx.TensorProto],
) -> onnx.NodeProto:
    """The node that gives these layers the weights that they share; no bias exceeds `most` of its steps."""
    name, axis = layers[0].weights, layers[0].axis
    values, scales = quantised(graph.array(name), axis, _smallest_range(graph, layers, steps, most))
    for suffix, array in (("int8", values), ("scale_int8", scales), ("zero_int8", np.zeros(scales.shape, np.int8))):
        constants.append(numpy_helper.from_array(array, f"{name}.{suffix}"))
    inputs = [f"{name}.{suffix}" for suffix in ("int8", "scale_int8", "zero_int8")]
    node = onnx.helper.make_node("DequantizeLinear", inputs, [dequantised(name)], name=f"{name}.dequantise")
    if axis is not None:
        node.attribute.append(onnx.helper.make_attribute("axis", axis))
    return node


def _smallest_range(graph: Graph, layers: Sequence[Layer], steps: Mapping[str, float], most: float) -> np.ndarray:
    """Of the weights, a channel or in all, for which no bias exceeds `most` steps of input and weights together."""
    found: np.ndarray = np.zeros(())
    for layer in layers:
        if layer.bias:
            bias = np.abs(graph.array(layer.bias).astype(np.float64)).reshape(-1)
            needed = LARGEST * bias / (steps[layer.input] * most)
            found = np.maximum(found, needed if layer.axis is not None else needed.max())
    return found
