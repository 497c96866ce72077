"""Int8 in the graph: where pairs stand, what they hold, and that the answers stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.backends.onnxruntime import create_session
from deploy.contracts import CONTRACTS
from deploy.precision.calibration import calibrate
from deploy.precision.graph import Graph
from deploy.precision.qdq import LARGEST, find_layers, quantise, quantised, range_sources, scale
from searchkit.sizes import Size

SIZE = Size(16, 24)
FLOAT = TensorProto.FLOAT
RAW = CONTRACTS.load("raw")


def network(nodes, constants):
    """A float32 model: `image` 1 x 3 x 16 x 24 in, `logits` out."""
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("image", FLOAT, [1, 3, *SIZE])],
        [helper.make_tensor_value_info("logits", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs, [output], name=f"{output}.node", **attributes)


def conv(source, weights, output, bias=None, **attributes):
    return node("Conv", [source, weights, *([bias] if bias else [])], output, **attributes)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def residual():
    """Two convolutions with a sum around the second, a branch of slices, a third convolution."""
    return network(
        [
            conv("image", "first.weight", "a", "first.bias", pads=[1, 1, 1, 1]),
            node("Relu", ["a"], "r"),
            conv("r", "second.weight", "b", "second.bias", pads=[1, 1, 1, 1]),
            node("Add", ["b", "r"], "s"),
            node("Relu", ["s"], "t"),
            node("Slice", ["t", "starts", "ends", "axes"], "half"),
            conv("half", "third.weight", "c"),
            node("Sigmoid", ["t"], "gate"),
            node("ReduceMean", ["gate", "axes"], "g", keepdims=1),
            node("Add", ["c", "g"], "logits"),
        ],
        {
            "first.weight": drawn(4, 3, 3, 3),
            "first.bias": drawn(4),
            "second.weight": drawn(4, 4, 3, 3, seed=1),
            "second.bias": drawn(4, seed=1),
            "third.weight": drawn(2, 2, 1, 1, seed=2),
            "starts": np.array([0]),
            "ends": np.array([2]),
            "axes": np.array([1]),
        },
    )


def picture(index=0):
    return np.random.default_rng(index).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def batches(count=3):
    return [RAW.encode(picture(index)) for index in range(count)]


def run(data, batch, *, optimise=False):
    session = create_session(data, device="cpu", optimise=optimise)
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def in_int8(data, rest="fp32"):
    """All layers of a model in int8."""
    layers = find_layers(data)
    thresholds = calibrate(data, range_sources(data, layers), batches(), "minmax")
    return quantise(data, layers, thresholds, rest)


class Parts:
    """A model taken apart: nodes by kind, constants and types by name."""

    def __init__(self, data):
        self.proto = onnx.load_from_string(data)
        graph = self.proto.graph
        self.nodes = list(graph.node)
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.types = {t.name: t.data_type for t in graph.initializer}
        for value in (*graph.value_info, *graph.input, *graph.output):
            self.types[value.name] = value.type.tensor_type.elem_type
        self.by_output = {name: n for n in self.nodes for name in n.output}

    def of(self, *operators):
        return [n for n in self.nodes if n.op_type in operators]


def test_int8_takes_a_quarter_of_the_room():
    weights = {"w": drawn(64, 3, 3, 3), "v": drawn(2, 64, 3, 3, seed=1)}
    data = network([conv("image", "w", "a"), conv("a", "v", "logits")], weights)
    parts = Parts(in_int8(data))
    assert not {"w", "v"} & parts.constants.keys()
    assert parts.constants["v.int8"].nbytes == weights["v"].nbytes / 4


def test_where_pairs_stand():
    """On inputs of convolutions and on the other side of a fused sum, one a tensor; nobody else reads them."""
    parts = Parts(in_int8(residual()))
    assert [n.input[0] for n in parts.of("QuantizeLinear")] == ["image", "r", "half"]
    reads = {n.name: list(n.input) for n in parts.nodes}
    assert reads["a.node"] == ["image.dequantised", "first.weight.dequantised", "first.bias"]
    assert reads["b.node"] == ["r.dequantised", "second.weight.dequantised", "second.bias"]
    # A pair between the convolution and its sum would keep a compiler from making one kernel of both.
    assert reads["s.node"] == ["b", "r.dequantised"]
    assert reads["half.node"][0] == reads["gate.node"][0] == "t"


def test_a_sum_of_two_convolutions_is_fused_with_the_later_one():
    weights = {"u": drawn(2, 3, 1, 1), "v": drawn(2, 3, 1, 1, seed=1)}
    nodes = [conv("image", "u", "a"), conv("image", "v", "b"), node("Add", ["b", "a"], "logits")]
    early, late = find_layers(network(nodes, weights))
    assert (early.add, early.addend) == (None, None)
    assert (late.add, late.addend) == ("logits.node", "a")
    assert late.activations == ["image", "a"]


def test_a_sum_is_not_fused_where_the_convolution_has_another_reader():
    nodes = [
        conv("image", "u", "a"),
        node("Relu", ["image"], "r"),
        node("Add", ["a", "r"], "b"),
        node("Concat", ["a", "b"], "logits", axis=1),
    ]
    (layer,) = find_layers(network(nodes, {"u": drawn(3, 3, 1, 1)}))
    assert layer.add is None


def test_a_slice_has_the_range_of_its_source():
    data = residual()
    assert range_sources(data, find_layers(data)) == ["image", "r", "t"]
    layers = find_layers(data)
    thresholds = {"image": 1.0, "r": 2.0, "t": 127.0}
    parts = Parts(quantise(data, layers, thresholds))
    assert parts.constants["half.scale_int8"] == 1


def test_layers_that_are_left_out_stay_as_they_are():
    data = residual()
    layers = find_layers(data)
    thresholds = dict.fromkeys(range_sources(data, layers), 1.0)
    parts = Parts(quantise(data, layers[:1], thresholds))
    assert [n.input[0] for n in parts.of("QuantizeLinear")] == ["image"]
    assert list(parts.by_output["b"].input) == ["r", "second.weight", "second.bias"]


@pytest.mark.parametrize(
    ("operator", "shape", "group", "axis"),
    [
        ("Conv", (6, 3, 1, 1), 1, 0),
        ("Conv", (6, 1, 3, 3), 3, 0),
        ("ConvTranspose", (3, 2, 2, 2), 1, 1),
        # Channel 1 of a grouped one stands for one output channel of each group.
        ("ConvTranspose", (3, 2, 2, 2), 3, None),
    ],
)
def test_the_axis_of_the_scales(operator, shape, group, axis):
    weights = drawn(*shape)
    # The channels differ, so one scale for all would cost many of them their values.
    weights *= np.logspace(0, 3, shape[axis or 0], dtype=np.float32).reshape(
        [-1 if i == (axis or 0) else 1 for i in range(4)]
    )
    data = network([node(operator, ["image", "w"], "logits", group=group)], {"w": weights})
    model = in_int8(data)
    parts = Parts(model)
    (dequantise,) = (n for n in parts.of("DequantizeLinear") if n.input[0] == "w.int8")
    assert {a.name: a.i for a in dequantise.attribute} == ({} if axis is None else {"axis": axis})
    assert parts.constants["w.scale_int8"].shape == (() if axis is None else (shape[axis],))
    wanted = run(data, batches(1)[0])
    for optimise in (False, True):
        error = np.abs(run(model, batches(1)[0], optimise=optimise) - wanted).max()
        assert error < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize(("transposed", "axis"), [(0, 1), (1, 0)])
def test_the_axis_of_a_gemm(transposed, axis):
    nodes = [
        node("GlobalAveragePool", ["image"], "p"),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "w"], "logits", transB=transposed),
    ]
    data = network(nodes, {"w": drawn(5, 3) if transposed else drawn(3, 5)})
    model = in_int8(data)
    assert Parts(model).constants["w.scale_int8"].shape == (5,)
    assert find_layers(data)[0].axis == axis
    np.testing.assert_allclose(run(model, batches(1)[0]), run(data, batches(1)[0]), atol=0.01)


# Scales and weights.


def test_scales_hold_their_range_and_are_exact_in_float16():
    assert scale(0.0) == scale(-1.0) == 1.0
    assert scale(LARGEST) == 1.0
    for threshold in np.logspace(-4, 6, 101):
        step = scale(float(threshold))
        assert float(np.float16(step)) == step
        # Below 2^-14 float16 has a fixed step.
        assert 0 <= step - threshold / LARGEST <= max(2**-10 * step, 2**-24)


def test_a_scale_below_all_float16_is_the_smallest():
    assert scale(1e-12) == 2.0**-24


def test_weights_by_hand():
    weights = np.array([[127, -63.4, 1], [0.127, 0.0004, -0.0636]], np.float32)
    values, scales = quantised(weights, 0, np.zeros(()))
    assert values.tolist() == [[127, -63, 1], [127, 0, -64]]
    assert scales[0] == 1
    assert scales[1] == pytest.approx(0.001, rel=2**-10)
    values, scales = quantised(weights, None, np.zeros(()))
    assert values.tolist() == [[127, -63, 1], [0, 0, 0]]
    assert scales.shape == ()


def test_a_channel_of_zeros():
    values, scales = quantised(np.zeros((2, 3), np.float32), 0, np.zeros(()))
    assert not values.any()
    assert scales.tolist() == [1, 1]


@pytest.mark.parametrize(("rest", "most"), [("fp32", 2**30), ("fp16", 2**15)])
def test_no_bias_exceeds_what_the_optimiser_makes_of_it(rest, most):
    """Weights of almost nothing beside a bias: in steps of their product the bias would not fit into int32."""
    weights = np.array([1e-9, 1, 1e-9], np.float32).reshape(3, 1, 1, 1) * np.ones((1, 3, 1, 1), np.float32)
    bias = np.array([5, 0.1, -7], np.float32)
    data = network([conv("image", "w", "logits", "b")], {"w": weights, "b": bias})
    model = in_int8(data, rest)
    parts = Parts(model)
    steps = parts.constants["image.scale_int8"] * parts.constants["w.scale_int8"].astype(np.float64)
    assert (np.abs(bias) / steps <= most).all()
    assert parts.constants["w.int8"][1, 0, 0, 0] == LARGEST
    for optimise in (False, True):
        got = run(model, batches(1)[0], optimise=optimise)
        np.testing.assert_allclose(got, run(data, batches(1)[0]), atol=0.1)


def test_weights_that_two_layers_share_suit_the_bias_of_both():
    nodes = [
        conv("image", "w", "a", "large"),
        conv("image", "w", "b", "small"),
        node("Concat", ["a", "b"], "logits", axis=1),
    ]
    constants = {"w": np.full((1, 3, 1, 1), 1e-9, np.float32), "large": [np.float32(9)], "small": [np.float32(0.5)]}
    for order in (nodes, [nodes[1], nodes[0], nodes[2]]):
        model = in_int8(network(order, constants))
        parts = Parts(model)
        assert len([n for n in parts.of("DequantizeLinear") if n.input[0] == "w.int8"]) == 1
        steps = parts.constants["image.scale_int8"] * parts.constants["w.scale_int8"].astype(np.float64)
        assert (9 / steps <= 2**30).all()
        for optimise in (False, True):
            got = run(model, batches(1)[0], optimise=optimise)
            np.testing.assert_allclose(got[0, :, 0, 0], [9, 0.5], atol=1e-3)


def test_the_answers_are_near_with_the_optimiser_and_without():
    data = residual()
    wanted = run(data, batches(1)[0])
    for rest in ("fp32", "fp16"):
        model = in_int8(data, rest)
        for optimise in (False, True):
            error = np.abs(run(model, batches(1)[0], optimise=optimise) - wanted).max()
            assert 0 < error < 0.05 * np.abs(wanted).max()


def test_the_graph_reads_as_it_was():
    """A quantised model can be taken apart again: every tensor has a type."""
    assert Graph(in_int8(residual())).activations()
