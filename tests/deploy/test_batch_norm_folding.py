"""`fold_batch_norms` on graphs made by hand, each against itself unfolded in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.onnx import fold_batch_norms


class Graph:
    """A small graph on a 1 x 4 x 8 x 8 input `x`."""

    def __init__(self):
        self.nodes, self.tensors = [], []
        self.rng = np.random.default_rng(0)

    def tensor(self, name, values):
        self.tensors.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def add(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(self, source, output, channels, in_channels=4, bias=True, weight=None):
        weight = weight or self.tensor(f"{output}.w", self.rng.standard_normal((channels, in_channels, 3, 3)))
        inputs = [source, weight]
        if bias:
            inputs.append(self.tensor(f"{output}.b", self.rng.standard_normal(channels)))
        return self.add("Conv", inputs, output, pads=[1, 1, 1, 1])

    def norm(self, source, output, channels, gamma=None):
        names = [f"{output}.{part}" for part in ("gamma", "beta", "mean", "variance")]
        gamma = self.rng.standard_normal(channels) if gamma is None else gamma
        beta, mean = self.rng.standard_normal((2, channels))
        values = (gamma, beta, mean, self.rng.uniform(0.1, 4, channels))
        for name, value in zip(names, values, strict=True):
            self.tensor(name, value)
        return self.add("BatchNormalization", [source, *names], output, epsilon=1e-3)

    def pool(self, source, output):
        return self.add("MaxPool", [source], output, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def concat(self, sources, output, axis=1):
        return self.add("Concat", sources, output, axis=axis)

    def model(self, *outputs):
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", [image], results, self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model)


@pytest.fixture
def g():
    return Graph()


def run(model):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    batch = np.random.default_rng(1).standard_normal((1, 4, 8, 8), dtype=np.float32)
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": batch})


def folded(model):
    """Operator names after folding, once the folded graph is valid and the same function."""
    wanted = run(model)
    assert all(np.ptp(value) > 0 for value in wanted)
    fold_batch_norms(model)
    onnx.checker.check_model(model, full_check=True)
    for found, value in zip(run(model), wanted, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-4)
    return [node.op_type for node in model.graph.node]


def test_behind_a_concatenation_of_a_convolution_and_a_pool(g):
    g.concat([g.conv("x", "c", 6), g.pool("x", "p")], "cat")
    g.add("Relu", [g.norm("cat", "n", 10)], "y")
    assert folded(g.model("y")) == ["Conv", "MaxPool", "Mul", "Add", "Concat", "Relu"]


def test_behind_a_concatenation_whose_convolution_comes_last_and_has_no_bias(g):
    g.concat([g.pool("x", "p"), g.conv("x", "c", 6, bias=False)], "cat")
    g.add("Relu", [g.norm("cat", "n", 10)], "y")
    assert folded(g.model("y")) == ["MaxPool", "Conv", "Mul", "Add", "Concat", "Relu"]


def test_behind_a_concatenation_without_convolutions(g):
    g.concat([g.pool("x", "p"), g.add("Relu", ["x"], "r")], "cat")
    g.add("Relu", [g.norm("cat", "n", 8)], "y")
    assert folded(g.model("y")).count("Mul") == 2


def test_behind_a_concatenation_of_one_tensor_with_itself(g):
    c = g.conv("x", "c", 3)
    g.concat([c, c], "cat")
    g.norm("cat", "y", 6)
    assert folded(g.model("y")).count("Mul") == 2


def test_behind_a_concatenation_of_rows(g):
    """Every part has every channel: nothing can be shared out."""
    g.concat([g.conv("x", "c", 4), g.pool("x", "p")], "cat", axis=2)
    g.norm("cat", "y", 4)
    assert folded(g.model("y")) == ["Conv", "MaxPool", "Concat", "Mul", "Add"]


def test_behind_a_concatenation_of_parts_of_unknown_width(g):
    g.concat([g.pool("x", "p"), g.add("Relu", ["x"], "r"), g.conv("x", "c", 5)], "cat")
    g.norm("cat", "y", 13)
    model = g.model("y")
    del model.graph.value_info[:]
    assert folded(model) == ["MaxPool", "Relu", "Conv", "Concat", "Mul", "Add"]


def test_behind_a_concatenation_that_is_used_elsewhere(g):
    g.concat([g.conv("x", "c", 6), g.pool("x", "p")], "cat")
    g.norm("cat", "y", 10)
    assert folded(g.model("y", "cat")) == ["Conv", "MaxPool", "Concat", "Mul", "Add"]


def test_behind_a_convolution_that_is_used_twice(g):
    c = g.conv("x", "c", 6)
    g.add("Add", [g.norm(c, "n", 6), c], "y")
    assert folded(g.model("y")) == ["Conv", "Mul", "Add", "Add"]


def test_two_behind_one_convolution(g):
    c = g.conv("x", "c", 6)
    g.add("Sub", [g.norm(c, "n", 6), g.norm(c, "m", 6)], "y")
    assert folded(g.model("y")).count("Mul") == 2


def test_two_convolutions_with_one_weight(g):
    shared = g.tensor("w", g.rng.standard_normal((6, 4, 3, 3)))
    for name in "ab":
        c = g.conv("x", f"c{name}", 6, weight=shared)
        g.concat([c, g.pool("x", f"p{name}")], f"cat{name}")
        g.norm(f"cat{name}", f"n{name}", 10)
    g.add("Sub", ["na", "nb"], "y")
    assert folded(g.model("y")).count("Mul") == 2


def test_as_the_last_node(g):
    g.concat([g.conv("x", "c", 6), g.pool("x", "p")], "cat")
    g.norm("cat", "y", 10)
    model = g.model("y")
    assert folded(model)[-1] == "Concat"
    assert [output.name for output in model.graph.output] == ["y"]


def test_as_an_output_that_is_also_read(g):
    g.norm(g.conv("x", "c", 6), "n", 6)
    g.add("Relu", ["n"], "y")
    assert folded(g.model("n", "y")) == ["Conv", "Mul", "Add", "Relu"]


def test_one_behind_another(g):
    g.concat([g.conv("x", "c", 6), g.pool("x", "p")], "cat")
    g.norm(g.norm("cat", "n", 10), "y", 10)
    assert "BatchNormalization" not in folded(g.model("y"))


@pytest.mark.parametrize("gamma", [-2.0, 0.0, 1e-3])
def test_negative_and_vanishing_scales(g, gamma):
    g.concat([g.conv("x", "c", 6), g.pool("x", "p")], "cat")
    g.add("Relu", [g.norm("cat", "n", 10, gamma=np.full(10, gamma))], "y")
    assert "BatchNormalization" not in folded(g.model("y"))


def test_a_graph_without_any_is_left_alone(g):
    g.add("Relu", [g.conv("x", "c", 6)], "y")
    model = g.model("y")
    before = model.SerializeToString()
    fold_batch_norms(model)
    assert model.SerializeToString() == before


def test_what_is_no_longer_used_is_gone(g):
    g.concat([g.conv("x", "c", 6), g.pool("x", "p")], "cat")
    g.add("Relu", [g.norm("cat", "n", 10)], "y")
    model = g.model("y")
    fold_batch_norms(model)
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    assert {value.name for value in model.graph.value_info} <= used
