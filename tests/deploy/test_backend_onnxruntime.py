"""ONNX Runtime's providers on a GPU, against a stand-in that takes the documented options and refuses all others."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as native

from deploy.backends import _onnxruntime_providers as providers
from deploy.backends.onnxruntime import BACKEND, create_session
from searchkit.errors import BackendUnavailableError

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
# Of ONNX Runtime 1.31.1: the options that its two providers take, and how they spell yes and no.
OPTIONS = {
    CPU: {},
    CUDA: {"use_tf32": {"0", "1"}, "enable_cuda_graph": {"0", "1"}},
    TENSORRT: {
        "trt_fp16_enable": {"True", "False"},
        "trt_int8_enable": {"True", "False"},
        "trt_engine_cache_enable": {"True", "False"},
        "trt_timing_cache_enable": {"True", "False"},
        "trt_engine_cache_path": None,
        "trt_timing_cache_path": None,
    },
}


class FakeSession:
    """As `onnxruntime.InferenceSession` on a machine with a GPU, as far as it is used."""

    # Which providers come up, and which of them takes how many nodes.
    comes_up: tuple[str, ...] | Exception | None = None
    nodes: dict[str, int] | None = None
    made: list = []  # noqa: RUF012

    def __init__(self, model, options, *, providers, enable_fallback):
        assert isinstance(model, bytes)
        assert enable_fallback == 0, "with its own fall-back on it would change the provider in silence"
        for name, settings in providers:
            for key, value in settings.items():
                assert key in OPTIONS[name], f"{name} has no option {key}"
                assert OPTIONS[name][key] is None or value in OPTIONS[name][key], f"{key} is not {value}"
        if isinstance(self.comes_up, Exception):
            raise self.comes_up
        self.options, self.asked = options, dict(providers)
        self.providers = [*(self.comes_up or (name for name, _ in providers)), CPU]
        self.bound, self.runs = SimpleNamespace(input=None, output=None, changed=[]), 0
        FakeSession.made.append(self)

    def get_providers(self):
        return self.providers

    def get_provider_graph_assignment_info(self):
        assert self.options.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"
        nodes = self.nodes if self.nodes is not None else {self.providers[0]: 3}
        return [SimpleNamespace(ep_name=name, get_nodes=lambda n=n: [None] * n) for name, n in nodes.items()]

    def get_inputs(self):
        return [SimpleNamespace(name="image")]

    def get_outputs(self):
        return [SimpleNamespace(name="logits", type="tensor(float)", shape=[1, 2, 4, 4])]

    def io_binding(self):
        return FakeBinding(self)

    def run_with_iobinding(self, binding):
        assert binding.session is self
        self.runs += 1


class FakeBinding:
    def __init__(self, session):
        self.session = session

    def bind_output(self, name, device):
        assert (name, device) == ("logits", "cuda")
        self.session.bound.output = device

    def bind_ortvalue_input(self, name, value):
        assert name == "image"
        self.session.bound.changed.append("input")
        self.session.bound.input = value

    def bind_ortvalue_output(self, name, value):
        assert name == "logits"
        self.session.bound.output = value


class FakeValue:
    def __init__(self, array, device):
        self.array, self.device = array, device

    @classmethod
    def ortvalue_from_numpy(cls, array, device, index):
        assert (device, index) == ("cuda", 0)
        return cls(array.copy(), device)

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape, dtype, device, index):
        assert index == 0
        return cls(np.zeros(shape, dtype), device)

    def update_inplace(self, array):
        assert array.shape == self.array.shape
        self.array[...] = array


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A machine with a GPU and both providers; returns the class of its sessions."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    monkeypatch.setattr(onnxruntime, "OrtValue", FakeValue)
    for name in ("comes_up", "nodes"):
        monkeypatch.setattr(FakeSession, name, None)
    monkeypatch.setattr(FakeSession, "made", [])
    return FakeSession


class Model:
    """As much of a model as this backend asks for."""

    precision = "fp32"
    onnx = b"onnx"

    def example(self):
        import torch

        return torch.zeros(1, 3, 4, 4)


def test_the_cuda_provider_computes_in_float32(gpu):
    with BACKEND.open(Model(), device="cuda") as session:
        info = session.info
    assert gpu.made[0].asked == {CUDA: {"use_tf32": "0"}}
    assert (info.provider, info.device) == (CUDA, "cuda")
    assert info.options["tf32"] == "off"
    assert info.options["nodes"] == f"{CUDA} 3"
    assert "threads" not in info.options


def test_the_gpu_is_the_default_where_there_is_one(gpu):
    with BACKEND.open(Model()) as session:
        assert session.info.device == "cuda"


def test_tensorrt_keeps_the_types_of_the_graph_and_its_engines(gpu, tmp_path):
    with BACKEND.open(Model(), mode="tensorrt") as session:
        info = session.info
    asked = gpu.made[0].asked
    assert list(asked) == [TENSORRT, CUDA], "what TensorRT cannot take stays on the GPU"
    # With either flag on, the provider would make a weakly typed network and choose the types itself.
    assert asked[TENSORRT]["trt_fp16_enable"] == asked[TENSORRT]["trt_int8_enable"] == "False"
    folder = tmp_path / "cache" / "searchkit" / "onnxruntime-tensorrt"
    assert asked[TENSORRT]["trt_engine_cache_path"] == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (info.provider, info.options["mode"]) == (TENSORRT, "tensorrt")
    assert info.options["engine_cache"] == "on"


def test_without_a_cache_folder_of_its_own_it_lies_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert providers.engine_cache() == tmp_path / ".cache" / "searchkit" / "onnxruntime-tensorrt"
    assert os.path.isdir(providers.engine_cache())


@pytest.mark.parametrize(
    ("mode", "comes_up", "wanted"),
    [("default", (CPU,), CUDA), ("tensorrt", (CUDA,), TENSORRT), ("tensorrt", (CPU,), TENSORRT)],
)
def test_a_fall_back_is_an_error(gpu, mode, comes_up, wanted):
    gpu.comes_up = comes_up
    with pytest.raises(BackendUnavailableError, match="fell back to another provider") as caught:
        BACKEND.open(Model(), device="cuda", mode=mode)
    assert f"got '{comes_up[0]}'; allowed: {wanted}" in str(caught.value)
    assert ("libnvinfer" in str(caught.value)) == (mode == "tensorrt")


@pytest.mark.parametrize(("mode", "wanted"), [("default", CUDA), ("tensorrt", TENSORRT)])
def test_a_provider_that_takes_no_node_is_an_error(gpu, mode, wanted):
    gpu.nodes = {CPU: 7, CUDA: 0}
    with pytest.raises(BackendUnavailableError, match="the whole model on another provider") as caught:
        BACKEND.open(Model(), device="cuda", mode=mode)
    assert "CPUExecutionProvider 7" in str(caught.value)
    assert caught.value.allowed == wanted


def test_nodes_that_other_providers_take_are_told(gpu):
    gpu.nodes = {CUDA: 2, TENSORRT: 40}
    with BACKEND.open(Model(), mode="tensorrt") as session:
        assert session.info.options["nodes"] == f"{TENSORRT} 40, {CUDA} 2"


def test_a_version_that_does_not_record_nodes_runs_all_the_same(gpu, monkeypatch):
    monkeypatch.delattr(FakeSession, "get_provider_graph_assignment_info")
    with BACKEND.open(Model(), device="cuda") as session:
        assert "nodes" not in session.info.options


@pytest.mark.parametrize(
    "error", [native.EPFail("libnvinfer.so.10: not found\nstack"), RuntimeError("no driver\nmore")]
)
def test_a_provider_that_cannot_start_is_named(gpu, error):
    gpu.comes_up = error
    with pytest.raises(BackendUnavailableError) as caught:
        BACKEND.open(Model(), mode="tensorrt")
    assert f"cannot use {TENSORRT}: {str(error).splitlines()[0]}. Check" in str(caught.value)


def test_a_cuda_graph_keeps_its_memory(gpu):
    with BACKEND.open(Model(), mode="cuda_graph") as session:
        made = gpu.made[0]
        assert made.asked == {CUDA: {"use_tf32": "0", "enable_cuda_graph": "1"}}
        memory = made.bound.input
        assert made.bound.output.array.shape == (1, 2, 4, 4)
        session.load(np.ones((1, 3, 4, 4), np.float32))
        session.execute()
        assert made.bound.input is memory
        assert memory.array.min() == 1
        assert made.bound.changed == ["input"], "bound once, then written to"
        assert made.runs == 1
        assert session.info.options["cuda_graph"] == "on"


def test_a_build_without_tensorrt_is_named(gpu, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with pytest.raises(BackendUnavailableError, match="without its TensorRT provider"):
        BACKEND.open(Model(), mode="tensorrt")


@pytest.mark.parametrize("mode", ["tensorrt", "cuda_graph"])
def test_modes_of_the_gpu_are_refused_on_a_cpu_before_anything_is_exported(mode):
    class Unexported(Model):
        @property
        def onnx(self):
            raise AssertionError("exported for nothing")

    with pytest.raises(BackendUnavailableError, match=f"the mode {mode} of onnxruntime needs a CUDA device"):
        BACKEND.open(Unexported(), device="cpu", mode=mode)


def test_the_stand_in_knows_what_the_installed_session_has():
    for name in ("get_providers", "get_provider_graph_assignment_info", "get_inputs", "get_outputs", "io_binding"):
        assert hasattr(FakeSession, name)
        assert hasattr(onnxruntime.InferenceSession, name)
    for name in ("bind_output", "bind_ortvalue_input", "bind_ortvalue_output"):
        assert hasattr(onnxruntime.IOBinding, name)
    for name in ("ortvalue_from_numpy", "ortvalue_from_shape_and_type", "update_inplace"):
        assert hasattr(onnxruntime.OrtValue, name)


def half_model():
    """A 1x1 convolution in float16 between casts, as `onnx` bytes, and its weights."""
    weight = np.random.default_rng(0).standard_normal((2, 3, 1, 1)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["half", "weight"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, 4, 4])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString(), weight


def test_float16_models_run_on_a_cpu():
    data, weight = half_model()
    image = np.random.default_rng(1).standard_normal((1, 3, 4, 4)).astype(np.float32)
    wanted = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0].astype(np.float32), image)
    model = Model()
    model.precision, model.onnx = "fp16", data
    with BACKEND.open(model) as session:
        found = session.run(image)
        assert session.info.options["precision"] == "fp16"
    # 11 bits of significand in image, weights and sum of three products.
    assert np.abs(found - wanted).max() <= 4 * 2**-11 * np.abs(weight).max() * np.abs(image).max() * 3


def test_a_session_that_fails_while_running_does_not_change_its_provider(gpu):
    """`enable_fallback=0` is what keeps it from doing so: the stand-in asserts it, the real one keeps it."""
    session = create_session(b"onnx", device="cuda")
    assert session is gpu.made[0]
    assert onnxruntime.capi.onnxruntime_inference_collection.Session(enable_fallback=False)._enable_fallback is False
