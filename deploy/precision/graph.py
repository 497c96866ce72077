"""One ONNX graph taken apart for editing: who makes a tensor, who reads it, what type it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

#: Operators that multiply by trained weights: where accuracy is lost and where time goes.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

#: What a contract may put behind the logits; between these and the output only the form changes.
_DECISIONS = frozenset({"ArgMax", "Softmax"})
_FORM_ONLY = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


class Graph:
    """A model whose every tensor has a known type and shape.

    Args:
        model: serialised ONNX with static shapes.

    Attributes:
        model: with the inferred types in `value_info`.
        producers: tensor -> the node that makes it.
        consumers: tensor -> the nodes that read it, in order, each once.
        initialisers: name -> constant.
    """

    def __init__(self, model: bytes) -> None:
        self.model = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), strict_mode=True)
        graph = self.model.graph
        self.nodes = list(graph.node)
        self.initialisers = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = [value.name for value in graph.output]
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(filter(None, node.input)):
                self.consumers.setdefault(name, []).append(node)
        self._values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}

    def is_float(self, name: str) -> bool:
        """Whether a tensor, constant or computed, is float32."""
        if name in self.initialisers:
            return bool(self.initialisers[name].data_type == TensorProto.FLOAT)
        return name in self._values and self._values[name].type.tensor_type.elem_type == TensorProto.FLOAT

    def is_computed(self, name: str) -> bool:
        """Whether a tensor depends on the input picture."""
        return bool(name) and name not in self.initialisers

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor."""
        if name in self.initialisers:
            return tuple(self.initialisers[name].dims)
        return tuple(d.dim_value for d in self._values[name].type.tensor_type.shape.dim)

    def array(self, name: str) -> np.ndarray:
        """Value of a constant."""
        return numpy_helper.to_array(self.initialisers[name])

    def activations(self) -> list[str]:
        """All computed float32 tensors, in the order of their making; the float input first."""
        inputs = [value.name for value in self.model.graph.input]
        made = [name for node in self.nodes for name in node.output]
        return [name for name in (*inputs, *made) if self.is_float(name)]

    def logits(self) -> str:
        """The tensor that decides the labels: the input of the last ArgMax or Softmax, or else the output itself.

        Only nodes that change the form stand between that ArgMax or Softmax and the output; a Softmax inside the
        network is not taken for it.
        """
        name = self.outputs[0]
        while name in self.producers:
            node = self.producers[name]
            if node.op_type in _DECISIONS:
                return str(node.input[0])
            if node.op_type not in _FORM_ONLY:
                break
            name = node.input[0]
        return self.outputs[0]

    def assembled(
        self, nodes: Iterable[onnx.NodeProto], constants: Iterable[onnx.TensorProto] = (), outputs: Sequence[str] = ()
    ) -> onnx.ModelProto:
        """A model of these nodes, unchecked; of nodes and constants only what its outputs need.

        Args:
            nodes: in an order in which each tensor is made before it is read.
            constants: new ones, beside the old.
            outputs: tensors of this graph to have for outputs; the model's own if empty.
        """
        old = self.model.graph
        needed, kept = set(outputs or self.outputs), []
        for node in reversed(list(nodes)):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        model = onnx.ModelProto(
            ir_version=self.model.ir_version,
            producer_name=self.model.producer_name,
            producer_version=self.model.producer_version,
            opset_import=self.model.opset_import,
            metadata_props=self.model.metadata_props,
        )
        model.graph.name = old.name
        model.graph.input.extend(old.input)
        model.graph.output.extend(self._values[name] for name in outputs or self.outputs)
        model.graph.node.extend(reversed(kept))
        model.graph.initializer.extend(tensor for tensor in (*old.initializer, *constants) if tensor.name in needed)
        return model

    def finished(self, nodes: Iterable[onnx.NodeProto], constants: Iterable[onnx.TensorProto]) -> bytes:
        """The same, with all types and shapes written out, checked and serialised."""
        model = onnx.shape_inference.infer_shapes(self.assembled(nodes, constants), strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))

    def reading(self, outputs: Sequence[str]) -> bytes:
        """The model with these tensors for its outputs, in this order."""
        return bytes(self.assembled(self.nodes, outputs=outputs).SerializeToString())
