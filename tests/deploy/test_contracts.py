"""Each tensor contract against the rules of the stack that reads it, on exported models."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorrt_rtx as rtx
import torch

from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from deploy.opset import downgrade
from searchkit.blocks import resize
from searchkit.data import streets
from searchkit.errors import UsageError
from searchkit.normalization import MEAN, STD, normalise
from searchkit.sizes import Size

SIZE = Size(64, 128)
MARGIN = 1e-3  # of the two best logits, on which labels must agree
PIXELS, NORMALISED = (0.0, 255.0), (-0.485 / 0.229, (1 - 0.406) / 0.225)

# What the stacks' own documents and sources ask for: input, output, and where normalisation lives.
RULES = {
    "raw": ("float32", "NCHW", "RGB", NORMALISED, "logits", "float32", "NCHW", False),
    "logits": ("float32", "NCHW", "RGB", NORMALISED, "logits", "float32", "NCHW", False),
    "labels": ("uint8", "NHWC", "RGB", PIXELS, "labels", "uint8", "NHW", True),
    "softmax": ("float32", "NCHW", "RGB", NORMALISED, "probabilities", "float32", "NCHW", False),
    "deepstream": ("float32", "NCHW", "RGB", PIXELS, "probabilities", "float32", "NCHW", True),
    "isaac-ros": ("float32", "NCHW", "RGB", NORMALISED, "labels", "int32", "NHWC", False),
    "autoware": ("float32", "NCHW", "BGR", PIXELS, "probabilities", "float32", "NCHW", True),
    "triton": ("uint8", "NHWC", "RGB", PIXELS, "labels", "uint8", "NHW", True),
    "apollo": ("float32", "NCHW", "BGR", PIXELS, "probabilities", "float32", "NCHW", True),
}
STACK_CONTRACTS = [io for io in RULES if io not in ("raw", "logits", "labels")]
PROBABILITIES = [io for io, rule in RULES.items() if rule[4] == "probabilities"]
BGR = [io for io, rule in RULES.items() if rule[2] == "BGR"]
# Of the last resize, arg-max or softmax; nothing that computes may follow.
TAIL = {"Cast", "Reshape", "Unsqueeze", "Transpose"}


def shipped(model):
    """The ONNX model in an opset that the consumer reads."""
    limit = model.contract.max_opset
    return model.onnx if limit is None else downgrade(model.onnx, limit)


def run(model, batch):
    session = onnxruntime.InferenceSession(shipped(model), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


@pytest.fixture(scope="module")
def picture():
    return streets.draw(3, 1, SIZE).image


@pytest.fixture(scope="module", params=["tiny", "ssr-baseline1"])
def deployed(request, exported, tiny_network):
    """`deployed(io)`: one of two networks under a contract."""
    models = {}

    def get(io):
        if request.param != "tiny":
            return exported(request.param, io, size=tuple(SIZE))
        if io not in models:
            models[io] = Deployable(tiny_network(), SIZE, io)
        return models[io]

    return get


@pytest.fixture(scope="module")
def reference(deployed, picture):
    """PyTorch's full-resolution logits for the picture, the labels they mean, and which pixels are clear."""
    with torch.inference_mode():
        logits = resize(deployed("raw").module(torch.from_numpy(normalise(picture))), SIZE)
    best = logits.topk(2, dim=1).values
    clear = (best[:, 0] - best[:, 1]).numpy() > MARGIN
    labels = logits.argmax(1).numpy()
    assert len(np.unique(labels)) > 1
    assert clear.mean() > 0.9
    return SimpleNamespace(logits=logits.numpy(), labels=labels, clear=clear)


@pytest.mark.parametrize("io", RULES)
def test_a_contract_says_what_its_consumer_asks_for(io):
    contract = CONTRACTS.load(io)
    taken, given = contract.input_spec(SIZE), contract.output_spec(SIZE, 19)
    assert (taken.name, taken.shape) == ("image", (1, 3, *SIZE) if taken.layout == "NCHW" else (1, *SIZE, 3))
    found = (taken.dtype, taken.layout, taken.colour_order, taken.value_range)
    assert (*found, given.name, given.dtype, given.layout, contract.normalisation_in_graph) == RULES[io]
    assert given.colour_order == ""
    bounds = {"logits": None, "probabilities": (0, 1), "labels": (0, 18)}
    assert given.value_range == bounds[given.name]
    assert contract.max_opset == (17 if io == "apollo" else None)


def test_every_contract_has_its_rules():
    assert set(RULES) == set(CONTRACTS.names())


@pytest.mark.parametrize("io", RULES)
def test_specs_are_plain_data(io):
    import json

    contract = CONTRACTS.load(io)
    for spec in (contract.input_spec(SIZE), contract.output_spec(SIZE, 5)):
        tree = spec.to_tree()
        assert json.loads(json.dumps(tree, allow_nan=False)) == tree
        assert tree["shape"] == list(spec.shape)


@pytest.mark.parametrize("io", RULES)
def test_a_picture_fills_the_range_that_the_contract_states(io):
    contract = CONTRACTS.load(io)
    low, high = contract.input_spec(SIZE).value_range
    found = [contract.encode(np.full((*SIZE, 3), value, np.uint8)) for value in (0, 255)]
    assert min(batch.min() for batch in found) == pytest.approx(low, abs=1e-6)
    assert max(batch.max() for batch in found) == pytest.approx(high, abs=1e-6)


@pytest.mark.parametrize("io", RULES)
def test_the_picture_can_be_read_back_from_the_input(io, picture):
    """With nothing but what the contract says of it."""
    contract = CONTRACTS.load(io)
    spec, batch = contract.input_spec(SIZE), contract.encode(picture)
    pixels = batch[0].transpose(1, 2, 0) if spec.layout == "NCHW" else batch[0]
    pixels = pixels[..., ::-1] if spec.colour_order == "BGR" else pixels
    if not contract.normalisation_in_graph:
        pixels = (pixels * np.array(STD) + np.array(MEAN)) * 255
    assert np.array_equal(np.rint(pixels).astype(np.uint8), picture)


@pytest.mark.parametrize("io", STACK_CONTRACTS)
def test_the_model_has_the_tensors_of_its_contract(io, deployed):
    model = deployed(io)
    graph = onnx.load_from_string(shipped(model)).graph
    specs = model.contract.input_spec(SIZE), model.contract.output_spec(SIZE, model.network.classes)
    for spec, value in zip(specs, (*graph.input, *graph.output), strict=True):
        tensor = value.type.tensor_type
        assert value.name == spec.name
        assert onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name == spec.dtype
        assert tuple(dim.dim_value for dim in tensor.shape.dim) == spec.shape


def following(graph, names):
    return [node for node in graph.node if set(node.input) & set(names)]


@pytest.mark.parametrize("io", STACK_CONTRACTS)
def test_the_graph_keeps_tensorrts_rules(io, deployed):
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(shipped(deployed(io)))).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    for node in graph.node:
        touched = {kinds.get(name) for name in (*node.input, *node.output)}
        assert onnx.TensorProto.UINT8 not in touched or node.op_type == "Cast", node
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert not (node.op_type == "Resize" and attributes.get("antialias")), node
        if node.op_type == "ArgMax":
            assert kinds[node.output[0]] == onnx.TensorProto.INT64
            assert {n.op_type for n in following(graph, node.output)} == {"Cast"}


@pytest.mark.parametrize("io", STACK_CONTRACTS)
def test_the_graph_ends_in_one_softmax_or_arg_max_at_full_resolution(io, deployed):
    model = deployed(io)
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(shipped(model))).graph
    (last,) = [node for node in graph.node if node.op_type in ("Softmax", "ArgMax")]
    assert last.op_type == ("Softmax" if io in PROBABILITIES else "ArgMax")
    assert {a.name: onnx.helper.get_attribute_value(a) for a in last.attribute}["axis"] == 1
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
    assert shapes[last.input[0]] == [1, model.network.classes, *SIZE]
    tail, names = Counter(), set(last.output)
    while nodes := following(graph, names):
        tail.update(node.op_type for node in nodes)
        names = {name for node in nodes for name in node.output}
    assert set(tail) <= (set() if io in PROBABILITIES else TAIL)


@pytest.mark.parametrize("io", STACK_CONTRACTS)
def test_the_model_gives_the_labels_of_the_network(io, deployed, picture, reference):
    model = deployed(io)
    output = run(model, model.contract.encode(picture))
    spec = model.contract.output_spec(SIZE, model.network.classes)
    assert (output.dtype.name, output.shape) == (spec.dtype, spec.shape)
    found = model.contract.labels(output, SIZE)
    assert (found.shape, found.dtype.kind in "ui") == ((1, *SIZE), True)
    assert np.array_equal(found[reference.clear], reference.labels[reference.clear])


@pytest.mark.parametrize("io", PROBABILITIES)
def test_probabilities_are_such(io, deployed, picture, reference):
    model = deployed(io)
    output = run(model, model.contract.encode(picture))
    assert np.isfinite(output).all()
    assert 0 <= output.min() <= output.max() <= 1
    assert np.abs(output.sum(axis=1) - 1).max() < 1e-5
    shifted = np.exp(reference.logits - reference.logits.max(axis=1, keepdims=True))
    assert np.abs(output - shifted / shifted.sum(axis=1, keepdims=True)).max() < 1e-4


def first_above(planes, start, first, threshold=None):
    """The arg-max of the stacks' own kernels: from class `first` at `start`, a class wins by being larger."""
    best, labels = np.full(planes.shape[1:], start, np.float32), np.full(planes.shape[1:], first)
    for index, plane in enumerate(planes):
        wins = plane > best
        best, labels = np.where(wins, plane, best), np.where(wins, index, labels)
    return labels if threshold is None else np.where(best >= threshold, labels, -1)


KERNELS = {
    # Default segmentation parser, threshold 0.0 as in the configuration that goes with it.
    "deepstream": {"start": -1.0, "first": -1, "threshold": 0.0},
    # Arg-max kernel of its TensorRT camera nodes.
    "autoware": {"start": 0.0, "first": 0},
}


@pytest.mark.parametrize("io", KERNELS)
def test_the_stacks_own_arg_max_finds_our_labels(io, deployed, picture, reference):
    model = deployed(io)
    output = run(model, model.contract.encode(picture))
    found = first_above(output[0], **KERNELS[io])
    assert np.array_equal(found, model.contract.labels(output, SIZE)[0])
    assert np.array_equal(found[reference.clear[0]], reference.labels[0][reference.clear[0]])


@pytest.mark.parametrize("io", KERNELS)
def test_logits_would_deceive_that_arg_max(io, reference):
    """The same answer with all scores lower: softmax does not see it, the kernels do."""
    found = first_above(reference.logits[0] - reference.logits.max() - 2, **KERNELS[io])
    assert (found == KERNELS[io]["first"]).all()


@pytest.mark.parametrize("io", BGR)
def test_channels_are_swapped_once(io, deployed, picture):
    model = deployed(io)
    planes = CONTRACTS.load("deepstream").encode(picture)  # RGB, 0 to 255
    assert np.array_equal(model.contract.encode(picture), planes[:, ::-1])
    # Fed with RGB it must see blue where red is: the network's answer to the swapped picture.
    with torch.inference_mode():
        wanted = resize(deployed("raw").module(torch.from_numpy(normalise(picture[..., ::-1]))), SIZE).softmax(1)
        straight = resize(deployed("raw").module(torch.from_numpy(normalise(picture))), SIZE).softmax(1)
    assert np.abs(run(model, planes) - wanted.numpy()).max() < 1e-4
    assert (wanted - straight).abs().max() > 0.01


def test_the_triton_graph_is_that_of_labels(deployed):
    strip = []
    for io in ("triton", "labels"):
        model = onnx.load_from_string(deployed(io).onnx)
        del model.metadata_props[:]
        strip.append(model.SerializeToString(deterministic=True))
    assert strip[0] == strip[1]


def test_the_apollo_model_has_an_opset_that_tensorrt_8_reads(deployed):
    model = onnx.load_from_string(shipped(deployed("apollo")))
    assert model.opset_import[0].version <= 17
    assert model.ir_version <= 8


@pytest.mark.parametrize("io", ["isaac-ros", "autoware", "triton", "labels"])
def test_a_mask_of_bytes_holds_255_classes(io):
    contract = CONTRACTS.load(io)
    contract.check_classes(255)
    with pytest.raises(UsageError, match="too many classes") as caught:
        contract.check_classes(256)
    assert caught.value.where == f"--io {io}"


@pytest.mark.parametrize("io", ["softmax", "deepstream", "apollo"])
def test_probabilities_have_no_such_limit(io):
    CONTRACTS.load(io).check_classes(300)


def test_names_are_found_with_either_stroke():
    assert CONTRACTS.load("isaac_ros") is CONTRACTS.load("isaac-ros")
    assert not [name for name in CONTRACTS.names() if name.startswith(("_", "-"))]


@pytest.mark.parametrize("io", STACK_CONTRACTS)
def test_tensorrt_builds_it_for_turing_and_ampere(io, deployed):
    model = deployed(io)
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    parsed = parser.parse(shipped(model))
    assert parsed, [parser.get_error(index).desc() for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 2
    for index, capability in enumerate((rtx.ComputeCapability.SM75, rtx.ComputeCapability.SM86)):
        assert config.set_compute_capability(capability, index)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert bytes(engine)[:4] == b"vtrt"
    (taken,) = [network.get_input(index) for index in range(network.num_inputs)]
    (given,) = [network.get_output(index) for index in range(network.num_outputs)]
    spec = model.contract.input_spec(SIZE)
    assert (taken.name, tuple(taken.shape)) == (spec.name, spec.shape)
    assert (rtx.nptype(taken.dtype), rtx.nptype(given.dtype)) == (
        np.dtype(spec.dtype),
        np.dtype(model.contract.output_dtype),
    )
