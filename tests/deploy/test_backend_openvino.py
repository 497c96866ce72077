"""OpenVINO: the precision that is asked for is the one that is used, and whatever it refuses is named."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from deploy.backends import Unavailable
from deploy.backends import openvino as openvino_backend
from deploy.backends.openvino import BACKEND
from searchkit.data import streets
from searchkit.errors import BackendUnavailableError, UsageError, VerificationError
from searchkit.sizes import Size

SIZE = Size(64, 128)
ROOT = Path(__file__).resolve().parents[2]

# A handler in Python runs on the alternate signal stack, if the thread has one.
INTERRUPTED = """
import signal, sys, threading
from types import SimpleNamespace
from deploy.backends.openvino import BACKEND

model = SimpleNamespace(onnx=open(sys.argv[1], "rb").read(), precision="fp32")
sessions = [BACKEND.open(model, threads=1), BACKEND.open(model, threads=1)]
def close():
    while sessions:
        sessions.pop(0).close()
if sys.argv[2] == "beside":
    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
else:
    close()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("heard")
"""


@pytest.fixture(scope="module")
def model(exported):
    return exported("ssr-baseline1", "raw", size=tuple(SIZE))


def has_bfloat16():
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class Model:
    """As much of a model as this backend asks for."""

    def __init__(self, data, precision="fp32"):
        self.onnx, self.precision = data, precision


def test_float32_is_forced(model):
    """OpenVINO's own default is bfloat16 where the CPU has it, 1,000 times further from PyTorch."""
    batch = model.contract.encode(streets.draw(3, 1, SIZE).image)
    with BACKEND.open(model) as session:
        found, options = session.run(batch), session.info.options
    with torch.inference_mode():
        assert np.abs(found - model.module(torch.from_numpy(batch)).numpy()).max() <= 1e-4
    assert options["inference_precision"] == "f32"
    assert options["kernels"].startswith("f32 ")
    assert "bf16" not in options["kernels"]
    assert (options["precision"], options["streams"], options["hint"]) == ("fp32", "1", "latency")


def test_bfloat16_runs_in_bfloat16(model):
    if not has_bfloat16():
        with pytest.raises(BackendUnavailableError, match="no instructions for bfloat16"):
            BACKEND.open(model, mode="bf16")
        return
    with BACKEND.open(model, mode="bf16") as session:
        options = session.info.options
    assert options["inference_precision"] == "bf16"
    assert options["kernels"].startswith("bf16 ")
    assert options["precision"] == "bf16"


@pytest.fixture
def core(monkeypatch):
    """Makes every property of the plug-in or of a compiled network what the test says."""
    real = openvino_backend.shared_core()
    changed = {}

    class Compiled:
        def __init__(self, compiled):
            self.compiled = compiled

        def get_property(self, name):
            return changed.get(name, self.compiled.get_property(name))

        def __getattr__(self, name):
            return getattr(self.compiled, name)

    class Core:
        def get_property(self, device, name):
            return changed.get(name, real.get_property(device, name))

        def compile_model(self, *arguments):
            return Compiled(real.compile_model(*arguments))

        def __getattr__(self, name):
            return getattr(real, name)

    monkeypatch.setattr(openvino_backend, "shared_core", Core)
    return changed


def test_a_cpu_without_bfloat16_is_refused(core, model):
    core["OPTIMIZATION_CAPABILITIES"] = ["FP32", "INT8"]
    with pytest.raises(BackendUnavailableError, match="no instructions for bfloat16") as caught:
        BACKEND.open(model, mode="bf16")
    assert "got 'FP32, INT8'" in str(caught.value)
    BACKEND.open(model, mode="fp32").close()


def test_another_precision_than_asked_for_is_an_error(core, model):
    core["INFERENCE_PRECISION_HINT"] = SimpleNamespace(get_type_name=lambda: "bf16")
    with pytest.raises(BackendUnavailableError, match="another precision than it was told"):
        BACKEND.open(model)


def test_more_threads_than_there_are_cores_are_refused(model):
    with pytest.raises(
        UsageError, match=r"--threads: OpenVINO uses another number of threads \(got 1000; allowed: at most"
    ):
        BACKEND.open(model, threads=1000)
    with BACKEND.open(model, threads=1) as session:
        assert session.info.options["threads"] == "1"


@pytest.mark.parametrize("thread", ["main", "beside"])
def test_ctrl_c_is_heard_after_sessions_are_closed(model, tmp_path, thread):
    """On a CPU with AMX it killed the process."""
    path = tmp_path / "model.onnx"
    path.write_bytes(model.onnx)
    command = [sys.executable, "-c", INTERRUPTED, str(path), thread]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


@pytest.mark.parametrize("data", [b"", b"no model", "cut"])
def test_what_it_cannot_read_is_refused(model, data):
    with pytest.raises(VerificationError, match="OpenVINO refuses the model") as caught:
        BACKEND.open(Model(model.onnx[:5000] if data == "cut" else data))
    assert "src/" not in str(caught.value), "a person needs no place in its source"


def test_inputs_are_read_where_they_lie_and_outputs_are_copies(model):
    batch = model.contract.encode(streets.draw(3, 1, SIZE).image)
    with BACKEND.open(model) as session:
        session.load(batch)
        assert np.shares_memory(session._request.get_input_tensor().data, batch)
        session.execute()
        first = session.output()
        kept = first.copy()
        flipped = batch[:, :, ::-1].copy()
        session.run(flipped)
        np.testing.assert_array_equal(first, kept)


def test_the_result_is_not_copied_where_nobody_takes_it(model):
    """A copy of the logits at 512x1024 took a fifth of the time."""
    with BACKEND.open(model) as session:
        size = session.run(model.contract.encode(streets.draw(3, 1, SIZE).image)).nbytes
        tracemalloc.start()
        try:
            session.execute()
            without = tracemalloc.get_traced_memory()[1]
            session.output()
            with_copy = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert without < size <= with_copy


def test_an_array_that_nobody_else_keeps_is_kept(model):
    """A tensor that shares an array's memory does not keep it: what was read then was whatever came to lie there."""
    batch = model.contract.encode(streets.draw(3, 1, SIZE).image)
    with BACKEND.open(model) as session:
        wanted = session.run(batch)
        upside_down = batch[:, :, ::-1].copy()
        for array in (batch.copy, lambda: upside_down[:, :, ::-1]):
            session.load(array())
            overwritten = [np.full_like(batch, np.nan) for _ in range(4)]
            session.execute()
            np.testing.assert_array_equal(session.output(), wanted)
            assert len(overwritten) == 4


SCALE = 0.05


def quantised_model():
    """A 3x3 convolution between symmetric quantise-dequantise pairs, weights by channel; and its integer weights."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (8, 16, 3, 3), dtype=np.int8)
    scales = np.linspace(1e-3, 2e-3, 8, dtype=np.float32)

    def constant(name, value):
        return numpy_helper.from_array(np.asarray(value), name)

    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["image_q"]),
        helper.make_node("DequantizeLinear", ["image_q", "scale", "zero"], ["image_d"]),
        helper.make_node("DequantizeLinear", ["weight", "scales", "zeros"], ["weight_d"], axis=0),
        helper.make_node("Conv", ["image_d", "weight_d"], ["sum"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["sum", "scale_out", "zero"], ["sum_q"]),
        helper.make_node("DequantizeLinear", ["sum_q", "scale_out", "zero"], ["logits"]),
    ]
    values = [
        constant("scale", np.float32(SCALE)),
        constant("scale_out", np.float32(SCALE)),
        constant("zero", np.int8(0)),
        constant("scales", scales),
        constant("zeros", np.zeros(8, np.int8)),
        constant("weight", weight),
    ]
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 16, 12, 12])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 8, 12, 12])],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString(), weight, scales


def quantised_reference(image, weight, scales):
    """The same in exact arithmetic, on integers."""

    def rounded(values):
        return np.clip(np.rint(values), -128, 127)

    pixels = torch.from_numpy(rounded(image.astype(np.float64) / SCALE))
    sums = torch.nn.functional.conv2d(pixels, torch.from_numpy(weight.astype(np.float64)), padding=1).numpy()
    return SCALE * rounded(sums * SCALE * scales[None, :, None, None].astype(np.float64) / SCALE)


def test_quantised_graphs_run_on_integers():
    data, weight, scales = quantised_model()
    image = np.random.default_rng(1).standard_normal((1, 16, 12, 12)).astype(np.float32)
    wanted = quantised_reference(image, weight, scales)
    with BACKEND.open(Model(data, "int8")) as session:
        found, options = session.run(image), session.info.options
    assert options["precision"] == "int8"
    assert options["kernels"] in ("i8 1", "u8 1"), "the convolution itself, not its operands alone"
    # A sum may lie on the edge between two integers: one step, and seldom.
    assert np.abs(found - wanted).max() <= 1.01 * SCALE
    assert (np.abs(found - wanted) < 1e-4).mean() > 0.98
    if has_bfloat16():
        with BACKEND.open(Model(data, "int8"), mode="bf16") as session:
            assert session.info.options["precision"] == "int8 and bf16"


def test_float16_models_are_computed_in_the_modes_precision():
    """A CPU has no float16 arithmetic that OpenVINO would use, and the session does not claim any."""
    weight = np.random.default_rng(0).standard_normal((8, 16, 3, 3)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["half", "weight"], ["sum"], pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["sum"], ["logits"], to=TensorProto.FLOAT),
    ]
    shapes = {"image": [1, 16, 12, 12], "logits": [1, 8, 12, 12]}
    image, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = helper.make_graph(nodes, "half", [image], [logits], [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    batch = np.random.default_rng(1).standard_normal((1, 16, 12, 12)).astype(np.float32)
    kernel = torch.from_numpy(weight.astype(np.float32))
    wanted = torch.nn.functional.conv2d(torch.from_numpy(batch), kernel, padding=1).numpy()
    with BACKEND.open(Model(model.SerializeToString(), "fp16")) as session:
        found, options = session.run(batch), session.info.options
    assert options["precision"] == "fp16 as fp32"
    assert options["kernels"] == "f32 1"
    # Input and sum are rounded to 11 bits of significand, if at all.
    assert np.abs(found - wanted).max() <= 2**-9 * np.abs(wanted).max()


def test_onnxruntime_gives_the_same_on_the_quantised_graph():
    from deploy.backends.onnxruntime import create_session

    data, weight, scales = quantised_model()
    image = np.random.default_rng(1).standard_normal((1, 16, 12, 12)).astype(np.float32)
    found = create_session(data, device="cpu").run(None, {"image": image})[0]
    wanted = quantised_reference(image, weight, scales)
    assert np.abs(found - wanted).max() <= 1.01 * SCALE
    assert (np.abs(found - wanted) < 1e-4).mean() > 0.98


def test_without_openvino(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "openvino", None)
    state = BACKEND.probe()
    assert isinstance(state, Unavailable)
    assert state.install == "pip install openvino"
    with pytest.raises(BackendUnavailableError, match="Pip install openvino"):
        BACKEND.open(model)


def test_a_plug_in_that_does_not_load_is_told(monkeypatch):
    def broken():
        raise RuntimeError("cannot load libopenvino_intel_cpu_plugin.so")

    monkeypatch.setattr(openvino, "Core", broken)
    assert "libopenvino_intel_cpu_plugin.so" in BACKEND.probe().reason
    monkeypatch.setattr(openvino, "Core", lambda: SimpleNamespace(available_devices=["NPU"]))
    assert "CPU plug-in" in BACKEND.probe().reason
