"""Every rewrite is the same function: shipped networks and made-up graphs, in float64 and in ONNX Runtime."""

from __future__ import annotations

import collections

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from deploy.backends.onnxruntime import create_session
from deploy.deployable import Deployable
from deploy.lowering import REWRITES, rewritten
from deploy.onnx_gate import check_onnx
from searchkit.networks import known_names, resolve
from searchkit.sizes import Size
from searchkit.trained import find_weights

# Networks of which it is known what each rewrite finds something to do in. All others have to stay the same as well.
KNOWN = ("fasterseg", "ssr", "ssr-baseline1", "ssr-baseline2", "bisenetv2", "erfnet", "fast-scnn")
APPLIES = {
    "downsampler": {"ssr", "ssr-baseline1", "ssr-baseline2", "erfnet"},
    "late-resize": {"ssr"},
    "layout-anchor": {"erfnet"},
    "prefix-addition": {"ssr"},
    "prefix-convolution": {"ssr"},
    "prefix-padding": {"ssr"},
    "pyramid": {"ssr", "fast-scnn"},
    "residual-kernel": set(),
    "shared-resize": set(),
    "transposed-convolution": {"erfnet"},
    "whole-vectors": {"ssr", "bisenetv2"},
}
# In float64, relative to the largest logit. Constants are copied or multiplied by 1 and 0, so they stay the same.
MOST = 1e-12
# But for one whose new constants, weights of a bilinear resize, are rounded to float32.
MOST_ROUNDED = {"pyramid": 1e-6}
# For networks of operators that `evaluate` does not know.
MOST_IN_FLOAT32 = 1e-4


def attributes(node):
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def evaluate(model, image):
    """The output of a serialised model, float32 or float64 weights alike, computed in float64."""
    graph = onnx.load_from_string(model).graph
    values = {}
    for tensor in graph.initializer:
        value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        values[tensor.name] = value.double() if value.is_floating_point() else value
    values[graph.input[0].name] = torch.as_tensor(image).double()
    for node in graph.node:
        inputs = [values[name] if name else None for name in node.input]
        values[node.output[0]] = OPERATORS[node.op_type](inputs, attributes(node))
    return values[graph.output[0].name].numpy()


def padded(x, pads, value=0.0):
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value)


def conv(inputs, a):
    x, weight, bias = (*inputs, None)[:3]
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    x = padded(x, a.get("pads", [0] * 4))
    return F.conv2d(x, weight, bias, strides, 0, dilations, a.get("group", 1))


def conv_transpose(inputs, a):
    x, weight, bias = (*inputs, None)[:3]
    top, left, bottom, right = a["pads"]
    extra = a.get("output_padding", [0, 0])
    full = F.conv_transpose2d(x, weight, bias, a["strides"], 0, list(extra), a.get("group", 1))
    return full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right]


def pool(inputs, a, kind):
    assert not a.get("ceil_mode", 0)
    assert not any(a.get("pads", [0])) or kind is F.max_pool2d
    x = padded(inputs[0], a.get("pads", [0] * 4), -torch.inf if kind is F.max_pool2d else 0.0)
    return kind(x, a["kernel_shape"], a["strides"])


def average(inputs, a):
    pads = a.get("pads", [0] * 4)
    assert a.get("count_include_pad", 0) or not any(pads)
    return F.avg_pool2d(padded(inputs[0], pads), a["kernel_shape"], a["strides"])


def resize(inputs, a):
    size = [int(side) for side in inputs[3][2:]]
    if a["mode"] == b"nearest":
        return F.interpolate(inputs[0], size=size, mode="nearest")
    aligned = a.get("coordinate_transformation_mode", b"half_pixel") == b"align_corners"
    return F.interpolate(inputs[0], size=size, mode="bilinear", align_corners=aligned)


def sliced(inputs, a):
    x, starts, ends, axes, *steps = inputs
    assert not steps or (steps[0] == 1).all()
    for start, end, axis in zip(starts.tolist(), ends.tolist(), axes.tolist(), strict=True):
        length = x.shape[axis]
        x = x.narrow(axis, start, (min(end, length) if end >= 0 else length + end) - start)
    return x


OPERATORS = {
    "Add": lambda i, a: i[0] + i[1],
    "AveragePool": average,
    "Concat": lambda i, a: torch.cat(i, a["axis"]),
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": lambda i, a: pool(i, a, F.max_pool2d),
    "Mul": lambda i, a: i[0] * i[1],
    "ReduceMean": lambda i, a: i[0].mean(tuple(i[1].tolist()), keepdim=bool(a.get("keepdims", 1))),
    "Relu": lambda i, a: i[0].relu(),
    "Reshape": lambda i, a: i[0].reshape(i[1].tolist()),
    "Resize": resize,
    "Sigmoid": lambda i, a: i[0].sigmoid(),
    "Slice": sliced,
    "Transpose": lambda i, a: i[0].permute(a["perm"]),
}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(params=[name for name in known_names() if name != "fasterseg-teacher"])
def network(request):
    return request.param


def operators(model):
    return collections.Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def image_of(model):
    shape = [d.dim_value for d in onnx.load_from_string(model).graph.input[0].type.tensor_type.shape.dim]
    return noise(*shape)


def run(model, image, *, optimise=False):
    session = create_session(model, device="cpu", optimise=optimise)
    return session.run(None, {session.get_inputs()[0].name: image.astype(np.float32)})[0]


def assert_same(found, plain, *, most=MOST):
    image = image_of(plain)
    if operators(plain).keys() <= OPERATORS.keys():
        wanted, got = evaluate(plain, image), evaluate(found, image)
    else:
        wanted, got = (run(model, image) for model in (plain, found))
        most = MOST_IN_FLOAT32
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= most * np.abs(wanted).max()
    check_onnx(found, where="x", written_here=True)


def test_every_rewrite_is_listed():
    assert set(APPLIES) == set(REWRITES.names())


def test_each_rewrite_alone(network, exported):
    plain = exported(network).onnx
    applied = {name: REWRITES.load(name).apply(plain) for name in REWRITES.names()}
    if network in KNOWN:
        wanted = {name for name, networks in APPLIES.items() if network in networks}
        assert {name for name, found in applied.items() if found} == wanted
    for name, found in applied.items():
        if found:
            assert_same(found, plain, most=MOST_ROUNDED.get(name, MOST))


def test_all_rewrites_one_after_another(network, exported):
    plain = exported(network).onnx
    for order in (REWRITES.names(), REWRITES.names()[::-1]):
        found, applied = rewritten(plain, tuple(order))
        assert_same(found, plain, most=MOST_ROUNDED["pyramid"] if "pyramid" in applied else MOST)


def test_trained_weights_and_onnx_runtime():
    """In float32, with the optimiser off and on, as `verify` compares; and larger than the other tests."""
    network = resolve("ssr")
    model = Deployable(network, Size(128, 192), "raw", weights=find_weights("streets", network.name))
    plain = model.onnx
    found, applied = rewritten(plain, ("downsampler", "prefix-addition", "whole-vectors", "late-resize"))
    assert applied == ("downsampler", "prefix-addition", "whole-vectors", "late-resize")
    assert_same(found, plain)
    image = image_of(plain).astype(np.float32)
    for optimise in (False, True):
        wanted, got = (run(data, image, optimise=optimise) for data in (plain, found))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4)


def test_ssr_has_no_slice_and_no_multiplication_left(exported):
    plain = exported("ssr").onnx
    found, _ = rewritten(plain, ("downsampler", "prefix-addition"))
    before, after = operators(plain), operators(found)
    # The pyramid pooling takes bins apart by ten slices; one more hands it the network's own channels.
    assert (before["Slice"], after["Slice"]) == (23, 11)
    assert (before["Mul"], after["Mul"]) == (3, 0)
    assert before["Concat"] - after["Concat"] == 4
    assert operators(rewritten(plain, ("prefix-convolution",))[0])["Slice"] == 10


def test_a_rewritten_model_keeps_its_interface_and_what_it_says(exported):
    plain = exported("ssr").onnx
    found, _ = rewritten(plain, ("downsampler", "prefix-addition"))
    one, other = onnx.load_from_string(plain), onnx.load_from_string(found)
    assert (list(one.graph.input), list(one.graph.output)) == (list(other.graph.input), list(other.graph.output))
    assert list(one.metadata_props) == list(other.metadata_props)
    assert one.opset_import == other.opset_import
    assert len({node.name for node in other.graph.node}) == len(other.graph.node)


def test_rewriting_gives_the_same_bytes_each_time(exported):
    plain = exported("ssr").onnx
    names = tuple(REWRITES.names())
    assert rewritten(plain, names) == rewritten(plain, names)
    assert exported("ssr").onnx == plain
