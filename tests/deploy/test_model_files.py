"""What is said of ONNX and safetensors files that anyone may have written, without running them."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from safetensors.numpy import save

from deploy._model_files import json_object, looks_like_onnx, onnx_facts, plain, safetensors_facts


def model(**changes):
    """x (1 x 3 x ? x width) -> relu -> y."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, None, "width"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], producer_name="me", ir_version=9)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_facts_of_an_onnx_model():
    made = model()
    entry = made.metadata_props.add()
    entry.key, entry.value = "searchkit.network", "ssr"
    found = onnx_facts(made.SerializeToString(), True)
    assert found.version == "IR 9"
    assert found.facts == {
        "ir_version": "9",
        "opset": "ai.onnx 18",
        "producer": "me",
        "nodes": "1",
        "input x": "float 1x3x?xwidth",
        "output y": "float scalar",
        "searchkit.network": "ssr",
    }
    assert (found.notes, found.damage) == ((), None)


def test_weights_are_not_inputs_and_those_outside_are_named():
    made = model()
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], b"\0" * 4, raw=True)
    made.graph.initializer.append(tensor)
    made.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1]))
    assert "input w" not in onnx_facts(made.SerializeToString(), True).facts
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    assert "another file" in onnx_facts(made.SerializeToString(), True).notes[0]


def test_a_strangers_words_are_cut_and_harmless():
    made = model(producer_name="\x1b[31mred\n" + "x" * 500)
    entry = made.metadata_props.add()
    entry.key, entry.value = "k\x07", "v\u202e" * 100
    found = onnx_facts(made.SerializeToString(), True)
    for text in (*found.facts, *found.facts.values()):
        assert text.isprintable()
        assert len(text) < 700
    assert found.facts["producer"].startswith("\\x1b[31mred\\n")


def test_a_prefix_is_not_read():
    data = model().SerializeToString()
    assert "this is its beginning" in onnx_facts(data[:20], False).notes[0]


@given(st.binary(max_size=200))
def test_any_bytes_are_damage_or_facts(data):
    found = onnx_facts(data, True)
    assert found.damage is None or found.damage.isprintable()
    looks_like_onnx(data, True)
    looks_like_onnx(data, False)
    safetensors_facts(data, len(data))


def test_every_truncation_of_a_model_is_seen():
    data = model().SerializeToString()
    facts = onnx_facts(data, True).facts
    assert looks_like_onnx(data, True)
    for length in range(len(data)):
        # Cut between two fields it is a model with fewer of them, and else damaged or none.
        found = onnx_facts(data[:length], True)
        assert found.damage or found.facts != facts
        if 20 < length < 60:
            assert looks_like_onnx(data[:length], False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        b"PK\x03\x04" + bytes(50),
        b"{}",
        b"\xff" * 50,
        bytes(50),
        helper.make_tensor("w", TensorProto.FLOAT, [1], b"\0" * 4, raw=True).SerializeToString(),
    ],
)
def test_what_is_no_onnx_model(data):
    assert not looks_like_onnx(data, True)


def test_a_number_without_end_is_none():
    assert not looks_like_onnx(b"\x08" + b"\xff" * 11, True)


TENSORS = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.uint8)}


def test_facts_of_a_safetensors_file():
    data = save(TENSORS, metadata={"digest": "abc"})
    found = safetensors_facts(data, len(data))
    assert found.facts == {"tensors": "2", "digest": "abc"}
    assert found.damage is None


def test_a_safetensors_file_of_another_length_is_damaged():
    data = save(TENSORS)
    for size in (len(data) - 1, len(data) + 1):
        assert safetensors_facts(data, size).damage == f"it says {len(data)} bytes and has {size}"


def with_header(tree):
    text = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "tree",
    [
        b"{nonsense",
        {"a": 1},
        {"a": {"data_offsets": [0]}},
        {"a": {"data_offsets": [0, "8"]}},
        {"a": {"data_offsets": [0, True]}},
        {"a": {"data_offsets": [0, 2**63]}},
        b"{" + b"[" * 2000,
    ],
    ids=str,
)
def test_a_header_that_is_none_is_damage(tree):
    data = with_header(tree)
    assert safetensors_facts(data, len(data)).damage


def test_what_is_no_safetensors_file():
    for data in (b"", b"x" * 20, (2**60).to_bytes(8, "little") + b"{}", with_header(b"[]")):
        assert safetensors_facts(data, len(data)) is None
    data = with_header({"a": 1})
    assert "longer than what was read" in safetensors_facts(data[:12], len(data)).notes[0]


@pytest.mark.parametrize("text", [b"[1]", b"nonsense", b"[" * 100_000, b"\xff", b"1" * 5000])
def test_json_that_is_no_object(text):
    assert json_object(text) is None


def test_plain_text():
    assert plain("a b") == "a b"
    assert plain("\x1b]0;x\x07") == "\\x1b]0;x\\x07"
    assert len(plain("x" * 1000)) < 200
    assert plain(b"\xff") == "b'\\xff'"


def test_the_facts_of_what_is_exported(exported):
    data = exported("ssr-baseline1", "labels").onnx
    assert looks_like_onnx(data, True)
    found = onnx_facts(data, True)
    assert found.facts["input image"] == "uint8 1x64x128x3"
    assert found.facts["searchkit.network"] == "ssr-baseline1"
    assert onnx.load_from_string(data).ir_version == int(found.facts["ir_version"])
