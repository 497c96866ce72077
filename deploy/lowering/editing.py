"""An ONNX graph while it is rewritten: who makes a tensor, who reads it, what shape it has, all up to date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..precision.graph import Graph

_4D = 4


class Editor:
    """One float32 model; `finished` gives the edited one.

    New tensors get the shape that their maker states, so nothing is inferred in between. `finished` infers all shapes
    again and fails where they do not fit.

    Args:
        model: serialised ONNX with static shapes.

    Attributes:
        nodes: in an order in which each tensor is made before it is read.
    """

    def __init__(self, model: bytes) -> None:
        self._graph = Graph(model)
        self.nodes: list[onnx.NodeProto] = list(self._graph.nodes)
        self._constants: dict[str, np.ndarray] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._count = 0
        self.edited = False

    def of_type(self, *operators: str) -> list[onnx.NodeProto]:
        """The nodes of these operators, as they are now."""
        return [node for node in self.nodes if node.op_type in operators]

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is a constant of the model."""
        return name in self._constants or name in self._graph.initialisers

    def array(self, name: str) -> np.ndarray:
        """Value of a constant."""
        return self._constants[name] if name in self._constants else self._graph.array(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, constant or computed."""
        if name in self._constants:
            return self._constants[name].shape
        return self._shapes.get(name) or self._graph.shape(name)

    def is_map(self, name: str) -> bool:
        """Whether a tensor is computed, 1 x C x H x W."""
        return not self.is_constant(name) and len(self.shape(name)) == _4D

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for inputs and constants."""
        return next((node for node in self.nodes if name in node.output), None)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor, each once."""
        return [node for node in self.nodes if name in node.input]

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor; None where there are others, or where the model returns it."""
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 and name not in self._graph.outputs else None

    def is_output(self, name: str) -> bool:
        """Whether the model returns this tensor."""
        return name in self._graph.outputs

    def constant(self, near: str, value: np.ndarray) -> str:
        """Name of a new constant; float values become float32."""
        name = self._fresh(near)
        self._constants[name] = value.astype(np.float32) if value.dtype.kind == "f" else value
        return name

    def node(
        self, operator: str, inputs: Sequence[str], near: str, shape: Sequence[int], **attributes: Any
    ) -> onnx.NodeProto:
        """A new node with one output of this shape, not yet in the graph; named after the tensor `near`."""
        name = self._fresh(near)
        self._shapes[name] = tuple(shape)
        return onnx.helper.make_node(operator, list(inputs), [name], name=f"{name}.{operator.lower()}", **attributes)

    def pointwise(
        self, source: str, weight: np.ndarray, bias: np.ndarray | None, near: str, *, group: int = 1
    ) -> onnx.NodeProto:
        """A new 1x1 convolution of stride 1 whose constants are named after `near`; weight out x in / group."""
        names = [self.constant(f"{near}.weight", weight[:, :, None, None])]
        names += [self.constant(f"{near}.bias", bias)] if bias is not None else []
        batch, _, height, width = self.shape(source)
        settings: dict[str, Any] = {"dilations": [1, 1], "group": group, "kernel_shape": [1, 1], "pads": [0] * 4}
        shape = (batch, len(weight), height, width)
        return self.node("Conv", [source, *names], near, shape, **settings, strides=[1, 1])

    def reweigh(self, conv: onnx.NodeProto, weight: np.ndarray, bias: np.ndarray | None) -> None:
        """Give a convolution other weights, and its output as many channels as they make."""
        near = conv.input[1].partition(".weight")[0]
        names = [self.constant(f"{near}.weight", weight)]
        names += [self.constant(f"{near}.bias", bias)] if bias is not None else []
        conv.input[1:] = names
        batch, _, height, width = self.shape(conv.output[0])
        self.set_shape(conv.output[0], (batch, len(weight), height, width))

    def replace(self, old: onnx.NodeProto, new: Sequence[onnx.NodeProto]) -> None:
        """Put `new` where `old` stands; the last of them makes the tensor that `old` made. Unread nodes are dropped."""
        result = old.output[0]
        self._shapes[result] = self.shape(new[-1].output[0])
        new[-1].output[0] = result
        place = self._index(old)
        self.nodes[place : place + 1] = new
        self._edited()

    def insert(self, before: onnx.NodeProto, new: onnx.NodeProto) -> None:
        """Put a node in front of another, which is to read it."""
        self.nodes.insert(self._index(before), new)
        self.edited = True

    def insert_behind(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        """Put `new`, which reads what a node makes, behind it; all other readers of that read `new` instead."""
        for reader in self.readers(node.output[0]):
            reader.input[:] = [new.output[0] if name == node.output[0] else name for name in reader.input]
        self.nodes.insert(self._index(node) + 1, new)
        self.edited = True

    def bypass(self, old: onnx.NodeProto, replacement: str) -> None:
        """Let all readers of what `old` makes read `replacement`; the model must not return it."""
        assert not self.is_output(old.output[0])
        for node in self.readers(old.output[0]):
            node.input[:] = [replacement if name == old.output[0] else name for name in node.input]
        self._edited()

    def set_shape(self, name: str, shape: Sequence[int]) -> None:
        """State the new shape of a tensor whose maker was changed in place."""
        self._shapes[name] = tuple(shape)
        self.edited = True

    def finished(self) -> bytes | None:
        """The edited model, checked; None where nothing was edited."""
        if not self.edited:
            return None
        constants = [numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in self._constants.items()]
        return self._graph.finished(self.nodes, constants)

    def _fresh(self, near: str) -> str:
        self._count += 1
        name = f"{near}.{self._count}"
        taken = {*self._graph.initialisers, *self._constants, *self._shapes, *self._graph.producers}
        return self._fresh(near) if name in taken else name

    def _index(self, node: onnx.NodeProto) -> int:
        return next(index for index, other in enumerate(self.nodes) if other is node)

    def _edited(self) -> None:
        self.edited = True
        needed, kept = set(self._graph.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """One attribute of a node: an integer, a list of integers or a text."""
    found = next((a for a in node.attribute if a.name == name), None)
    if found is None:
        return default
    value = onnx.helper.get_attribute_value(found)
    return value.decode() if isinstance(value, bytes) else value


def is_plain_conv(editor: Editor, node: onnx.NodeProto | None) -> bool:
    """Whether a node is a two-dimensional convolution of one group with constant weights."""
    return (
        node is not None
        and node.op_type == "Conv"
        and attribute(node, "group", 1) == 1
        and all(editor.is_constant(name) for name in node.input[1:])
        and len(editor.shape(node.input[1])) == _4D
    )


def is_pointwise(editor: Editor, node: onnx.NodeProto | None) -> bool:
    """Whether a node is a 1x1 convolution of one group, stride 1, no padding: a matrix on the channels."""
    return (
        is_plain_conv(editor, node)
        and node is not None
        and editor.shape(node.input[1])[2:] == (1, 1)
        and set(attribute(node, "strides", [1])) == {1}
        and not any(attribute(node, "pads", [0]))
        and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    )


def weights_of(editor: Editor, conv: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a convolution in double precision; a bias that is not there is zero."""
    weight = editor.array(conv.input[1]).astype(np.float64)
    bias = editor.array(conv.input[2]).astype(np.float64) if len(conv.input) > 2 else np.zeros(len(weight))
    return weight, bias


def is_channel_concat(node: onnx.NodeProto | None) -> bool:
    """Whether a node lays maps side by side."""
    return node is not None and node.op_type == "Concat" and attribute(node, "axis", None) in (1, -3)
