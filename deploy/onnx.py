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

from .signals import deferred_signals

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
    # The exporter imports half of torch as it runs. An interrupt in there can be swallowed, and leaves behind modules
    # that are imported in part.
    with quiet(), deferred_signals(), torch.no_grad():
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
        concat = graph.producer(node.input[0])
        widths = graph.concatenated(concat) if concat is not None and graph.uses(node.input[0]) == 1 else None
        if concat is not None and widths is not None:
            graph.fold_into_concat(concat, widths, scale, shift)
            graph.bypass(node, node.input[0])
        else:
            graph.bypass(node, graph.insert_affine(node.input[0], scale, shift, node))
    graph.drop_unused()


class _Graph:
    """The few edits that `fold_batch_norms` makes, on one ONNX graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.values = {t.name: t for t in graph.initializer}
        self._count = 0

    def array(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.values[name])

    def fresh(self, name: str) -> str:
        """A name that nothing else has: one tensor may feed several BatchNorms, one weight several convolutions."""
        self._count += 1
        return f"{name}.{self._count}"

    def add(self, name: str, value: np.ndarray) -> str:
        tensor = numpy_helper.from_array(np.ascontiguousarray(value, np.float32), self.fresh(name))
        self.graph.initializer.append(tensor)
        self.values[tensor.name] = tensor
        return tensor.name

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

    def concatenated(self, concat: onnx.NodeProto) -> list[int] | None:
        """Channels of each part of a Concat of channels; None for another node, or where a part's are not known."""
        if concat.op_type != "Concat" or [a.i for a in concat.attribute if a.name == "axis"] != [1]:
            return None
        widths = [self.channels(name) for name in concat.input]
        return widths if all(widths) else None

    def channels(self, name: str) -> int:
        """Channels of a tensor; 0 where the graph does not say."""
        conv = self.producer(name)
        if conv is not None and self.is_foldable(conv):
            return int(self.values[conv.input[1]].dims[0])
        for value in (*self.graph.value_info, *self.graph.input):
            if value.name == name and len(value.type.tensor_type.shape.dim) > 1:
                return int(value.type.tensor_type.shape.dim[1].dim_value)
        return 0

    def is_foldable(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "Conv" and all(name in self.values for name in node.input[1:])

    def fold_into_concat(self, concat: onnx.NodeProto, widths: list[int], scale: np.ndarray, shift: np.ndarray) -> None:
        start = 0
        for index, (name, channels) in enumerate(zip(concat.input, widths, strict=True)):
            conv = self.producer(name)
            part = slice(start, start + channels)
            if conv is not None and self.is_foldable(conv) and self.uses(name) == 1:
                self.fold_into_conv(conv, scale[part], shift[part])
            else:
                concat.input[index] = self.insert_affine(name, scale[part], shift[part], concat)
            start += channels

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
        scaled, shifted = self.fresh(f"{name}.scaled"), self.fresh(f"{name}.shifted")
        multiply = onnx.helper.make_node("Mul", [name, factor], [scaled], name=f"{scaled}.mul")
        add = onnx.helper.make_node("Add", [scaled, term], [shifted], name=f"{shifted}.add")
        position = list(self.graph.node).index(before)
        self.graph.node.insert(position, multiply)
        self.graph.node.insert(position + 1, add)
        return shifted

    def bypass(self, node: onnx.NodeProto, replacement: str) -> None:
        """Remove `node`; what read its first output reads `replacement`, under the old name if the graph returns it."""
        removed = node.output[0]
        self.graph.node.remove(node)
        if any(output.name == removed for output in self.graph.output):
            last = self.producer(replacement)
            assert last is not None
            last.output[0] = removed
            return
        for other in self.graph.node:
            for index, name in enumerate(other.input):
                if name == removed:
                    other.input[index] = replacement

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
def quiet() -> Iterator[None]:
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
