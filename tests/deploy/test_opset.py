"""An older opset: the same function, bit by bit, or a refusal."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from deploy.opset import downgrade
from searchkit.errors import UsageError
from searchkit.networks import known_names

FLOAT = TensorProto.FLOAT


def outputs(model_bytes, seed=0):
    session = onnxruntime.InferenceSession(model_bytes, providers=["CPUExecutionProvider"])
    spec = session.get_inputs()[0]
    batch = np.random.default_rng(seed).standard_normal(spec.shape, dtype=np.float32)
    return session.run(None, {spec.name: batch})[0]


def one_node(operator, constants=(), rank=4, **attributes):
    """A model of one operator on a 1 x 2 x 4 x 6 map, with further inputs that are constants."""
    names = ["image", *(tensor.name for tensor in constants)]
    graph = helper.make_graph(
        [helper.make_node(operator, names, ["answer"], name="only", **attributes)],
        "one",
        [helper.make_tensor_value_info("image", FLOAT, [1, 2, 4, 6])],
        [helper.make_tensor_value_info("answer", FLOAT, [None] * rank)],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def constant(name, values, kind=TensorProto.INT64):
    return helper.make_tensor(name, kind, [len(values)], values)


SCALES = (constant("roi", [], FLOAT), constant("scales", [1.0, 1.0, 2.0, 2.0], FLOAT))


@pytest.mark.parametrize("name", known_names())
def test_every_network_is_the_same_function(name, exported):
    before = exported(name).onnx
    after = downgrade(before, 17)
    model = onnx.load_from_string(after)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    # Readers of that age refuse what claims a younger file format.
    assert model.ir_version == 8
    assert [n.op_type for n in model.graph.node] == [n.op_type for n in onnx.load_from_string(before).graph.node]
    assert model.metadata_props == onnx.load_from_string(before).metadata_props
    wanted = outputs(before)
    assert len(np.unique(wanted)) > 100
    assert np.array_equal(outputs(after), wanted)
    assert downgrade(before, 17) == after


def test_what_is_old_enough_stays_as_it_is(exported):
    before = exported("ssr-baseline1").onnx
    assert downgrade(before, 18) == downgrade(before, 20) == before
    old = downgrade(before, 17)
    assert downgrade(old, 17) == old


def test_axes_of_a_reduction_become_an_attribute_and_leave_nothing_behind():
    before = one_node("ReduceMean", [constant("axes", [2, 3])], keepdims=1)
    after = downgrade(before, 17)
    graph = onnx.load_from_string(after).graph
    assert list(graph.node[0].input) == ["image"]
    assert not graph.initializer
    assert {a.name: helper.get_attribute_value(a) for a in graph.node[0].attribute} == {"axes": [2, 3], "keepdims": 1}
    assert np.array_equal(outputs(after), outputs(before))


def test_a_reduction_over_everything_has_no_axes():
    before = one_node("ReduceMean", rank=0, keepdims=0)
    assert np.array_equal(outputs(downgrade(before, 17)), outputs(before))


def test_defaults_of_a_resize_are_dropped():
    before = one_node("Resize", SCALES, mode="linear", antialias=0, keep_aspect_ratio_policy="stretch")
    after = downgrade(before, 17)
    assert [a.name for a in onnx.load_from_string(after).graph.node[0].attribute] == ["mode"]
    assert np.array_equal(outputs(after), outputs(before))


REFUSED = {
    "antialias 1": one_node("Resize", SCALES, mode="linear", antialias=1),
    "axes": one_node(
        "Resize", [constant("roi", [], FLOAT), constant("scales", [2.0, 2.0], FLOAT)], axes=[2, 3], mode="linear"
    ),
    "noop_with_empty_axes 1": one_node("ReduceMean", noop_with_empty_axes=1),
    "operator Mish": one_node("Mish"),
    "operator Split": one_node("Split", num_outputs=1, axis=1),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_equal_is_refused(words):
    with pytest.raises(UsageError, match=words) as caught:
        downgrade(REFUSED[words], 17)
    assert "cannot be written in opset 17" in str(caught.value)
    assert caught.value.where == "only"


def test_computed_axes_are_refused():
    model = onnx.load_from_string(one_node("ReduceMean", [constant("axes", [2, 3])]))
    axes = model.graph.initializer.pop()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["axes"], value=axes))
    with pytest.raises(UsageError, match="axes that are computed"):
        downgrade(model.SerializeToString(), 17)


def test_an_operator_that_changed_before_is_refused():
    """In opset 12 an addition is another operator than in opset 14."""
    model = one_node("Relu")
    assert downgrade(model, 14) != model
    with pytest.raises(UsageError, match="operator Relu cannot be written in opset 13"):
        downgrade(model, 13)
