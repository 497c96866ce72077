"""A session runs where it says it runs, or it is refused; what is missing is named with the line that brings it."""

from __future__ import annotations

import importlib.metadata
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

from deploy.backends import BACKENDS, Available, Unavailable
from deploy.backends import onnxruntime as ort
from deploy.backends.onnxruntime import BACKEND, create_session, installed
from deploy.deployable import Deployable
from deploy.doctor import diagnose
from deploy.segmenter import load
from deploy.verify import verify
from searchkit.errors import BackendUnavailableError
from searchkit.sizes import Size

SIZE = Size(64, 96)


@pytest.fixture(scope="module")
def model(tiny_network):
    made = Deployable(tiny_network(), SIZE, "raw")
    assert verify(made, made.onnx).passed
    return made


def unavailable():
    return {backend.name for backend in diagnose().backends if not backend.available}


@pytest.fixture
def missing(monkeypatch):
    """`missing("torch")`: from here on the module cannot be imported."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


def test_the_session_is_on_the_cpu_and_nowhere_else(model):
    session = create_session(model.onnx, device="cpu")
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_fall_back_is_an_error(model, monkeypatch):
    """ONNX Runtime lists CUDA where its library cannot be loaded, and then runs on the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["CPUExecutionProvider"])
    for attempt in (lambda: create_session(model.onnx, device="cuda"), lambda: BACKEND.open(model, device="cuda")):
        with pytest.raises(BackendUnavailableError, match="fell back to another provider") as caught:
            attempt()
        assert "got 'CPUExecutionProvider'; allowed: CUDAExecutionProvider" in str(caught.value)
        assert caught.value.exit_code == 7


@pytest.mark.parametrize(("optimise", "level"), [(True, "ORT_ENABLE_ALL"), (False, "ORT_DISABLE_ALL")])
def test_the_optimiser_can_be_switched_off(model, optimise, level):
    options = create_session(model.onnx, device="cpu", optimise=optimise).get_session_options()
    assert options.graph_optimization_level == getattr(onnxruntime.GraphOptimizationLevel, level)


def test_threads_reach_the_session(model):
    assert create_session(model.onnx, device="cpu", threads=3).get_session_options().intra_op_num_threads == 3
    with BACKEND.open(model, threads=3) as session:
        assert session.info.options["threads"] == "3"


def test_both_distributions_hide_each_other(monkeypatch, model):
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: SimpleNamespace(version="1"))
    assert installed() == ["onnxruntime", "onnxruntime-gpu"]
    state = BACKEND.probe()
    assert isinstance(state, Unavailable)
    assert "both installed" in state.reason
    assert state.install.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")
    with pytest.raises(BackendUnavailableError, match=r"Pip uninstall -y onnxruntime onnxruntime-gpu, then"):
        BACKEND.open(model)
    assert any("uninstall both" in problem for problem in diagnose().problems)


def test_one_distribution_is_installed():
    assert installed() in (["onnxruntime"], ["onnxruntime-gpu"])


def test_without_onnx_runtime(missing, model, tmp_path):
    before = unavailable()
    missing("onnxruntime")
    state = BACKEND.probe()
    assert isinstance(state, Unavailable)
    assert "pip install onnxruntime" in state.install
    for attempt in (
        lambda: BACKEND.open(model),
        lambda: create_session(model.onnx, device="cpu"),
        lambda: verify(model, model.onnx),
    ):
        with pytest.raises(BackendUnavailableError, match=r"[Pp]ip install onnxruntime") as caught:
            attempt()
        assert caught.value.exit_code == 7
    assert unavailable() - before == {"onnxruntime"}


def test_a_bundle_without_onnx_runtime(missing, model, tmp_path):
    from deploy.export import export

    export(model, tmp_path / "bundle")
    missing("onnxruntime")
    with pytest.raises(BackendUnavailableError, match="Pip install onnxruntime"):
        load(tmp_path / "bundle")


def test_without_pytorch(missing):
    before = unavailable()
    missing("torch")
    for name in ("pytorch", "aoti"):
        state = BACKENDS.load(name).probe()
        assert isinstance(state, Unavailable)
        assert state.install == "pip install torch"
    assert diagnose().system["gpu"] == "unknown without PyTorch"
    assert unavailable() - before == {"pytorch", "aoti"}


def test_pytorch_runs_a_copy(model):
    kept = {name: value.clone() for name, value in model.module.state_dict().items()}
    with BACKENDS.load("pytorch").open(model) as session:
        session._module.head.conv.weight.data.zero_()
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, kept[name])


def test_an_output_is_not_overwritten_by_the_next_run(model):
    batches = np.random.default_rng(0).standard_normal((2, 1, 3, *SIZE), dtype=np.float32)
    for name in ("onnxruntime", "openvino", "pytorch"):
        with BACKENDS.load(name).open(model) as session:
            first = session.run(batches[0])
            kept = first.copy()
            second = session.run(batches[1])
            assert np.array_equal(first, kept), name
            assert not np.array_equal(first, second), name


def test_the_doctor_finds_this_environment_healthy():
    diagnosis = diagnose()
    assert diagnosis.problems == ()
    assert [b.name for b in diagnosis.backends] == BACKENDS.names()
    packages = {package.name: package for package in diagnosis.packages}
    assert packages["torch"].version == importlib.metadata.version("torch")
    assert packages["pillow"].version
    assert diagnosis.to_tree()["schema"] == 1
    for package in diagnosis.packages:
        assert package.install.startswith("pip install ")


def test_the_doctor_names_what_is_missing(monkeypatch):
    version = importlib.metadata.version

    def without_onnx(name):
        if name == "onnx":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_onnx)
    monkeypatch.setattr("deploy.doctor._importable", lambda _: False)
    assert "onnx is missing: pip install onnx" in diagnose().problems


def test_the_doctor_says_so_where_nothing_can_run(monkeypatch):
    for name in BACKENDS.names():
        backend = BACKENDS.load(name)
        monkeypatch.setattr(type(backend), "probe", lambda _: Unavailable("it is broken", "pip install it"))
    diagnosis = diagnose()
    assert "no backend can run here" in diagnosis.problems
    assert all(not b.available and b.reason == "it is broken" for b in diagnosis.backends)


def test_require_names_the_devices():
    state, device = ort.BACKEND.require(None)
    assert isinstance(state, Available)
    assert device == state.devices[0]
    with pytest.raises(BackendUnavailableError, match=r"--device: .*got 'tpu'; allowed: .*cpu"):
        ort.BACKEND.require("tpu")
