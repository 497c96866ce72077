"""Layers, their work and traffic: counted by hand on small graphs, and against the dispatcher on whole networks."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.layers import Layer, layers_of, total_macs
from deploy.deployable import Deployable
from searchkit.errors import InputFileError, UsageError
from searchkit.footprint import on_meta
from searchkit.networks import resolve
from searchkit.sizes import Size

SIZE = Size(64, 128)
MAP = 8 * 8 * 4  # bytes of one channel of the maps below


def weight(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def model(nodes: list, weights: list, inputs: dict, outputs: dict) -> bytes:
    def described(values: dict) -> list:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]

    graph = helper.make_graph(nodes, "toy", described(inputs), described(outputs), weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def node(operator: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=f"{operator} {output}", **attributes)


def conv(source: str, kernel: str, output: str, side: int = 3, **attributes: object) -> onnx.NodeProto:
    return node("Conv", [source, kernel], output, kernel_shape=[side, side], pads=[side // 2] * 4, **attributes)


def moved(layer: Layer) -> tuple[int, int, int]:
    return layer.weight_bytes, layer.read_bytes, layer.written_bytes


def test_an_activation_is_part_of_its_convolution():
    nodes = [conv("x", "w", "a"), node("Relu", ["a"], "y")]
    (layer,) = layers_of(model(nodes, [weight("w", 5, 3, 3, 3)], {"x": [1, 3, 8, 8]}, {"y": [1, 5, 8, 8]}))
    assert (layer.name, layer.operator, layer.nodes) == ("Conv a", "Conv", ("Conv a", "Relu y"))
    assert layer.macs == 5 * 8 * 8 * 3 * 9
    assert moved(layer) == (5 * 3 * 9 * 4, 3 * MAP, 5 * MAP)
    assert layer.bytes == sum(moved(layer))


def test_a_residual_is_read_by_the_later_convolution_and_the_sum_alone_is_written():
    nodes = [
        *(conv("x", "w", "a"), node("Relu", ["a"], "b"), conv("b", "w", "c")),
        *(node("Add", ["c", "b"], "d"), node("Relu", ["d"], "y")),
    ]
    one, two = layers_of(model(nodes, [weight("w", 3, 3, 3, 3)], {"x": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]}))
    assert moved(one)[1:] == (3 * MAP, 3 * MAP)
    # The residual is also the convolution's input: it is read once.
    assert moved(two)[1:] == (3 * MAP, 3 * MAP)
    assert two.nodes == ("Conv c", "Add d", "Relu y")


def test_a_residual_that_is_no_input_is_read_besides():
    nodes = [conv("x", "w", "a"), conv("a", "w", "b"), conv("b", "w", "c"), node("Add", ["c", "a"], "y")]
    layers = layers_of(model(nodes, [weight("w", 3, 3, 3, 3)], {"x": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]}))
    assert [moved(layer)[1:] for layer in layers] == [(3 * MAP, 3 * MAP)] * 2 + [(6 * MAP, 3 * MAP)]


def test_concatenation_and_what_follows_it_value_by_value_cost_nothing():
    nodes = [
        *(conv("x", "w", "a"), conv("x", "v", "b"), node("Concat", ["a", "b"], "c", axis=1)),
        *(node("Relu", ["c"], "d"), conv("d", "u", "y", 1)),
    ]
    weights = [weight("w", 2, 3, 3, 3), weight("v", 4, 3, 3, 3), weight("u", 1, 6, 1, 1)]
    one, two, three = layers_of(model(nodes, weights, {"x": [1, 3, 8, 8]}, {"y": [1, 1, 8, 8]}))
    assert [moved(layer)[1:] for layer in (one, two)] == [(3 * MAP, 2 * MAP), (3 * MAP, 4 * MAP)]
    assert moved(three)[1:] == (6 * MAP, 1 * MAP)


def test_a_slice_is_read_in_its_part():
    settings = [
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in (("s", [0]), ("e", [2]), ("i", [1]))
    ]
    nodes = [conv("x", "w", "a"), node("Slice", ["a", "s", "e", "i"], "b"), conv("b", "v", "y", 1)]
    weights = [weight("w", 6, 3, 3, 3), weight("v", 1, 2, 1, 1), *settings]
    one, two = layers_of(model(nodes, weights, {"x": [1, 3, 8, 8]}, {"y": [1, 1, 8, 8]}))
    assert one.written_bytes == 6 * MAP
    assert two.read_bytes == 2 * MAP


def test_gating_is_done_where_the_gate_is_made():
    nodes = [
        *(conv("x", "w", "a"), node("GlobalAveragePool", ["a"], "p"), conv("p", "v", "g", 1)),
        *(node("Sigmoid", ["g"], "s"), node("Mul", ["a", "s"], "y")),
    ]
    weights = [weight("w", 3, 3, 3, 3), weight("v", 3, 3, 1, 1)]
    _, pool, gate = layers_of(model(nodes, weights, {"x": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]}))
    assert (pool.macs, pool.read_bytes, pool.written_bytes) == (0, 3 * MAP, 3 * 4)
    assert (gate.macs, gate.read_bytes, gate.written_bytes) == (9, 3 * 4 + 3 * MAP, 3 * MAP)


def test_grouped_strided_and_transposed_convolutions():
    nodes = [
        conv("x", "w", "a", group=4, strides=[2, 2]),
        node("ConvTranspose", ["a", "t"], "y", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    weights = [weight("w", 4, 1, 3, 3), weight("t", 4, 5, 2, 2)]
    depthwise, transposed = layers_of(model(nodes, weights, {"x": [1, 4, 8, 8]}, {"y": [1, 5, 8, 8]}))
    assert depthwise.macs == 4 * 4 * 4 * 9
    assert transposed.macs == 4 * 4 * 4 * 5 * 4


def test_matrix_products():
    nodes = [node("MatMul", ["x", "w"], "a"), node("Gemm", ["a", "v"], "y", transB=1)]
    weights = [weight("w", 7, 5), weight("v", 3, 5)]
    layers = layers_of(model(nodes, weights, {"x": [2, 7]}, {"y": [2, 3]}))
    assert [layer.macs for layer in layers] == [2 * 7 * 5, 2 * 5 * 3]


@pytest.mark.parametrize(("mode", "taps"), [("nearest", 1), ("linear", 4)])
def test_a_resize_down_reads_what_it_interpolates(mode, taps):
    scales = numpy_helper.from_array(np.array([1, 1, 0.25, 0.25], np.float32), "s")
    nodes = [node("Resize", ["x", "", "s"], "y", mode=mode)]
    (layer,) = layers_of(model(nodes, [scales], {"x": [1, 3, 8, 8]}, {"y": [1, 3, 2, 2]}))
    assert moved(layer) == (0, taps * 3 * 2 * 2 * 4, 3 * 2 * 2 * 4)


def test_what_works_on_the_input_is_done_as_it_is_read():
    nodes = [node("Mul", ["x", "m"], "a"), conv("a", "w", "y", 1)]
    weights = [weight("m", 1, 3, 1, 1), weight("w", 1, 3, 1, 1)]
    (layer,) = layers_of(model(nodes, weights, {"x": [1, 3, 8, 8]}, {"y": [1, 1, 8, 8]}))
    assert layer.read_bytes == 3 * MAP


def test_an_operator_that_nobody_knows_is_a_layer_of_its_own():
    nodes = [conv("x", "w", "a"), node("InstanceNormalization", ["a", "s", "b"], "y")]
    weights = [weight("w", 2, 3, 3, 3), weight("s", 2), weight("b", 2)]
    _, layer = layers_of(model(nodes, weights, {"x": [1, 3, 8, 8]}, {"y": [1, 2, 8, 8]}))
    assert moved(layer) == (4 * 4, 2 * MAP, 2 * MAP)


def test_a_cast_changes_what_is_written():
    nodes = [conv("x", "w", "a"), node("Cast", ["a"], "y", to=TensorProto.UINT8)]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 5, 8, 8])],
        [weight("w", 5, 3, 3, 3)],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    (layer,) = layers_of(data)
    assert layer.written_bytes == 5 * 8 * 8


@pytest.mark.parametrize(("precision", "width"), [("fp32", 4), ("tf32", 4), ("bf16", 2), ("fp16", 2), ("int8", 1)])
def test_bytes_follow_the_precision_and_macs_do_not(precision, width):
    data = model([conv("x", "w", "y")], [weight("w", 5, 3, 3, 3)], {"x": [1, 3, 8, 8]}, {"y": [1, 5, 8, 8]})
    (layer,) = layers_of(data, precision)
    assert layer.macs == 5 * 64 * 27
    assert layer.bytes == width * (5 * 27 + 3 * 64 + 5 * 64)


@functools.cache
def exported(name: str, io: str = "raw") -> Deployable:
    return Deployable(resolve(name), SIZE, io)


@pytest.mark.parametrize("name", ["fasterseg", "erfnet", "cgnet"])
def test_the_total_is_what_pytorch_dispatches(name):
    """Plain, grouped, dilated and transposed convolutions, and gating."""
    layers = layers_of(exported(name).onnx)
    assert total_macs(layers) == on_meta(resolve(name).build_on_meta(), SIZE).conv_macs


def test_adaptive_pools_are_counted_as_they_are_exported():
    """As two small convolutions each; without these the total is exact."""
    data = exported("ssr").onnx
    pools = {
        node.name
        for node in onnx.load_from_string(data).graph.node
        if any(name.endswith(("pools.rows", "pools.columns")) for name in node.input)
    }
    layers = layers_of(data)
    assert len(pools) == 2
    rest = total_macs(layer for layer in layers if layer.name not in pools)
    assert rest == on_meta(resolve("ssr").build_on_meta(), SIZE).conv_macs


@pytest.mark.parametrize("name", ["fasterseg", "erfnet"])
def test_every_node_is_in_one_layer(name):
    data = exported(name).onnx
    nodes = [name for layer in layers_of(data) for name in layer.nodes]
    assert sorted(nodes) == sorted(node.name for node in onnx.load_from_string(data).graph.node)


def test_labels_are_written_as_bytes():
    last = layers_of(exported("fasterseg", "labels").onnx)[-1]
    assert last.operator == "ArgMax"
    assert last.written_bytes == SIZE.height * SIZE.width


def test_a_larger_input_costs_more_in_proportion():
    small, large = (layers_of(Deployable(resolve("fasterseg"), Size(64, w), "raw").onnx) for w in (128, 256))
    assert total_macs(large) == 2 * total_macs(small)


@pytest.mark.parametrize("data", [b"", b"\x00\x01nothing", b"{}"])
def test_what_is_no_model_is_refused(data):
    with pytest.raises(InputFileError):
        layers_of(data)


def test_an_unknown_shape_is_refused_by_name():
    data = model([conv("x", "w", "y")], [weight("w", 5, 3, 3, 3)], {"x": [1, 3, "h", 8]}, {"y": [1, 5, "h", 8]})
    with pytest.raises(InputFileError, match="shape of a tensor is not known") as caught:
        layers_of(data)
    assert "'x'" in str(caught.value)


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="unknown precision"):
        layers_of(b"", "fp12")
