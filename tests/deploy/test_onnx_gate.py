"""The gate lets through what the exporter writes, all of it and nothing else. Refusals: tests/hostile/test_onnx.py."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from deploy.onnx_gate import ELEMENTWISE, EXPORTED, OPERATORS, check_onnx
from deploy.precision.calibration import Calibration
from deploy.protobuf_wire import fields
from searchkit.data import open_dataset
from searchkit.errors import InputFileError
from searchkit.networks import known_names
from searchkit.sizes import Size

SIZE = Size(64, 96)


def operators(data):
    return {node.op_type for node in onnx.load_from_string(data).graph.node}


def passes(model):
    """The operators of an export that passed, with what the contract says of its tensors."""
    found = check_onnx(model.onnx, where="x", written_here=True)
    spec = model.contract.input_spec(model.size)
    assert (found.input.name, found.input.dtype, found.input.shape) == (spec.name, spec.dtype, tuple(spec.shape))
    wanted = model.contract.output_spec(model.size, model.network.classes)
    assert (found.output.name, found.output.dtype) == (wanted.name, wanted.dtype)
    assert all(side in (-1, got) for side, got in zip(wanted.shape, found.output.shape, strict=True))
    return operators(model.onnx)


@pytest.fixture(scope="module")
def of_contracts(tiny_network):
    return set().union(*(passes(Deployable(tiny_network(), SIZE, io)) for io in CONTRACTS.names()))


@pytest.fixture(scope="module")
def of_precisions(tiny_network):
    calibration = Calibration(open_dataset("streets", size=SIZE), method="minmax", pictures=2)
    found = set()
    for precision, learning in (("fp16", None), ("int8", calibration)):
        found |= passes(Deployable(tiny_network(), SIZE, "labels", precision=precision, calibration=learning))
    return found


@pytest.fixture(scope="module")
def of_networks(exported):
    return set().union(*(passes(exported(name, "labels")) for name in known_names()))


def test_it_is_the_exporters_own_list(of_contracts, of_precisions, of_networks):
    """Each network under one contract, and one network under each contract and in each precision: the rest follows."""
    assert of_contracts | of_precisions | of_networks == EXPORTED


def test_nothing_in_the_list_holds_a_graph_or_makes_large_tensors_of_small_ones():
    assert not OPERATORS & {"If", "Loop", "Scan", "SequenceMap", "Expand", "Tile", "ConstantOfShape", "Range", "OneHot"}
    assert not EXPORTED & ELEMENTWISE
    for name in OPERATORS:
        attributes = onnx.defs.get_schema(name, 18).attributes.values()
        assert not any(a.type == onnx.defs.OpSchema.AttrType.GRAPH for a in attributes)


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_what_networks_may_use_besides(name):
    tensors = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 3, 4]) for n in ("a", "b"))
    graph = helper.make_graph([helper.make_node(name, ["a"], ["b"])], "g", *([t] for t in tensors))
    opsets = [helper.make_opsetid("", 18)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    assert check_onnx(data, where="x", written_here=False).output.shape == (1, 2, 3, 4)


def test_shapes_that_are_not_stated_are_worked_out(exported):
    model = onnx.load_from_string(exported("ssr-baseline1", "labels").onnx)
    del model.graph.value_info[:]
    assert check_onnx(model.SerializeToString(), where="x", written_here=False).output.dtype == "uint8"


def test_the_fields_of_a_message():
    data = b"\x08\x96\x01" + b"\x12\x03abc" + b"\x19" + bytes(8) + b"\x25" + bytes(4)
    found = [(f.number, data[f.start : f.end], f.is_bytes) for f in fields(data)]
    assert found == [(1, b"\x96\x01", False), (2, b"abc", True), (3, bytes(8), False), (4, bytes(4), False)]
    for end in set(range(len(data))) - {0, 3, 8, 17}:
        with pytest.raises(ValueError, match="ends inside"):
            list(fields(data[:end]))
    for wrong in (b"\x00\x00", b"\x0b", b"\x0f", b"\x08" + b"\xff" * 10 + b"\x01"):
        with pytest.raises(ValueError):
            list(fields(wrong))


def test_who_wrote_it_decides_what_kind_of_error_it_is():
    with pytest.raises(InputFileError):
        check_onnx(b"x", where="x", written_here=False)
