"""What compilers refuse, found in an ONNX model before they are asked. One function a rule of `targets.toml`.

Each returns the first offender as a phrase, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_FP8 = ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ")
_3D_KERNEL_DIMS = 5


class Graph:
    """An ONNX graph with the types of its tensors; shapes and types that the model leaves out are inferred."""

    def __init__(self, model_bytes: bytes) -> None:
        import onnx

        self.model = onnx.shape_inference.infer_shapes(onnx.load_from_string(model_bytes))
        graph = self.model.graph
        self.nodes = list(graph.node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in self.nodes:
            value = next((a.t for a in node.attribute if node.op_type == "Constant" and a.name == "value"), None)
            if value is not None:
                self.constants[node.output[0]] = value
        self.inputs = [value for value in graph.input if value.name not in self.constants]
        values = [*graph.input, *graph.output, *graph.value_info]
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._types |= {name: tensor.data_type for name, tensor in self.constants.items()}

    @property
    def opset(self) -> int:
        """Version of the standard operators; 0 where none is stated."""
        return next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 0)

    def dtype(self, name: str) -> str:
        """Name of a tensor's type, such as FLOAT; UNDEFINED where it is not known."""
        import onnx

        known = onnx.TensorProto.DataType.DESCRIPTOR.values_by_number.get(self._types.get(name, 0))
        return str(known.name) if known else "UNDEFINED"

    def first_of_type(self, names: tuple[str, ...]) -> str | None:
        """The first tensor of one of these types."""
        return next((name for name in self._types if self.dtype(name) in names), None)


def _shown(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"


def _fp32_gemm(graph: Graph) -> str | None:
    for node in graph.nodes:
        inputs = [name for name in node.input if name]
        if not inputs or graph.dtype(inputs[0]) != "FLOAT":
            continue
        if node.op_type in ("MatMul", "Gemm"):
            return _shown(node)
        weight = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type in ("Conv", "ConvTranspose") and weight is not None and len(weight.dims) == _3D_KERNEL_DIMS:
            return _shown(node)
    return None


def _bf16(graph: Graph) -> str | None:
    name = graph.first_of_type(("BFLOAT16",))
    return f"tensor {name!r}" if name is not None else None


def _fp8(graph: Graph) -> str | None:
    name = graph.first_of_type(_FP8)
    return f"tensor {name!r}" if name is not None else None


def _antialias_resize(graph: Graph) -> str | None:
    for node in graph.nodes:
        if node.op_type == "Resize" and any(a.name == "antialias" and a.i for a in node.attribute):
            return _shown(node)
    return None


def _uint8_operators(graph: Graph) -> str | None:
    quantising = ("QuantizeLinear", "DequantizeLinear")
    for node in graph.nodes:
        if node.op_type == "Cast" or node.op_type in quantising or node.op_type == "Constant":
            continue
        if any(graph.dtype(name) == "UINT8" for name in (*node.input, *node.output) if name):
            return _shown(node)
    return None


def _zero_points(graph: Graph) -> str | None:
    from onnx import numpy_helper

    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3 or not node.input[2]:
            continue
        zero_point = graph.constants.get(node.input[2])
        if zero_point is None or numpy_helper.to_array(zero_point).any():
            return _shown(node)
    return None


def _int32_bias(graph: Graph) -> str | None:
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear" and graph.dtype(node.input[0]) == "INT32":
            return _shown(node)
    return None


def _dynamic_shapes(graph: Graph) -> str | None:
    for value in graph.inputs:
        tensor = value.type.tensor_type
        if not tensor.HasField("shape") or any(not dim.dim_value for dim in tensor.shape.dim):
            return f"input {value.name!r}"
    return None


RULES: dict[str, Callable[[Graph], str | None]] = {
    "fp32-gemm": _fp32_gemm,
    "bf16": _bf16,
    "fp8": _fp8,
    "antialias-resize": _antialias_resize,
    "uint8-operators": _uint8_operators,
    "zero-points": _zero_points,
    "int32-bias": _int32_bias,
    "dynamic-shapes": _dynamic_shapes,
}
