"""The algebra of each rewrite on graphs of a few nodes: what it is equal on, and what it must leave alone."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from deploy.backends.onnxruntime import create_session
from deploy.lowering import REWRITES, rewritten
from deploy.lowering.interpolation import matrix


class Toy:
    """A graph under construction; weights are noise of a fixed seed."""

    def __init__(self, *shape):
        self.input = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
        self.nodes, self.constants = [], []
        self.random = np.random.default_rng(0)
        self.shape = shape

    def constant(self, value):
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def noise(self, *shape):
        return self.constant(self.random.standard_normal(shape).astype(np.float32))

    def add(self, operator, *inputs, **attributes):
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"node{len(self.nodes)}", **attributes))
        return name

    def conv(self, x, cin, cout, kernel=(1, 1), *, bias=True, **attributes):
        attributes = {"kernel_shape": kernel, "pads": [k // 2 for k in kernel] * 2, "strides": [1, 1]} | attributes
        group = attributes.get("group", 1)
        weights = [self.noise(cout, cin // group, *kernel), *([self.noise(cout)] if bias else [])]
        return self.add("Conv", x, *weights, **attributes)

    def relu(self, x):
        return self.add("Relu", x)

    def cat(self, *parts):
        return self.add("Concat", *parts, axis=1)

    def slice(self, x, start, end):
        return self.add("Slice", x, *(self.constant(np.array([v])) for v in (start, end, 1)))

    def residual(self, y, cy, x, cx):
        """As the exporter writes SSR's."""
        if cy == cx:
            return self.relu(self.add("Add", y, x))
        if cy < cx:
            return self.relu(self.add("Add", y, self.slice(x, 0, cy)))
        head = self.add("Add", self.slice(y, 0, cx), x)
        return self.relu(self.cat(head, self.slice(y, cx, cy)))

    def resize(self, x, size, *, mode="linear", corners="half_pixel", **attributes):
        given = {"mode": mode, "coordinate_transformation_mode": corners} | attributes
        return self.add("Resize", x, "", "", self.constant(np.array(size)), **given)

    def model(self, output):
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "toy", [self.input], [result], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


def operators(model):
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


def run(model, shape):
    image = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return create_session(model, device="cpu", threads=1, optimise=False).run(None, {"image": image})[0]


def check(name, toy, output, *, most=1e-5):
    """The rewritten graph, once it is found to be the same function."""
    model = toy.model(output)
    found = REWRITES.load(name).apply(model)
    assert found is not None
    wanted = run(model, toy.shape)
    np.testing.assert_allclose(run(found, toy.shape), wanted, rtol=0, atol=most * np.abs(wanted).max())
    return found


def nothing(name, toy, output):
    assert REWRITES.load(name).apply(toy.model(output)) is None


# Width of a stage's map, then of each block. Wider, narrower, equal; back and forth; across multiples of 16.
WIDTHS = [(16, 12, 16), (32, 20, 24, 18), (20, 20), (12, 28, 12), (48, 36, 36, 40), (64, 52, 44)]


def stage(widths, *, zoomed=(), end="conv"):
    toy = Toy(1, widths[0], 8, 8)
    x = toy.relu(toy.conv("image", widths[0], widths[0]))
    for number, (before, after) in enumerate(itertools.pairwise(widths)):
        source, kernel = x, (3, 1)
        if number in zoomed:
            source = toy.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        y = toy.conv(toy.relu(toy.conv(source, before, 10, kernel)), 10, after, (1, 3))
        if number in zoomed:
            y = toy.resize(y, (1, after, 8, 8), corners="align_corners")
        x = toy.residual(y, after, x, before)
    last = widths[-1]
    if end == "conv":
        return toy, toy.conv(x, last, 5)
    if end == "concat":
        return toy, toy.conv(toy.cat(x, toy.conv("image", widths[0], 6), x), 2 * last + 6, 5)
    if end == "reshape":
        shape = toy.constant(np.array([last, 1, 8, 8]))
        return toy, toy.add("Reshape", toy.add("AveragePool", x, kernel_shape=[1, 1], strides=[1, 1]), shape)
    if end == "depthwise":
        return toy, toy.conv(x, last, last, (3, 3), group=last)
    return toy, x


@pytest.mark.parametrize("end", ["conv", "concat", "reshape", "depthwise", "itself"])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_prefix_residuals(widths, end):
    for zoomed in ((), (0,), (1,)):
        toy, output = stage(widths, zoomed=zoomed, end=end)
        if len(set(widths)) == 1:
            nothing("prefix-addition", toy, output)
            nothing("prefix-convolution", toy, output)
            continue
        check("prefix-addition", toy, output)
        assert "Slice" not in operators(check("prefix-convolution", toy, output))
        if any(after > before for before, after in itertools.pairwise(widths)):
            check("prefix-padding", toy, output, most=0)
        else:
            nothing("prefix-padding", toy, output)


def test_a_narrower_block_of_the_same_vectors_needs_no_convolution():
    toy, output = stage((32, 20, 18))
    found = check("prefix-addition", toy, output)
    assert operators(found).count("Conv") == operators(toy.model(output)).count("Conv")
    assert "Slice" not in operators(found)
    # From two vectors to one: zero filters would cost more than the 1x1 convolution.
    toy, output = stage((32, 16))
    assert operators(check("prefix-addition", toy, output)).count("Conv") == 5


def test_what_others_read_of_a_residual_stays():
    toy = Toy(1, 32, 4, 4)
    x = toy.relu("image")
    y = toy.conv(x, 32, 20)
    piece = toy.slice(x, 0, 20)
    total = toy.add("Add", y, piece)
    # The slice and the block's own output have other readers.
    output = toy.conv(toy.cat(total, piece, y), 60, 4)
    check("prefix-addition", toy, output)
    check("prefix-convolution", toy, output)


def test_a_sum_of_two_widened_maps():
    toy = Toy(1, 32, 4, 4)
    x = toy.relu("image")
    sides = [toy.residual(toy.conv(x, 32, 20), 20, x, 32) for _ in range(2)]
    output = toy.conv(toy.relu(toy.add("Add", *sides)), 20, 4)
    found = check("prefix-addition", toy, output)
    assert operators(found).count("Slice") == 2
    grown = toy.residual(sides[0], 20, toy.conv(x, 32, 8), 8)
    check("prefix-addition", toy, toy.conv(toy.cat(grown, output), 24, 3))


def downsampler(cin, cout, *, relu=True, bias=True):
    toy = Toy(1, cin, 8, 8)
    strided = toy.conv("image", cin, cout - cin, (3, 3), strides=[2, 2], bias=bias)
    pooled = toy.add("MaxPool", "image", kernel_shape=[2, 2], strides=[2, 2])
    scaled = toy.add("Mul", pooled, toy.noise(1, cin, 1, 1))
    both = toy.cat(strided, toy.add("Add", toy.noise(1, cin, 1, 1), scaled))
    return toy, toy.relu(both) if relu else both


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("cin", "cout"), [(3, 16), (16, 64), (48, 128), (5, 13)])
def test_downsampler(cin, cout, relu, bias):
    found = operators(check("downsampler", *downsampler(cin, cout, relu=relu, bias=bias)))
    assert "Mul" not in found
    # Whole vectors stand side by side; others are added up.
    assert ("Concat" in found) == (cin % 16 == cout % 16 == 0)
    assert found.count("Relu") == (0 if not relu else 2 if "Concat" in found else 1)


def test_a_downsampler_is_left_alone_where_something_else_reads_inside():
    toy, output = downsampler(3, 16)
    scaled = next(node.output[0] for node in toy.nodes if node.op_type == "Add")
    nothing("downsampler", toy, toy.cat(output, scaled))
    toy = Toy(1, 4, 4, 4)
    per_pixel = toy.add("Add", toy.add("Mul", "image", toy.noise(1, 4, 4, 4)), toy.noise(1, 4, 1, 1))
    nothing("downsampler", toy, toy.cat("image", per_pixel))


@pytest.mark.parametrize("corners", ["half_pixel", "align_corners"])
@pytest.mark.parametrize("others", [0, 1, 2])
def test_late_resize(corners, others):
    toy = Toy(1, 12, 5, 7)
    low = toy.relu("image")
    up = [toy.resize(low, (1, 12, 15, 16), corners=corners) for _ in range(2 if others == 0 else 1)]
    rest = [toy.resize(toy.conv("image", 12, 3), (1, 3, 15, 16), corners=corners) for _ in range(others)]
    output = toy.conv(toy.cat(*rest[:1], *up, *rest[1:]), 12 * len(up) + 3 * others, 8)
    found = onnx.load_from_string(check("late-resize", toy, output))
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in found.graph.value_info}
    assert sum(shapes.get(n.output[0]) == [1, 8, 5, 7] for n in found.graph.node if n.op_type == "Conv") == len(up)


@pytest.mark.parametrize("why", ["smaller", "nearest", "more channels", "kernel", "read twice"])
def test_a_resize_that_has_to_come_first(why):
    toy = Toy(1, 8, 8, 8)
    size = (4, 4) if why == "smaller" else (16, 16)
    mode = {"mode": "nearest", "corners": "asymmetric"} if why == "nearest" else {}
    up = toy.resize("image", (1, 8, *size), **mode)
    both = toy.cat(up, toy.resize("image", (1, 8, *size), mode="nearest", corners="asymmetric"))
    out = 9 if why == "more channels" else 4
    output = toy.conv(both, 16, out, (3, 3) if why == "kernel" else (1, 1))
    nothing("late-resize", toy, toy.cat(output, up) if why == "read twice" else output)


@pytest.mark.parametrize("convention", ["half_pixel", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize(("before", "after"), [(1, 7), (2, 9), (3, 3), (9, 64), (8, 4), (5, 1), (1, 1)])
def test_bilinear_resizing_as_a_matrix(before, after, convention):
    x = torch.randn(1, 2, before, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    aligned = convention == "align_corners"
    wanted = F.interpolate(x, size=after, mode="linear", align_corners=aligned)
    found = x @ torch.from_numpy(matrix(after, before, convention)).T
    if (after, convention) != (1, "pytorch_half_pixel"):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(matrix(after, before, convention).sum(1), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("corners", ["half_pixel", "align_corners"])
@pytest.mark.parametrize("others", [1, 2])
def test_pyramid(corners, others):
    toy = Toy(1, 6, 12, 20)
    x = toy.relu("image")
    bins = []
    for size in (1, 2, 3):
        low = toy.add("AveragePool", x, kernel_shape=[12 // size, 20 // size], strides=[12 // size, 20 // size])
        bins.append(toy.resize(toy.conv(low, 6, 4), (1, 4, 12, 20), corners=corners))
    beside = [toy.conv(x, 6, 3)] * (others - 1)
    output = toy.relu(toy.conv(toy.cat(bins[0], x, *bins[1:], *beside), 15 + 3 * others, 9))
    assert "Resize" not in operators(check("pyramid", toy, output))


@pytest.mark.parametrize("why", ["one map", "large maps", "nearest", "nothing beside", "kernel"])
def test_what_is_no_pyramid(why):
    toy = Toy(1, 4, 20, 20)
    rule = {"mode": "nearest", "corners": "asymmetric"} if why == "nearest" else {}
    step = [1, 1] if why == "large maps" else [4, 4]
    pooled = {"kernel_shape": step, "strides": step}
    count = 1 if why == "one map" else 2
    low = [toy.conv(toy.add("AveragePool", "image", **pooled), 4, 4) for _ in range(count)]
    up = [toy.resize(name, (1, 4, 24, 24), **rule) for name in low]
    beside = [] if why == "nothing beside" else [toy.resize("image", (1, 4, 24, 24))]
    kernel = (3, 3) if why == "kernel" else (1, 1)
    nothing("pyramid", toy, toy.conv(toy.cat(*up, *beside), 4 * (count + len(beside)), 8, kernel))


@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "extra"),
    [(3, 2, (1, 1, 1, 1), 1), (2, 2, (0, 0, 0, 0), 0), (4, 2, (1, 1, 1, 1), 0), (5, 2, (2, 1, 2, 1), 1),
     (3, 3, (0, 0, 0, 0), 0), (4, 4, (0, 0, 0, 0), 0), (8, 4, (2, 2, 2, 2), 0), (1, 2, (0, 0, 0, 0), 1)],
)  # fmt: skip
@pytest.mark.parametrize("bias", [True, False])
def test_transposed_convolution(kernel, stride, pads, extra, bias):
    toy = Toy(1, 6, 5, 7)
    weights = [toy.noise(6, 4, kernel, kernel), *([toy.noise(4)] if bias else [])]
    sides = {"strides": [stride] * 2, "pads": list(pads), "output_padding": [extra] * 2, "kernel_shape": [kernel] * 2}
    output = toy.relu(toy.add("ConvTranspose", "image", *weights, **sides))
    model = toy.model(output)
    result = [d.dim_value for d in onnx.load_from_string(model).graph.output[0].type.tensor_type.shape.dim]
    if result[2:] != [5 * stride, 7 * stride]:
        nothing("transposed-convolution", toy, output)
        return
    assert "ConvTranspose" not in operators(check("transposed-convolution", toy, output))


def test_a_transposed_convolution_in_groups_stays():
    toy = Toy(1, 6, 5, 7)
    settings = {"strides": [2, 2], "kernel_shape": [2, 2], "pads": [0] * 4}
    nothing(
        "transposed-convolution", toy, toy.add("ConvTranspose", "image", toy.noise(6, 2, 2, 2), group=2, **settings)
    )


def test_layout_anchor():
    toy = Toy(1, 6, 5, 7)
    settings = {"strides": [2, 2], "kernel_shape": [2, 2], "pads": [0] * 4}
    up = toy.add("ConvTranspose", "image", toy.noise(6, 16, 2, 2), **settings)
    output = toy.relu(toy.add("Add", toy.conv(up, 16, 16, (3, 3)), up))
    found = check("layout-anchor", toy, output, most=0)
    assert operators(found).count("Conv") == 2
    nothing("layout-anchor", toy, up)


@pytest.mark.parametrize("widths", [(6, 6), (6, 9), (9, 6)], ids=str)
@pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), 1), ((1, 1), 1), ((3, 1), 2), ((5, 3), 1)])
def test_residual_kernel(widths, kernel, dilation):
    cin, cout = widths
    toy = Toy(1, cin, 8, 8)
    x = toy.relu("image")
    pads = [dilation * (k // 2) for k in kernel] * 2
    y = toy.conv(x, cin, cout, kernel, pads=pads, dilations=[dilation] * 2)
    relu = toy.residual(y, cout, x, cin)
    found = check("residual-kernel", toy, toy.conv(relu, cout, 3))
    assert "Add" not in operators(found)
    assert "Slice" not in operators(found)
    # The residual itself may be what the model returns.
    last = toy.nodes[-2].input[0]
    toy.nodes = toy.nodes[:-2]
    check("residual-kernel", toy, last)


@pytest.mark.parametrize("why", ["activation", "stride of its own", "uneven", "grouped", "read twice", "another map"])
def test_a_residual_that_stays_outside(why):
    toy = Toy(1, 6, 8, 8)
    x = toy.relu("image")
    changed = {"uneven": {"pads": [0, 0, 2, 2]}, "grouped": {"group": 2}}.get(why, {})
    y = toy.conv(toy.conv(x, 6, 6) if why == "another map" else x, 6, 6, (3, 3), **changed)
    if why == "stride of its own":
        x = toy.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        y = toy.conv(toy.nodes[0].output[0], 6, 6, (3, 3), strides=[2, 2])
    total = toy.add("Add", toy.relu(y) if why == "activation" else y, x)
    nothing("residual-kernel", toy, toy.cat(total, y) if why == "read twice" else toy.relu(total))


def test_shared_resize():
    toy = Toy(1, 4, 8, 8)
    first, second = (toy.resize("image", (1, 4, 4, 4), corners="align_corners") for _ in range(2))
    other = toy.resize("image", (1, 4, 4, 4), corners="half_pixel")
    pools = [toy.add("MaxPool", "image", kernel_shape=[2, 2], strides=[2, 2]) for _ in range(2)]
    found = operators(check("shared-resize", toy, toy.cat(first, second, other, *pools), most=0))
    assert (found.count("Resize"), found.count("MaxPool")) == (2, 1)
    toy = Toy(1, 4, 8, 8)
    other = toy.resize(toy.resize("image", (1, 4, 4, 4)), (1, 4, 4, 4))
    nothing("shared-resize", toy, other)


def test_whole_vectors():
    toy = Toy(1, 3, 8, 8)
    parts = [toy.relu(toy.conv("image", 3, 20)), toy.resize(toy.conv("image", 3, 5), (1, 5, 8, 8))]
    inner = toy.relu(toy.conv(toy.cat(*parts), 25, 17, (3, 3)))
    left = toy.conv("image", 3, 6, bias=False)
    output = toy.conv(toy.cat(inner, toy.add("AveragePool", inner, kernel_shape=[1, 1]), left), 40, 3)
    found = onnx.load_from_string(check("whole-vectors", toy, output))
    widths = {t.name: t.dims[0] for t in found.graph.initializer}
    assert [widths[n.input[1]] for n in found.graph.node if n.op_type == "Conv"] == [32, 16, 32, 16, 3]


@pytest.mark.parametrize("reader", ["output", "add", "slice", "depthwise", "multiply"])
def test_channels_that_others_count_are_not_rounded(reader):
    toy = Toy(1, 3, 8, 8)
    inner = toy.conv("image", 3, 20)
    if reader == "add":
        inner = toy.add("Add", inner, toy.conv("image", 3, 20))
    elif reader == "slice":
        inner = toy.slice(inner, 0, 20)
    elif reader == "depthwise":
        inner = toy.conv(inner, 20, 20, group=20)
    elif reader == "multiply":
        inner = toy.add("Mul", inner, toy.noise(1, 20, 1, 1))
    nothing("whole-vectors", toy, inner if reader == "output" else toy.conv(inner, 20, 16))


def test_rewrites_that_find_nothing_leave_the_model_as_it_is():
    toy = Toy(1, 3, 8, 8)
    model = toy.model(toy.relu(toy.conv("image", 3, 16)))
    assert rewritten(model, tuple(REWRITES.names())) == (model, ())


# What looks like one and is none, so that no rewrite is made of it.


@pytest.mark.parametrize("aligned", [True, False])
def test_bilinear_up_and_down_again_is_no_identity(aligned):
    x = torch.arange(8.0)[None, None, None].square().expand(1, 1, 8, 8).double()
    up = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=aligned)
    down = F.interpolate(up, size=(8, 8), mode="bilinear", align_corners=aligned)
    assert (down - x).abs().max() > 0.1
    assert (F.avg_pool2d(up, 2) - x).abs().max() > 0.1
    assert (F.max_pool2d(up, 2) - x).abs().max() > 0.1


def test_nearest_up_and_pooled_again_is_the_identity():
    x = torch.randn(1, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    up = F.interpolate(x, scale_factor=2, mode="nearest")
    assert torch.equal(F.avg_pool2d(up, 2), x)
    assert torch.equal(F.max_pool2d(up, 2), x)


def test_relu_and_bilinear_resizing_do_not_change_places():
    x = torch.tensor([[[[-1.0, 1.0]]]])
    up = {"size": (1, 3), "mode": "bilinear", "align_corners": True}
    assert F.interpolate(x.relu(), **up)[..., 1] == 0.5
    assert F.interpolate(x, **up).relu()[..., 1] == 0
