"""A model without its last resize and arg-max: what it answers, with the label head behind it, is the whole model's."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from deploy.headless import HeadlessModel
from deploy.native.label_head import label_head
from deploy.native.label_tail import label_tail, without_label_tail
from searchkit.errors import UsageError
from searchkit.sizes import Size


def answer(model, given):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"given": given})[0]


@pytest.mark.parametrize("corners", ["half_pixel", "align_corners"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_cut_and_continued_is_the_whole(graph, logits, corners, dtype):
    whole = graph(dtype=dtype, resize={"coordinate_transformation_mode": corners})
    cut = without_label_tail(whole)
    assert (cut.corners, cut.size) == (corners, Size(40, 71))
    onnx.checker.check_model(onnx.load_from_string(cut.model), full_check=True)
    given = logits((1, 7, 5, 9), dtype)
    found = answer(cut.model, given)
    assert (found.dtype, found.shape) == (np.dtype(dtype), (1, 7, 5, 9))
    assert np.array_equal(label_head(found[0], cut.size, corners=corners), answer(whole, given)[0])


def test_where_nothing_is_resized_the_tail_is_arg_max_and_cast(graph, logits):
    whole = graph(source=(40, 71), resize=False)
    assert [node.op_type for node in label_tail(onnx.load_from_string(whole)).nodes] == ["ArgMax", "Cast"]
    cut = without_label_tail(whole)
    given = logits((1, 7, 40, 71))
    assert np.array_equal(label_head(answer(cut.model, given)[0], cut.size), answer(whole, given)[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"resize": {"mode": "nearest"}},
        {"resize": {"mode": "cubic"}},
        {"resize": {"antialias": 1}},
        {"resize": {"coordinate_transformation_mode": "asymmetric"}},
        {"arg_max": {"axis": 2}},
        {"arg_max": {"select_last_index": 1}},
        {"cast": onnx.TensorProto.INT32},
    ],
)
def test_another_end_is_left_alone(graph, changes):
    assert without_label_tail(graph(**changes)) is None


@pytest.mark.parametrize(
    ("operator", "attribute", "why"),
    [("Resize", "mode", "nearest"), ("ArgMax", "axis", "the batch"), ("ArgMax", "keepdims", "kept")],
)
def test_what_a_node_does_not_state_is_what_onnx_says_it_is(graph, operator, attribute, why):
    """Nearest, over the batch, keeping the axis: none of it is what the label head does."""
    model = onnx.load_from_string(graph())
    (node,) = (node for node in model.graph.node if node.op_type == operator)
    (stated,) = (a for a in node.attribute if a.name == attribute)
    node.attribute.remove(stated)
    assert label_tail(model) is None, why


def test_a_model_that_ends_in_logits_has_no_tail(tiny_network):
    from deploy.deployable import Deployable

    with pytest.raises(UsageError, match="no last resize and arg-max"):
        HeadlessModel(Deployable(tiny_network(), Size(64, 96), "logits"))
