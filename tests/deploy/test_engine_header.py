"""Engines and models are told by their first bytes; hostile, short and foreign files are said to be what they are."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import TensorProto, helper

from deploy.engine_header import PREFIX_BYTES, Header, read_header
from searchkit.errors import InputFileError, SearchkitError


def plan(tag=b"ftrt", numbers=(10, 4, 0, 26), serialization=0, length=256, mask=1):
    head = tag + struct.pack("<IIIQ", serialization, 2, 0, length) + bytes(numbers) + tag + struct.pack("<I", mask)
    return head.ljust(length, b"\0")


def model(external=False, inputs=("image",), name="net"):
    values = [helper.make_tensor_value_info(n, TensorProto.UINT8, [1, 8, "w", 3]) for n in inputs]
    out = helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", [inputs[0]], ["labels"])], name, values, [out])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="me")
    helper.set_model_props(made, {"searchkit.network": "ssr"})
    if external:
        weight = made.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2])
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="weights.bin")
    return made.SerializeToString()


def archive(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return buffer.getvalue()


def wrapped(metadata=b'{"imgsz": [512, 1024], "task": "segment"}', inner=None):
    return struct.pack("<I", len(metadata)) + metadata + (plan() if inner is None else inner)


def test_a_tensorrt_engine():
    header = read_header(plan())
    assert (header.runtime, header.version, header.serialization) == ("tensorrt", "10.4.0.26", 0)
    assert header.size_bytes == 256
    assert header.targets == ()
    assert header.damage is None
    assert "TensorRT 10.4.0.26 and no other build" in header.advice()[0]
    assert any("code" in line for line in header.advice())


def test_a_tensorrt_rtx_engine():
    header = read_header(plan(b"vtrt", (1, 7, 1, 116), mask=0b11101))
    assert (header.runtime, header.version) == ("tensorrt-rtx", "1.7.1.116")
    assert header.targets == ("sm75", "sm86", "sm89", "sm120")
    assert any("never publish" in line for line in header.advice())
    assert not any("never publish" in line for line in read_header(plan(b"vtrt", (1, 7, 1, 116), mask=4)).advice())


def test_a_real_engine_and_its_prefix(tiny_network):
    """What is known of the layout was found in such engines."""
    from deploy.backends import BACKENDS
    from deploy.deployable import Deployable
    from searchkit.sizes import Size

    made = Deployable(tiny_network(), Size(32, 64), "raw")
    data = BACKENDS.load("tensorrt-rtx").build(made, ["sm80", "sm120"]).data
    header = read_header(data)
    assert (header.runtime, header.targets, header.damage) == ("tensorrt-rtx", ("sm80", "sm120"), None)
    assert read_header(data[:PREFIX_BYTES], size_bytes=len(data)) == header
    assert "says" in read_header(data[:-1]).damage


def test_another_version_of_tensorrt_rtx_is_read_no_further():
    header = read_header(plan(b"vtrt", (1, 8, 0, 1)))
    assert (header.version, header.targets, header.damage) == ("1.8.0.1", (), None)
    assert "1.7 only" in header.notes[0]


def test_unknown_capabilities_are_noted():
    header = read_header(plan(b"vtrt", (1, 7, 1, 116), mask=0x81))
    assert header.targets == ("sm75",)
    assert "0x80" in header.notes[0]


def test_the_portable_engine_of_the_library():
    header = read_header(plan(b"vtrt", (1, 7, 1, 116), mask=0x7E))
    assert header.targets == ("sm80", "sm86", "sm89", "sm120", "sm121", "newer GPUs")


def test_a_newer_layout_is_not_guessed():
    header = read_header(plan(serialization=1))
    assert header.version is None
    assert "newer than what is known" in header.notes[0]
    assert "the version that built it" in header.advice()[0]


@pytest.mark.parametrize("data", [b"ftrt", b"vtrt" + bytes(20), b"ftrt" + bytes(23)])
def test_a_plan_that_ends_before_its_version(data):
    with pytest.raises(InputFileError, match="ends before the version"):
        read_header(data)


def test_an_empty_file():
    with pytest.raises(InputFileError, match="the file is empty"):
        read_header(b"")


def test_a_truncated_rtx_engine_says_so_first():
    header = read_header(plan(b"vtrt", (1, 7, 1, 116))[:-1])
    assert header.damage == "it says 256 bytes and has 255"
    assert header.advice()[0].startswith("the file is damaged")


def test_an_engine_of_ultralytics():
    header = read_header(wrapped())
    assert (header.runtime, header.version) == ("ultralytics-wrapped", "10.4.0.26")
    assert header.facts["task"] == "segment"
    assert "45 bytes of metadata" in header.notes[0]
    assert header.size_bytes == len(wrapped())


def test_an_engine_of_ultralytics_whose_engine_was_not_read():
    assert read_header(wrapped()[:40]).runtime == "ultralytics-wrapped"
    assert read_header(wrapped(b"{no json}")).facts == {"metadata": "not JSON"}


def test_what_is_behind_the_metadata_must_be_an_engine():
    assert read_header(wrapped(inner=bytes(64))).runtime == "unknown"


def test_an_onnx_model():
    header = read_header(model())
    assert (header.runtime, header.version) == ("onnx", "IR 10")
    assert header.facts["opset"] == "ai.onnx 18"
    assert header.facts["producer"] == "me"
    assert header.facts["input image"] == "uint8 1x8xwx3"
    assert header.facts["output labels"] == "uint8 1x8x8"
    assert header.facts["searchkit.network"] == "ssr"
    assert header.notes == ()


def test_an_onnx_model_of_ours(exported):
    made = exported("ssr-baseline1", "labels")
    header = read_header(made.onnx)
    assert header.runtime == "onnx"
    assert header.facts["searchkit.digest"] == made.network.digest
    prefix = read_header(made.onnx[:PREFIX_BYTES], size_bytes=len(made.onnx))
    assert prefix.runtime == "onnx"
    assert "whole or not at all" in prefix.notes[0]


@pytest.mark.parametrize("part", [0.5, 0.9])
def test_an_onnx_model_that_was_cut_short(part):
    """Known for what it was: "unknown" would send people looking for another tool."""
    data = model()
    header = read_header(data[: int(len(data) * part)])
    assert header.runtime == "onnx"
    assert header.damage.startswith("cut short or altered: ")
    assert header.advice()[0].startswith("the file is damaged")


def test_external_weights_are_noted():
    assert "in another file" in read_header(model(external=True)).notes[0]


def test_control_characters_do_not_reach_the_terminal():
    header = read_header(model(inputs=("a\x1b[31m\u202e",), name="g"))
    assert "input a\\x1b[31m\\u202e" in header.facts
    text = json.dumps(header.to_tree(), ensure_ascii=False) + "".join(header.advice())
    assert text.isprintable()


def test_a_thousand_inputs_do_not_flood():
    assert len(read_header(model(inputs=tuple(f"i{n}" for n in range(1000)))).facts) < 100


def test_weights():
    data = safetensors.numpy.save({"a": np.zeros((2, 3), np.float32)}, {"digest": "d" * 200})
    header = read_header(data)
    assert header.runtime == "safetensors"
    assert header.facts == {"tensors": "1", "digest": "d" * 117 + "..."}
    assert header.damage is None
    assert "says" in read_header(data[:-1]).damage
    assert read_header(data[:40], size_bytes=len(data)).runtime == "safetensors"


def test_the_weights_that_come_with_searchkit():
    from searchkit.files import read_bytes
    from searchkit.trained import find_weights

    data = read_bytes(find_weights("streets", "ssr"), limit_bytes=1 << 30, what="weights")
    header = read_header(data)
    assert (header.runtime, header.damage) == ("safetensors", None)


@pytest.mark.parametrize(
    ("names", "runtime"),
    [
        (("p/data/aotinductor/model/m.so", "p/version"), "torch-aoti"),
        (("p/models/model.json", "p/archive_format"), "torch-export"),
        (("archive/data.pkl", "archive/data/0"), "torch-pickle"),
        (("a.txt",), "zip"),
    ],
)
def test_archives(names, runtime):
    header = read_header(archive(*names))
    assert (header.runtime, header.facts) == (runtime, {"entries": str(len(names))})
    assert read_header(archive(*names)[:50], size_bytes=500).runtime == "zip"
    if runtime == "torch-pickle":
        assert "do not open it" in header.advice()[0]


def test_a_damaged_archive():
    assert read_header(archive("a")[:-10]).damage


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF" + bytes(100),
        b"# a text\n",
        b"{}",
        bytes(100),
        b"\xff" * 100,
        b"\x08",
        b"\x08\x0a\x3a",
        struct.pack("<I", 10),
        struct.pack("<Q", 1 << 62) + b"{",
        b"<?xml version='1.0'?><net/>",
    ],
)
def test_foreign_files_are_unknown(data):
    header = read_header(data)
    assert header.runtime == "unknown"
    assert data[:8].hex(" ") in header.notes[0]
    assert header.advice()


SEEDS = {
    "plan": plan(),
    "rtx": plan(b"vtrt", (1, 7, 1, 116)),
    "wrapped": wrapped(),
    "onnx": model(),
    "safetensors": safetensors.numpy.save({"a": np.zeros(3, np.float32)}),
    "zip": archive("a/data.pkl", "b"),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_damage_of_any_kind_is_answered(seed):
    """Cuts at every byte and many flips: a header or a deliberate refusal, never anything else."""
    data, generator = SEEDS[seed], random.Random(0)
    cases = [data[:end] for end in range(min(len(data), 400))]
    for _ in range(1500):
        changed = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            changed[generator.randrange(min(len(changed), 300))] = generator.randrange(256)
        cases.append(bytes(changed))
    for case in cases:
        try:
            header = read_header(case)
        except SearchkitError:
            continue
        assert isinstance(header, Header)
        json.dumps(header.to_tree(), allow_nan=False)


def test_deep_json_is_answered():
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    assert read_header(wrapped(deep)).facts == {"metadata": "not JSON"}
    assert read_header(struct.pack("<Q", len(deep)) + deep).damage == "its list of tensors is not JSON"
