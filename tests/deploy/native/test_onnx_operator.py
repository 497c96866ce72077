"""The operator LabelHead in ONNX Runtime, against the graph of Resize and ArgMax that it replaces."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from deploy.native.label_head import label_head
from deploy.native.library import Missing
from deploy.native.onnx_operator import DOMAIN, OPERATOR, register, with_label_head
from searchkit.errors import BackendUnavailableError
from searchkit.sizes import Size


def session(model, threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    register(options)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("corners", ["half_pixel", "align_corners"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_labels_are_those_of_the_pure_graph(graph, logits, threads, corners, dtype):
    pure = graph(target=(150, 71), batch=2, dtype=dtype, resize={"coordinate_transformation_mode": corners})
    fused = with_label_head(pure)
    given = logits((2, 7, 5, 9), dtype)
    found = session(fused, threads).run(None, {"given": given})[0]
    assert (found.dtype, found.shape) == (np.uint8, (2, 150, 71))
    full = torch.nn.functional.interpolate(
        torch.from_numpy(given.astype(np.float64)),
        size=(150, 71),
        mode="bilinear",
        align_corners=corners == "align_corners",
    ).numpy()
    two = np.sort(full, axis=1)[:, -2:]
    # In float16 the pure graph rounds the blended logits; the operator blends in float32.
    clear = two[:, 1] - two[:, 0] > 1e-5
    assert clear.mean() > 0.999
    np.testing.assert_array_equal(found[clear], full.argmax(1)[clear])
    if dtype == "float32":
        wanted = onnxruntime.InferenceSession(pure, providers=["CPUExecutionProvider"]).run(None, {"given": given})[0]
        np.testing.assert_array_equal(found[clear], wanted[clear])
    for one, own in zip(given, found, strict=True):
        np.testing.assert_array_equal(own, label_head(one, Size(150, 71), corners=corners))


def test_what_is_left_in_the_graph(graph):
    model = onnx.load_from_string(with_label_head(graph()))
    assert [node.op_type for node in model.graph.node] == ["Mul", OPERATOR]
    assert [t.name for t in model.graph.initializer] == ["one"]
    assert (model.graph.node[1].domain, model.opset_import[1].domain) == (DOMAIN, DOMAIN)


def test_arg_max_without_resize(graph, logits):
    fused = with_label_head(graph((6, 8), (6, 8), resize=False))
    given = logits((1, 7, 6, 8))
    np.testing.assert_array_equal(session(fused).run(None, {"given": given})[0], given.argmax(1))


@pytest.mark.parametrize(
    "other",
    [
        {"resize": {"mode": "nearest"}},
        {"resize": {"antialias": 1}},
        {"resize": {"coordinate_transformation_mode": "asymmetric"}},
        {"arg_max": {"select_last_index": 1}},
        {"arg_max": {"axis": 2}},
        {"cast": TensorProto.INT64},
        {"resize": False},
    ],
)
def test_other_tails_are_left_alone(graph, other):
    assert with_label_head(graph(**other)) is None


def test_a_tensor_that_something_else_reads_is_left_alone(graph):
    model = onnx.load_from_string(graph())
    model.graph.node.append(helper.make_node("Relu", ["full"], ["also"]))
    model.graph.output.append(helper.make_tensor_value_info("also", TensorProto.FLOAT, [1, 7, 40, 71]))
    assert with_label_head(model.SerializeToString()) is None
    del model.graph.output[1]
    assert with_label_head(model.SerializeToString()) is None


def test_what_the_operator_refuses():
    """Rank, type, classes and attributes are checked by the operator itself: a graph may state anything."""

    def opened(shape, kind=TensorProto.FLOAT, **attributes):
        wanted = {"height": 4, "width": 4, "align_corners": 0} | attributes
        node = helper.make_node(OPERATOR, ["given"], ["labels"], domain=DOMAIN, **wanted)
        given = helper.make_tensor_value_info("given", kind, shape)
        labels = helper.make_tensor_value_info("labels", TensorProto.UINT8, None)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
        whole = helper.make_graph([node], "head", [given], [labels])
        return session(helper.make_model(whole, opset_imports=opsets, ir_version=10).SerializeToString())

    for shape, dtype, said in [
        ((3, 4, 4), np.float32, "not N x C x h x w"),
        ((1, 257, 4, 4), np.float32, "more than 256 classes"),
        ((1, 0, 4, 4), np.float32, "there is no class"),
        ((1, 3, 4, 4), np.float64, "neither float32"),
    ]:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        with pytest.raises(Exception, match=said):
            opened(shape, kind).run(None, {"given": np.zeros(shape, dtype)})
    for attribute in ({"height": 0}, {"width": 32769}, {"align_corners": 2}):
        with pytest.raises(Exception, match="out of its range"):
            opened((1, 3, 4, 4), **attribute)


def test_an_empty_batch_gives_no_labels():
    node = helper.make_node(OPERATOR, ["given"], ["labels"], domain=DOMAIN, height=4, width=6, align_corners=0)
    given = helper.make_tensor_value_info("given", TensorProto.FLOAT, ["n", 3, 2, 2])
    labels = helper.make_tensor_value_info("labels", TensorProto.UINT8, ["n", 4, 6])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    whole = helper.make_graph([node], "head", [given], [labels])
    opened = session(helper.make_model(whole, opset_imports=opsets, ir_version=10).SerializeToString())
    assert opened.run(None, {"given": np.zeros((0, 3, 2, 2), np.float32)})[0].shape == (0, 4, 6)


def test_without_the_library(monkeypatch):
    monkeypatch.setattr(
        "deploy.native.onnx_operator.native", lambda: Missing("there is no C++ compiler", "install g++")
    )
    with pytest.raises(BackendUnavailableError, match=r"LabelHead is not available: there is no C\+\+ compiler"):
        register(onnxruntime.SessionOptions())
