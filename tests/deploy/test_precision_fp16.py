"""float16 copies of float32 graphs: what becomes half, what does not, and that the answers stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.backends.onnxruntime import create_session
from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from deploy.precision.activations import largest_magnitudes
from deploy.precision.fp16 import HEADROOM, LARGEST, SMALLEST_NORMAL, to_fp16
from deploy.precision.graph import Graph
from searchkit.data import streets
from searchkit.sizes import Size

SIZE = Size(64, 96)
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.fixture(scope="module")
def base(tiny_network):
    """`base(io)`: the tiny network in float32 under a tensor contract."""
    made = {}

    def make(io):
        if io not in made:
            made[io] = Deployable(tiny_network(), SIZE, io)
        return made[io]

    return make


def converted(model):
    """The float16 model, its nodes that stayed, and the magnitudes it was made from."""
    batch = model.contract.encode(streets.draw(0, 3, SIZE).image)
    largest = largest_magnitudes(model.onnx, Graph(model.onnx).activations(), [batch])
    data, kept = to_fp16(model.onnx, largest)
    return data, kept, largest


def types(data):
    """Tensor -> element type, as written in the model, for computed and constant ones."""
    graph = onnx.load_from_string(data).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return found | {t.name: t.data_type for t in graph.initializer}


def run(data, batch, *, optimise=False):
    session = create_session(data, device="cpu", optimise=optimise)
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


@pytest.mark.parametrize("io", CONTRACTS.names())
def test_every_contract_keeps_its_types_and_its_labels(base, io):
    model = base(io)
    data, kept, _ = converted(model)
    assert kept == []
    proto = onnx.load_from_string(data)
    onnx.checker.check_model(proto, full_check=True)
    for old, new in zip(
        (*Graph(model.onnx).model.graph.input, *Graph(model.onnx).model.graph.output),
        (*proto.graph.input, *proto.graph.output),
        strict=True,
    ):
        assert old == new
    found = types(data)
    for node in proto.graph.node:
        if node.op_type == "Conv":
            assert [found[name] for name in node.input] == [HALF] * len(node.input)
        if node.op_type in ("ArgMax", "Softmax"):
            assert found[node.input[0]] == FLOAT
    batch = model.contract.encode(streets.draw(0, 5, SIZE).image)
    wanted = model.contract.labels(run(model.onnx, batch), SIZE)
    for optimise in (False, True):
        got = model.contract.labels(run(data, batch, optimise=optimise), SIZE)
        assert (got == wanted).mean() > 0.99
        assert len(np.unique(wanted)) > 1


def test_pixels_are_normalised_in_float32(base):
    data, _, _ = converted(base("labels"))
    found, graph = types(data), onnx.load_from_string(data).graph
    by_output = {node.output[0]: node for node in graph.node}
    first = next(node for node in graph.node if node.op_type == "Conv")
    cast = by_output[first.input[0]]
    assert (cast.op_type, found[cast.input[0]]) == ("Cast", FLOAT)
    assert by_output[cast.input[0]].op_type == "Add"
    assert {found[name] for name in by_output[cast.input[0]].input} == {FLOAT}


def test_what_decides_the_labels_is_float32(base):
    data, _, _ = converted(base("labels"))
    found, graph = types(data), onnx.load_from_string(data).graph
    resize = [node for node in graph.node if node.op_type == "Resize"][-1]
    assert found[resize.input[0]] == found[resize.output[0]] == FLOAT


def test_the_same_bytes_every_time(base):
    assert converted(base("labels"))[0] == converted(base("labels"))[0]


def test_weights_take_half_the_room(base):
    """All float constants of a raw model are weights, and all of them become half."""
    data, _, _ = converted(base("raw"))
    before, after = (onnx.load_from_string(model).graph.initializer for model in (base("raw").onnx, data))
    assert FLOAT not in {t.data_type for t in after}
    rooms = [
        sum(numpy_helper.to_array(t).nbytes for t in tensors if t.data_type == kind)
        for tensors, kind in ((before, FLOAT), (after, HALF))
    ]
    assert rooms[0] == 2 * rooms[1] > 5000


def chain(weights, *, middle="Relu", after=None, **attributes):
    """1 x 2 x 4 x 6 float in; convolutions with these 1x1 weights and a node in between; float out."""
    constants = [
        numpy_helper.from_array(np.asarray(w, np.float32).reshape(2, 2, 1, 1), f"w{i}") for i, w in enumerate(weights)
    ]
    constants.extend(after or ())
    nodes = [helper.make_node("Conv", ["x", "w0"], ["a"], name="first")]
    extra = [t.name for t in after or ()]
    nodes.append(helper.make_node(middle, ["a", *extra], ["b"], name="middle", **attributes))
    nodes.append(helper.make_node("Conv", ["b", "w1"], ["y"], name="last"))
    shape = [1, 2, 4, 6]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


EYE = [1, 0, 0, 1]
SWAP = [0, 1, 1, 0]


def picture(scale=1.0):
    return (scale * np.random.default_rng(0).uniform(0.5, 1, (1, 2, 4, 6))).astype(np.float32)


def half(data, batch):
    return to_fp16(data, largest_magnitudes(data, Graph(data).activations(), [batch]))


def test_an_activation_that_would_overflow_stays_float32():
    data = chain([np.multiply(EYE, 3e5), np.multiply(SWAP, 1e-5)])
    # Weights first: 3e5 itself is no float16.
    model, kept = half(data, picture())
    assert {(item.node, item.operator) for item in kept} == {("first", "Conv"), ("middle", "Relu"), ("last", "Conv")}
    np.testing.assert_allclose(run(model, picture()), run(data, picture()), rtol=1e-6)


@pytest.mark.parametrize(("reach", "stays"), [(0.9, False), (1.1, True)])
def test_the_headroom_below_the_largest_float16(reach, stays):
    data = chain([np.multiply(EYE, reach * LARGEST / HEADROOM), np.multiply(SWAP, 0.01)])
    batch = np.ones((1, 2, 4, 6), np.float32)
    model, kept = half(data, batch)
    assert bool(kept) is stays
    assert all("an activation reaches" in item.why for item in kept)
    np.testing.assert_allclose(run(model, batch), run(data, batch), rtol=2e-3)


def test_an_activation_that_is_no_number_stays_float32():
    data = chain([EYE, SWAP])
    _, kept = to_fp16(data, {"a": float("nan")})
    assert [item.node for item in kept] == ["first", "middle"]


def test_an_activation_below_all_normal_numbers_stays_float32():
    data = chain([np.multiply(EYE, SMALLEST_NORMAL / 8), np.multiply(SWAP, 1000)])
    model, kept = half(data, picture())
    assert "below" in kept[0].why
    np.testing.assert_allclose(run(model, picture()), run(data, picture()), rtol=1e-5)


def test_weights_that_float16_cannot_hold_stay_float32():
    tiny = chain([np.multiply(EYE, 3e-7), np.multiply(SWAP, 1)])
    _, kept = to_fp16(tiny, {})
    assert [(item.node, "rounding changes the weights" in item.why) for item in kept] == [("first", True)]
    huge = chain([EYE, np.multiply(SWAP, 7e4)])
    _, kept = to_fp16(huge, {})
    assert [(item.node, "a weight of 7e+04" in item.why) for item in kept] == [("last", True)]


@pytest.mark.parametrize(("value", "stays"), [(600.0, False), (700.0, True)])
def test_a_mean_stays_float32_where_its_sum_would_overflow(value, stays):
    """24 values of 700 sum up to 16,800, over a quarter of 65,504; one of them is far below."""
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    data = chain([EYE, SWAP], middle="ReduceMean", after=[axes], keepdims=1)
    batch = np.full((1, 2, 4, 6), value, np.float32)
    model, kept = half(data, batch)
    assert [item.node for item in kept] == (["middle"] if stays else [])
    assert all("a sum of 24 values" in item.why for item in kept)
    np.testing.assert_allclose(run(model, batch), run(data, batch), rtol=1e-3)


def test_an_average_pool_counts_its_window():
    data = chain([EYE, SWAP], middle="AveragePool", kernel_shape=[3, 3], strides=[1, 1])
    _, kept = half(data, np.full((1, 2, 4, 6), 2000, np.float32))
    assert [item.why for item in kept] == ["a sum of 9 values may reach 1.8e+04, over 16376"]


def test_the_scales_of_a_resize_stay_float32():
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    region = numpy_helper.from_array(np.array([], np.float32), "region")
    data = chain([EYE, SWAP], middle="Resize", after=[region, scales], mode="linear")
    model, kept = half(data, picture())
    assert kept == []
    found = types(model)
    (node,) = (n for n in onnx.load_from_string(model).graph.node if n.op_type == "Resize")
    assert [found[name] for name in node.input] == [HALF, FLOAT, FLOAT]
    np.testing.assert_allclose(run(model, picture()), run(data, picture()), rtol=2e-3)


def test_the_bounds_of_a_clip_become_half():
    bounds = [numpy_helper.from_array(np.array(v, np.float32), name) for v, name in ((0.6, "low"), (0.9, "high"))]
    data = chain([EYE, SWAP], middle="Clip", after=bounds)
    model, _ = half(data, picture())
    (node,) = (n for n in onnx.load_from_string(model).graph.node if n.op_type == "Clip")
    assert {types(model)[name] for name in (*node.input, *node.output)} == {HALF}
    for optimise in (False, True):
        np.testing.assert_allclose(run(model, picture(), optimise=optimise), run(data, picture()), rtol=1e-3)


def test_a_tensor_is_cast_once_however_many_read_it():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Softmax", ["a"], ["p"], name="one", axis=1),
        helper.make_node("Relu", ["a"], ["r"], name="two"),
        helper.make_node("Add", ["p", "r"], ["y"], name="sum"),
    ]
    graph = helper.make_graph(
        nodes,
        "fork",
        [helper.make_tensor_value_info("x", FLOAT, [1, 2, 4, 6])],
        [helper.make_tensor_value_info("y", FLOAT, [1, 2, 4, 6])],
        [numpy_helper.from_array(np.array(SWAP, np.float32).reshape(2, 2, 1, 1), "w")],
    )
    opsets = [helper.make_opsetid("", 18)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    model, _ = half(data, picture())
    casts = [list(n.input) for n in onnx.load_from_string(model).graph.node if n.op_type == "Cast"]
    assert casts == [["x"], ["a.fp16"]]
    np.testing.assert_allclose(run(model, picture()), run(data, picture()), rtol=1e-3)
