"""ONNX files that must never reach a runtime, each made from a good one by one change, or byte by byte."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy import runners, segmenter
from deploy.backends import BACKENDS
from deploy.bundle import ROLES, read_bundle, write_bundle
from deploy.onnx_gate import MAX_ATTRIBUTE_VALUES, MAX_ELEMENTS, MAX_NODES, MAX_STRUCTURE_BYTES, check_onnx
from searchkit.errors import DamagedArtifactError, InputFileError

GOOD = (Path(__file__).parents[1] / "golden" / "bundle-schema-1" / "model.onnx").read_bytes()
CONTRACT = (Path(__file__).parents[1] / "golden" / "bundle-schema-1" / "contract.json").read_bytes()


class OpenedError(Exception):
    """A runtime would have been given the model."""


@pytest.fixture(autouse=True)
def spy(monkeypatch):
    def opened(*_args, **_options):
        raise OpenedError

    monkeypatch.setattr(runners, "create_session", opened)
    for backend in map(BACKENDS.load, BACKENDS.names()):
        monkeypatch.setattr(type(backend), "open", opened)


def test_the_good_one_passes():
    found = check_onnx(GOOD, where="x", written_here=False)
    assert (found.input.name, found.input.dtype, found.input.shape) == ("image", "uint8", (1, 32, 64, 3))
    assert (found.output.name, found.output.dtype, found.output.shape) == ("labels", "uint8", (1, 32, 64))
    assert found.opset == 18


MODELS = {}


def hostile(says):
    """Registers a function that changes a model, and what the refusal says."""

    def register(function):
        assert function.__name__ not in MODELS
        MODELS[function.__name__] = (function, says)
        return function

    return register


def conv(model):
    return next(node for node in model.graph.node if node.op_type == "Conv")


def weights(model):
    return max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))


def outside(model, **entries):
    tensor = weights(model)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


@hostile("weights in another file")
def external_data_above(model):
    outside(model, location="../secret")


@hostile("weights in another file")
def external_data_above_in_the_middle(model):
    outside(model, location="a/../../secret")


@hostile("weights in another file")
def external_data_absolute(model):
    outside(model, location="/etc/passwd")


@hostile("weights in another file")
def external_data_beside(model):
    outside(model, location="model.onnx.data", offset="0", length="64")


@hostile("weights in another file")
def external_data_of_the_process(model):
    outside(model, location="/proc/self/mem", offset="4096")


@hostile("weights in another file")
def external_data_in_memory(model):
    outside(model, location="*/_ORT_MEM_ADDR_/*", offset="140000000000", length="64")


@hostile("weights in another file")
def external_data_with_a_nul(model):
    outside(model, location="a\0/../b")


@hostile("weights in another file")
def external_data_beside_raw_bytes(model):
    weights(model).external_data.add(key="location", value="x")


@hostile("weights in another file")
def external_location_without_data(model):
    weights(model).data_location = TensorProto.EXTERNAL


@hostile("standard operator set")
def a_second_domain(model):
    model.opset_import.add(domain="com.microsoft", version=1)


@hostile("standard operator set")
def only_another_domain(model):
    model.opset_import[0].domain = "evil"


@hostile("standard operator set")
def the_domain_twice(model):
    model.opset_import.add(domain="", version=18)


@hostile("standard operator set")
def no_opset(model):
    del model.opset_import[:]


@hostile("opset out of range")
def an_old_opset(model):
    model.opset_import[0].version = 6


@hostile("opset out of range")
def a_future_opset(model):
    model.opset_import[0].version = 2**62


@hostile("unknown IR version")
def a_future_ir(model):
    model.ir_version = 99


@hostile("operator of another domain")
def a_custom_operator(model):
    conv(model).domain = "com.microsoft"


@hostile("operator that is not allowed")
def an_unknown_operator(model):
    conv(model).op_type = "Exec"


@hostile("operator that is not allowed")
def a_standard_operator_that_is_not_exported(model):
    conv(model).op_type = "Loop"


def subgraph():
    identity = helper.make_node("Identity", ["a"], ["b"])
    return helper.make_graph([identity], "inner", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])])


@hostile("operator that is not allowed")
def an_if(model):
    node = helper.make_node("If", [model.graph.input[0].name], ["chosen"], then_branch=subgraph())
    model.graph.node.append(node)


@hostile("operator that is not allowed")
def a_scan(model):
    model.graph.node.append(helper.make_node("Scan", [], ["x"], body=subgraph(), num_scan_inputs=1))


@hostile("attribute of another type")
def a_graph_as_an_attribute(model):
    conv(model).attribute.append(helper.make_attribute("body", subgraph()))


@hostile("holds a tensor or a graph")
def a_graph_in_an_attribute_that_says_it_is_a_number(model):
    attribute = helper.make_attribute("body", 1)
    attribute.g.CopyFrom(subgraph())
    conv(model).attribute.append(attribute)


@hostile("attribute of another type")
def a_tensor_as_an_attribute(model):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32))
    conv(model).attribute.append(helper.make_attribute("value", tensor))


@hostile("holds functions")
def a_function(model):
    node = helper.make_node("Relu", ["a"], ["b"])
    opset = helper.make_opsetid("", 18)
    model.functions.append(helper.make_function("", "Relu2", ["a"], ["b"], [node], [opset]))


@hostile("refers to a function's")
def an_attribute_of_a_function(model):
    conv(model).attribute[0].ref_attr_name = "kernel"


@hostile("operator with an overload")
def an_overload(model):
    conv(model).overload = "other"


@hostile("sparse weights")
def sparse(model):
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    index = numpy_helper.from_array(np.zeros(1, np.int64), "index")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, index, [2**40]))


@hostile("quantisation annotations")
def annotated(model):
    model.graph.quantization_annotation.add(tensor_name="x")


@hostile("training information")
def training(model):
    model.training_info.add()


@hostile("out of range")
def weights_of_2_to_the_80(model):
    tensor = weights(model)
    del tensor.dims[:]
    tensor.dims.extend([2**40, 2**40])


@hostile("out of range")
def weights_whose_size_wraps_around(model):
    tensor = weights(model)
    del tensor.dims[:]
    tensor.dims.extend([2**32, 2**32, len(tensor.raw_data) // 4])


@hostile("out of range")
def negative_weights(model):
    weights(model).dims[0] *= -1


@hostile("too many elements")
def weights_of_many_small_sides(model):
    tensor = weights(model)
    del tensor.dims[:]
    tensor.dims.extend([30_000] * 3)


@hostile("too many dimensions")
def weights_of_many_dimensions(model):
    weights(model).dims.extend([1] * 30)


@hostile("another length than their shape")
def short_weights(model):
    tensor = weights(model)
    tensor.raw_data = tensor.raw_data[:-4]


@hostile("another length than their shape")
def long_weights(model):
    weights(model).raw_data += b"\0" * 4


@hostile("another length than their shape")
def no_weights(model):
    weights(model).ClearField("raw_data")


@hostile("not raw bytes")
def weights_twice(model):
    weights(model).float_data.append(1.0)


@hostile("weights of another type")
def weights_of_text(model):
    tensor = weights(model)
    tensor.data_type = TensorProto.STRING


@hostile("weights of another type")
def weights_of_an_unknown_type(model):
    weights(model).data_type = 999


@hostile("weights in segments")
def segmented_weights(model):
    weights(model).segment.begin = 1


@hostile("too many integers")
def a_shape_of_a_million_sides(model):
    tensor = numpy_helper.from_array(np.ones(2000, np.int64), "sides")
    model.graph.initializer.append(tensor)


@hostile("a name that is taken")
def weights_under_the_name_of_others(model):
    model.graph.initializer[0].name = model.graph.initializer[1].name


@hostile("without a name")
def weights_without_a_name(model):
    model.graph.initializer[0].name = ""


@hostile("a name that is taken")
def two_nodes_of_one_output(model):
    model.graph.node.append(copy.deepcopy(conv(model)))


@hostile("reads what was not computed before")
def a_cycle(model):
    first, second = model.graph.node[0], model.graph.node[1]
    first.input[0] = second.output[0]


@hostile("reads what was not computed before")
def a_dangling_input(model):
    conv(model).input[0] = "nowhere"


@hostile("reads what was not computed before")
def a_node_that_reads_itself(model):
    conv(model).input[0] = conv(model).output[0]


@hostile("not one output")
def a_node_of_two_outputs(model):
    conv(model).output.append("second")


@hostile("not one output")
def a_node_of_no_output(model):
    del conv(model).output[:]


@hostile("not one input")
def two_inputs(model):
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1]))


@hostile("not one input")
def no_input(model):
    del model.graph.input[:]


@hostile("not one output")
def two_outputs(model):
    model.graph.output.append(copy.deepcopy(model.graph.output[0]))


@hostile("never computed")
def an_output_from_nowhere(model):
    model.graph.output[0].name = "nowhere"


@hostile("not a tensor")
def a_name_that_floods_the_terminal(model):
    model.graph.value_info.add(name="\x1b[2J\n" * 10_000)


@hostile("attribute of another type")
def an_attribute_that_floods_the_terminal(model):
    conv(model).attribute.add(name="\x1b[2J\n" * 10_000)


@hostile("operator that is not allowed")
def an_operator_that_floods_the_terminal(model):
    conv(model).op_type = "\x1b[2J\n" * 10_000


@hostile("dynamic shape")
def a_dynamic_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"


@hostile("dynamic shape")
def an_unknown_side(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].Clear()


@hostile("unknown shape")
def an_input_without_a_shape(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


@hostile("not a tensor")
def an_input_that_is_a_sequence(model):
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1


@hostile("out of range")
def an_input_of_no_height(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 0


@hostile("out of range")
def a_huge_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**40


@hostile("shapes do not fit")
def an_input_of_another_size(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 64


@hostile("tensor of another type")
def an_input_of_text(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


@hostile("shapes do not fit")
def an_activation_that_lies(model):
    value = next(v for v in model.graph.value_info if v.name == conv(model).output[0])
    value.type.tensor_type.shape.dim[1].dim_value += 1


def grow(model, factor):
    """A resize to `factor` times the side in front of the output, and nothing that says how large that is."""
    graph = model.graph
    scales = numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), "scales")
    graph.initializer.append(scales)
    graph.node.append(helper.make_node("Resize", [conv(model).output[0], "", "scales"], ["grown"], mode="nearest"))


@hostile("too many elements")
def an_activation_that_explodes(model):
    grow(model, 30_000.0)


@hostile("out of range")
def an_activation_that_explodes_more(model):
    grow(model, 1e9)


@hostile("number of nodes")
def no_nodes(model):
    del model.graph.node[:]


@hostile("number of nodes")
def many_nodes(model):
    last = conv(model).output[0]
    for index in range(MAX_NODES):
        model.graph.node.append(helper.make_node("Relu", [last], [f"x{index}"]))


@hostile("too many attributes")
def many_attributes(model):
    conv(model).attribute.extend([helper.make_attribute("x", 1)] * (MAX_ATTRIBUTE_VALUES + 1))


@hostile("too many values")
def a_long_attribute(model):
    conv(model).attribute.append(helper.make_attribute("pads2", [0] * (MAX_ATTRIBUTE_VALUES + 1)))


@hostile("too many bytes")
def a_long_text(model):
    conv(model).attribute.append(helper.make_attribute("text", "x" * 1000))


@hostile("integer out of range")
def a_kernel_of_2_to_the_62(model):
    attribute = next(a for a in conv(model).attribute if a.name == "kernel_shape")
    attribute.ints[0] = 2**62


@hostile("too many metadata entries")
def much_metadata(model):
    for index in range(1000):
        model.metadata_props.add(key=str(index), value="")


@hostile("bytes that are not weights")
def a_long_description(model):
    model.doc_string = "x" * MAX_STRUCTURE_BYTES


def changed(change):
    model = onnx.load_from_string(GOOD)
    change(model)
    return bytes(model.SerializeToString())


def varint(number):
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


START = b"\x08\x0a" + field(8, b"\x0a\x00\x10\x12")

RAW = {
    "empty": (b"", "file is empty"),
    "text": (b"hello, I am a model", "not an ONNX model"),
    "zeros": (bytes(1000), "not an ONNX model"),
    "truncated": (GOOD[: len(GOOD) // 2], "not an ONNX model"),
    "garbage behind": (GOOD + b"\xff" * 20, "not an ONNX model"),
    "no graph": (START, "number of nodes"),
    "a field that is longer than the file": (START + varint(7 << 3 | 2) + varint(2**40), "not an ONNX model"),
    "a number without an end": (b"\xff" * 64, "not an ONNX model"),
    "groups": (START + b"\x3b" * 1000, "not an ONNX model"),
    "many empty nodes": (START + field(7, b"\x0a\x00" * 2**20), "too many fields"),
    "many empty weights": (START + field(7, b"\x2a\x00" * 200_000), "too many fields"),
    "many empty fields": (START + b"\x72\x00" * 200_000, "too many fields"),
    "many empty attributes": (START + field(7, field(1, b"\x2a\x00" * 2**20)), "bytes that are not weights"),
    "many fields in one tensor": (START + field(7, field(5, b"\x08\x01" * 10_000)), "too many fields of a tensor"),
    "floats that are not raw": (START + field(7, field(5, field(4, bytes(2**22)))), "bytes that are not weights"),
}


def deep():
    """An attribute that holds a graph that holds a node that holds an attribute ... 10,000 times."""
    inner = b""
    for _ in range(2000):
        inner = field(1, field(5, field(6, inner)))
    return START + field(7, inner)


def no_text():
    name = conv(onnx.load_from_string(GOOD)).output[0].encode()
    return GOOD.replace(name, b"\xff" * len(name))


RAW["deep"] = (deep(), "not an ONNX model")
RAW["a name that is no text"] = (no_text(), "a name that is no text")

CASES = {name: (changed(change), says) for name, (change, says) in MODELS.items()} | RAW


def test_there_are_many():
    assert len(CASES) >= 80
    assert len({data for data, _ in CASES.values()}) == len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_a_user_is_refused(name):
    data, says = CASES[name]
    with pytest.raises(InputFileError) as caught:
        check_onnx(data, where="mine.onnx", written_here=False)
    message = str(caught.value)
    assert message.startswith("mine.onnx: ")
    assert says in message
    assert "\n" not in message
    assert len(message) < 700
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", CASES)
def test_a_bundle_is_refused_before_any_runtime_sees_it(name, tmp_path):
    """Sealed by someone who knows how: sizes and hashes are right."""
    data, says = CASES[name]
    write_bundle(tmp_path / "b", dict.fromkeys(ROLES, b"{}") | {"contract.json": CONTRACT, "model.onnx": data})
    before = sorted(os.listdir(tmp_path / "b"))
    with pytest.raises(DamagedArtifactError) as caught:
        segmenter.load(tmp_path / "b")
    assert says in str(caught.value)
    assert str(tmp_path / "b" / "model.onnx") in str(caught.value)
    assert sorted(os.listdir(tmp_path / "b")) == before
    assert sorted(os.listdir(tmp_path)) == ["b"]


def test_the_spy_sees_the_good_one(tmp_path):
    write_bundle(tmp_path / "b", dict.fromkeys(ROLES, b"{}") | {"contract.json": CONTRACT, "model.onnx": GOOD})
    with pytest.raises(DamagedArtifactError, match="cannot open the model") as caught:
        segmenter.load(tmp_path / "b")
    assert isinstance(caught.value.__cause__, OpenedError)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"resolution": {"height_px": 64, "width_px": 64}}, "another input than the contract says"),
        ({"io": "raw"}, "another input than the contract says"),
        ({"io": "triton"}, ""),
    ],
)
def test_a_model_of_another_contract(tmp_path, changes, says):
    contract = json.dumps(json.loads(CONTRACT) | changes).encode()
    write_bundle(tmp_path / "b", dict.fromkeys(ROLES, b"{}") | {"contract.json": contract, "model.onnx": GOOD})
    with pytest.raises(DamagedArtifactError, match=says or "cannot open the model"):
        segmenter.load(tmp_path / "b")
    assert read_bundle(tmp_path / "b").schema == 2


@pytest.mark.parametrize("length", range(0, len(GOOD), 509))
def test_a_truncated_file(length):
    with pytest.raises(InputFileError):
        check_onnx(GOOD[:length], where="x", written_here=False)


def test_flipped_bits_never_end_in_another_error():
    """Most flips are in weights and cannot be told; whatever happens, it is an answer or a refusal."""
    data, rng, refused = bytearray(GOOD), np.random.default_rng(0), 0
    for index in rng.integers(0, len(data), 400):
        bit = 1 << int(rng.integers(8))
        data[index] ^= bit
        try:
            check_onnx(bytes(data), where="x", written_here=False)
        except InputFileError:
            refused += 1
        data[index] ^= bit
    assert refused > 20


def test_sizes_at_the_limit():
    def resized(side):
        model = onnx.load_from_string(GOOD)
        shape = numpy_helper.from_array(np.array([1, 1, side, 2**15], np.int64), "sides")
        ones = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "one")
        model.graph.initializer.extend([shape, ones])
        model.graph.node.append(helper.make_node("Resize", ["one", "", "", "sides"], ["grown"], mode="nearest"))
        return bytes(model.SerializeToString())

    assert MAX_ELEMENTS == 2**30
    check_onnx(resized(2**15), where="x", written_here=False)
    with pytest.raises(InputFileError, match="too many elements"):
        check_onnx(resized(2**15 + 1), where="x", written_here=False)
