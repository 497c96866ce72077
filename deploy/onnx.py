"""Export to ONNX: one clean graph, the same bytes every time.

Opset 18 is the widest reach (TensorRT 10.0 and ONNX Runtime 1.20 read it). The exporter writes the file paths and the
stack trace of this machine into every node; they are stripped, and with them the only thing that would make two exports
differ between machines.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

OPSET = 18

_STRIPPED = ("node", "initializer", "value_info", "input", "output")


def export_onnx(
    module: nn.Module, example: Tensor, *, input_name: str, output_name: str, metadata: Mapping[str, str]
) -> bytes:
    """Export `module` (evaluation mode, already lowered) for inputs of the shape and dtype of `example`.

    Args:
        metadata: written into the model's metadata; must not name this machine.

    Returns:
        A serialised ONNX model: opset 18, static shapes, no BatchNorm, no local paths.
    """
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=[output_name],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    fold_batch_norms(model)
    _strip(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def fold_batch_norms(model: onnx.ModelProto) -> None:
    """Replace the BatchNorms that the exporter left, those behind a concatenation above all.

    Behind `Concat(Conv, other)` (ERFNet's downsampler) the convolution's share is folded into its weights and the rest
    becomes a multiplication and an addition on the other part alone; elsewhere the whole becomes those two.
    """
    graph = _Graph(model.graph)
    for node in [n for n in model.graph.node if n.op_type == "BatchNormalization"]:
        scale, shift = graph.affine(node)
        producer = graph.producer(node.input[0])
        if producer is not None and producer.op_type == "Concat" and graph.uses(node.input[0]) == 1:
            graph.fold_into_concat(producer, scale, shift)
            graph.bypass(node, node.input[0])
        else:
            graph.bypass(node, graph.insert_affine(node.input[0], scale, shift, node))
    graph.drop_unused()


class _Graph:
    """The few edits that `fold_batch_norms` makes, on one ONNX graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.values = {t.name: t for t in graph.initializer}

    def array(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.values[name])

    def add(self, name: str, value: np.ndarray) -> str:
        tensor = numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name)
        self.graph.initializer.append(tensor)
        self.values[name] = tensor
        return name

    def producer(self, name: str) -> onnx.NodeProto | None:
        return next((n for n in self.graph.node if name in n.output), None)

    def uses(self, name: str) -> int:
        outputs = sum(o.name == name for o in self.graph.output)
        return outputs + sum(list(n.input).count(name) for n in self.graph.node)

    def affine(self, node: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift per channel of a BatchNorm, in double precision."""
        gamma, beta, mean, variance = (self.array(n).astype(np.float64) for n in node.input[1:5])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        return scale, beta - mean * scale

    def fold_into_concat(self, concat: onnx.NodeProto, scale: np.ndarray, shift: np.ndarray) -> None:
        start = 0
        for index, name in enumerate(concat.input):
            conv = self.producer(name)
            channels = self.channels(name, len(scale) - start)
            part = slice(start, start + channels)
            if conv is not None and conv.op_type == "Conv" and self.uses(name) == 1:
                self.fold_into_conv(conv, scale[part], shift[part])
            else:
                concat.input[index] = self.insert_affine(name, scale[part], shift[part], concat)
            start += channels

    def channels(self, name: str, rest: int) -> int:
        for value in (*self.graph.value_info, *self.graph.input):
            if value.name == name and len(value.type.tensor_type.shape.dim) > 1:
                return int(value.type.tensor_type.shape.dim[1].dim_value)
        return rest

    def fold_into_conv(self, conv: onnx.NodeProto, scale: np.ndarray, shift: np.ndarray) -> None:
        weight = self.array(conv.input[1]).astype(np.float64)
        bias = self.array(conv.input[2]).astype(np.float64) if len(conv.input) > 2 else np.zeros(len(scale))
        new_weight = self.add(f"{conv.input[1]}.folded", weight * scale[:, None, None, None])
        new_bias = self.add(f"{conv.input[1]}.folded_bias", bias * scale + shift)
        del conv.input[1:]
        conv.input.extend([new_weight, new_bias])

    def insert_affine(self, name: str, scale: np.ndarray, shift: np.ndarray, before: onnx.NodeProto) -> str:
        """`name * scale + shift` as two nodes in front of `before`; returns the result's name."""
        factor = self.add(f"{name}.scale", scale[None, :, None, None])
        term = self.add(f"{name}.shift", shift[None, :, None, None])
        multiply = onnx.helper.make_node("Mul", [name, factor], [f"{name}.scaled"], name=f"{name}.mul")
        add = onnx.helper.make_node("Add", [f"{name}.scaled", term], [f"{name}.shifted"], name=f"{name}.add")
        position = list(self.graph.node).index(before)
        self.graph.node.insert(position, multiply)
        self.graph.node.insert(position + 1, add)
        return f"{name}.shifted"

    def bypass(self, node: onnx.NodeProto, replacement: str) -> None:
        """Remove `node`; what read its first output reads `replacement`."""
        removed = node.output[0]
        self.graph.node.remove(node)
        for other in self.graph.node:
            for index, name in enumerate(other.input):
                if name == removed:
                    other.input[index] = replacement
        for output in self.graph.output:
            if output.name == removed:
                last = self.producer(replacement)
                assert last is not None
                last.output[0] = removed

    def drop_unused(self) -> None:
        used = {name for n in self.graph.node for name in n.input}
        for tensor in [t for t in self.graph.initializer if t.name not in used]:
            self.graph.initializer.remove(tensor)
        names = used | {name for n in self.graph.node for name in n.output}
        for value in [v for v in self.graph.value_info if v.name not in names]:
            self.graph.value_info.remove(value)


def _strip(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Remove what names this machine or the code's inner structure; write our own metadata."""
    for kind in _STRIPPED:
        for item in getattr(model.graph, kind):
            del item.metadata_props[:]
            item.doc_string = ""
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    model.graph.name = metadata.get("searchkit.network", "network")
    model.producer_name, model.producer_version = "searchkit", metadata.get("searchkit.version", "")
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes about libraries that are not needed here."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    kept = [(logger, logger.level) for logger in (*loggers, registration)]
    try:
        for logger, _ in kept:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in kept:
            logger.setLevel(level)
