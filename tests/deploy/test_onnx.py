"""The exported graph: the same bytes every time, no BatchNorm, and nothing of the machine that made it."""

from __future__ import annotations

import getpass
import hashlib
import platform
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf.message import Message

from deploy.deployable import Deployable
from deploy.onnx import OPSET
from searchkit.networks import known_names, resolve
from searchkit.sizes import Size

ROOT = Path(__file__).resolve().parents[2]
EXPORT = """
import hashlib
from deploy.deployable import Deployable
from searchkit.networks import resolve
from searchkit.sizes import Size
print(Deployable(resolve("ssr"), Size(64, 128), "raw").onnx_sha256)
"""


@pytest.fixture(scope="module", params=known_names())
def model(request, exported):
    return exported(request.param)


def loaded(model):
    return onnx.load_from_string(model.onnx)


def words_of(proto):
    """Every text in a model but its weights, a line each: the lengths between them in the file may look like text."""
    return "\n".join(texts_in(proto))


def texts_in(message):
    for field, value in message.ListFields():
        if field.name == "raw_data":
            continue
        for item in value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]:
            if isinstance(item, Message):
                yield from texts_in(item)
            elif isinstance(item, (str, bytes)):
                yield item.decode("latin-1") if isinstance(item, bytes) else item


@pytest.mark.slow
def test_two_exports_in_one_process_and_one_in_another_have_the_same_bytes(exported):
    first = exported("ssr").onnx
    assert Deployable(resolve("ssr"), Size(64, 128), "raw").onnx == first
    done = subprocess.run([sys.executable, "-c", EXPORT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(first).hexdigest()


def test_opset_and_domains(model):
    proto = loaded(model)
    assert OPSET == 18
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    assert {node.domain for node in proto.graph.node} == {""}
    assert not proto.functions


def test_no_batch_norm_is_left_and_nothing_is_stored_outside(model):
    proto = loaded(model)
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    assert {tensor.data_location for tensor in proto.graph.initializer} == {onnx.TensorProto.DEFAULT}
    used = {name for node in proto.graph.node for name in node.input}
    assert {tensor.name for tensor in proto.graph.initializer} <= used


def test_nothing_of_this_machine_is_in_the_bytes(model):
    proto = loaded(model)
    for item in (proto.graph, *proto.graph.node, *proto.graph.initializer, *proto.graph.value_info):
        assert not item.metadata_props
        assert not item.doc_string
    words = words_of(proto)
    assert not re.search(r"\.py\b", words)
    assert not re.search(r"(^|[^\w.-])/\w", words), "a path from the root"
    for word in ("stack_trace", "Traceback", "site-packages", str(Path.home()), str(ROOT), platform.node()):
        assert word not in words
    assert not re.search(rf"\b{re.escape(getpass.getuser())}\b", words)


def test_the_search_for_paths_would_find_one(exported):
    proto = loaded(exported("ssr-baseline1"))
    proto.graph.node[0].doc_string = "File /srv/x, line 3"
    assert re.search(r"(^|[^\w.-])/\w", words_of(proto))


def test_metadata_says_what_it_is(model):
    proto = loaded(model)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert all(key.startswith("searchkit.") for key in said)
    assert said["searchkit.network"] == proto.graph.name == model.network.name
    assert said["searchkit.digest"] == model.network.digest
    assert said["searchkit.trained"] == "false"
    assert said["searchkit.weights"] == model.weights.text
    assert "untrained" in said["searchkit.weights"]
    assert (said["searchkit.io"], said["searchkit.classes"]) == ("raw", "19")
    assert said["searchkit.resolution"] == str(model.size)


def test_shapes_are_static(model):
    proto = loaded(model)
    (image,), (logits,) = proto.graph.input, proto.graph.output
    assert (image.name, logits.name) == ("image", "logits")
    for value in (image, logits):
        dims = value.type.tensor_type.shape.dim
        assert all(dim.dim_value > 0 and not dim.dim_param for dim in dims)
    assert [dim.dim_value for dim in image.type.tensor_type.shape.dim] == [1, 3, *model.size]


def test_the_label_contract_takes_and_gives_bytes(tiny):
    model = Deployable(resolve(str(tiny())), Size(64, 128), "labels")
    proto = loaded(model)
    (image,), (labels,) = proto.graph.input, proto.graph.output
    assert (image.name, labels.name) == ("image", "labels")
    assert [d.dim_value for d in image.type.tensor_type.shape.dim] == [1, *model.size, 3]
    assert [d.dim_value for d in labels.type.tensor_type.shape.dim] == [1, *model.size]
    kinds = {value.type.tensor_type.elem_type for value in (image, labels)}
    assert kinds == {onnx.TensorProto.UINT8}
    # TensorRT lets nothing but Cast touch a uint8 tensor.
    assert {node.op_type for node in proto.graph.node if "image" in node.input} == {"Cast"}


def test_fasterseg_at_the_papers_size_has_the_papers_operators(exported):
    operators = Counter(node.op_type for node in loaded(exported("fasterseg", size=(512, 1024))).graph.node)
    assert operators == {"Conv": 45, "Relu": 44, "Resize": 25, "Concat": 4}
    assert operators.total() == 118


def test_adaptive_pooling_does_not_unroll(exported):
    assert len(loaded(exported("ssr")).graph.node) < 200


def test_the_graph_is_the_lowered_module(model):
    """Held to PyTorch in full by `verify`; here on one input, without it."""
    batch = np.random.default_rng(1).standard_normal((1, 3, *model.size), dtype=np.float32)
    (found,) = onnxruntime.InferenceSession(model.onnx).run(None, {"image": batch})
    with torch.inference_mode():
        wanted = model.module(torch.from_numpy(batch)).numpy()
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_exporter(tiny_network, monkeypatch, number):
    """Inside torch's imports it could be swallowed."""
    model = Deployable(tiny_network(), Size(64, 96), "raw")
    export, passed = torch.onnx.export, []

    def interrupted(*args, **options):
        signal.raise_signal(number)
        passed.append("signal")
        program = export(*args, **options)
        passed.append("export")
        return program

    def stop(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.onnx, "export", interrupted)
    before = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            _ = model.onnx
        assert passed == ["signal", "export"]
        assert signal.getsignal(number) == stop
    finally:
        signal.signal(number, before)


def test_a_second_signal_does_not_wait(tiny_network, monkeypatch):
    model = Deployable(tiny_network(), Size(64, 96), "raw")

    def interrupted_twice(*_args, **_options):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")

    monkeypatch.setattr(torch.onnx, "export", interrupted_twice)
    with pytest.raises(KeyboardInterrupt):
        _ = model.onnx


def test_export_works_beside_the_main_thread(tiny_network):
    model, done = Deployable(tiny_network(), Size(64, 96), "raw"), []
    thread = threading.Thread(target=lambda: done.append(model.onnx))
    thread.start()
    thread.join()
    assert done == [Deployable(tiny_network(), Size(64, 96), "raw").onnx]
