"""Graphs that end in labels, and logits for them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

FLOATS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


def _graph(source=(5, 9), target=(40, 71), *, dtype="float32", batch=1, classes=7, resize=None, arg_max=None, cast=2):
    """Conv (which passes its input on), Resize, ArgMax, Cast."""
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"} | (resize or {})
    nodes = [helper.make_node("Mul", ["given", "one"], ["logits"])]
    if resize is not False:
        nodes.append(helper.make_node("Resize", ["logits", "", "", "sizes"], ["full"], **how))
    best = {"axis": 1, "keepdims": 0} | (arg_max or {})
    nodes.append(helper.make_node("ArgMax", [nodes[-1].output[0]], ["index"], **best))
    nodes.append(helper.make_node("Cast", ["index"], ["labels"], to=cast))
    constants = [
        helper.make_tensor("sizes", TensorProto.INT64, [4], [batch, classes, *target]),
        helper.make_tensor("one", FLOATS[dtype], [1], [1.0]),
    ]
    shape = [batch, classes, *source]
    given = helper.make_tensor_value_info("given", FLOATS[dtype], shape)
    wanted = helper.make_tensor_value_info("labels", cast, [batch, *target])
    known = [helper.make_tensor_value_info("logits", FLOATS[dtype], shape)]
    whole = helper.make_graph(nodes, "head", [given], [wanted], constants, value_info=known)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def _logits(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.fixture(scope="session")
def graph():
    """`graph(source, target, ...)`: a serialised model from logits to labels."""
    return _graph


@pytest.fixture(scope="session")
def logits():
    """`logits(shape, dtype, seed)`: random ones."""
    return _logits
