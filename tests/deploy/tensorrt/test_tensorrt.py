"""TensorRT 10.4, 10.16 and 11.4 with the interfaces that were recorded of each; GPU and library are fakes."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deploy.backends import BACKENDS, Available, Unavailable, _cuda
from deploy.backends._tensorrt_identity import same_version
from deploy.backends.tensorrt import BuildOptions
from deploy.engine_header import read_header
from searchkit.errors import BackendUnavailableError, DamagedArtifactError, UsageError, VerificationError

TRT = BACKENDS.load("tensorrt")
VERSIONS = ["10.4", "10.16", "11.4"]
GPUS = {"10.4": {"name": "Tesla V100-SXM2-16GB", "capability": (7, 0), "version": 12060}}


@pytest.fixture(params=VERSIONS)
def running(request, fake_tensorrt, fake_gpu):
    """Each version on the GPU that it is the choice for."""
    return SimpleNamespace(
        name=request.param, trt=fake_tensorrt(request.param), gpu=fake_gpu(**GPUS.get(request.param, {}))
    )


@pytest.fixture
def turing(fake_tensorrt, fake_gpu):
    return SimpleNamespace(trt=fake_tensorrt("11.4"), gpu=fake_gpu())


def target(running):
    return "sm70" if running.name == "10.4" else "sm75"


def with_precision(model, precision):
    return SimpleNamespace(onnx=model.onnx, precision=precision)


@pytest.mark.parametrize("name", VERSIONS)
def test_the_recorded_interfaces_say_where_they_come_from(name, recorded):
    surface = recorded(name)
    assert surface["version"].startswith(name)
    assert "introspection" in surface["origin"]
    assert "behaviour was not seen" in surface["origin"]


def test_the_recorded_interfaces_differ_as_is_known(recorded):
    old, new = recorded("10.4"), recorded("11.4")
    assert "EXPLICIT_BATCH" in old["enums"]["NetworkDefinitionCreationFlag"]
    assert "EXPLICIT_BATCH" not in new["enums"]["NetworkDefinitionCreationFlag"]
    assert {"FP16", "INT8"} <= set(old["enums"]["BuilderFlag"])
    assert not {"FP16", "INT8"} & set(new["enums"]["BuilderFlag"])
    assert "platform_has_fast_fp16" in old["classes"]["Builder"]
    assert "platform_has_fast_fp16" not in new["classes"]["Builder"]
    assert "SAME_COMPUTE_CAPABILITY" not in old["enums"]["HardwareCompatibilityLevel"]


def test_it_builds_and_runs_for_the_gpu_that_is_here(running):
    state, building = TRT.probe(), TRT.probe_build()
    assert isinstance(state, Available)
    assert state.devices == ("cuda",)
    assert building == Available(state.version, (target(running),))


def test_a_session_gives_pytorchs_labels(running, model, batch):
    with torch.inference_mode():
        wanted = model.module(torch.from_numpy(batch)).numpy()
    with TRT.open(model) as session:
        assert np.mean(session.run(batch) == wanted) > 0.999
        info = session.info
    assert (info.backend, info.provider, info.device) == ("tensorrt", "TensorRT", "cuda")
    assert info.options["gpu"] == running.gpu.name
    assert running.gpu.is_clean


def test_what_an_engine_is_tied_to_is_kept(running, model):
    engine = TRT.build(model, [target(running)])
    assert engine.options == {
        "onnx_sha256": model.onnx_sha256,
        "tensorrt": running.trt.__version__,
        "gpu": running.gpu.name,
        "compute_capability": target(running),
        "driver": "12.6" if running.name == "10.4" else "13.0",
        "hardware_compatibility": "none",
        "flags": "strongly-typed tf32=off workspace=all",
    }
    assert engine.targets == (target(running),)
    header = read_header(engine.data)
    assert header.runtime == "tensorrt"
    assert same_version(header.version, engine.version)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_types_in_the_model_are_what_is_computed(precision, running, model):
    """No flag that would allow FP16 for what the model keeps in FP32, in any version."""
    TRT.build(with_precision(model, precision), [target(running)])
    world = running.trt.world
    (flags,) = (a["flags"] for a in world.arguments("Builder.create_network"))
    # The bit differs by version.
    assert flags == 1 << running.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert flags == (1 if running.name == "11.4" else 2)
    assert "IBuilderConfig.set_flag" not in world.names()
    assert [a["flag"].name for a in world.arguments("IBuilderConfig.clear_flag")] == ["TF32"]
    assert "IBuilderConfig.set_memory_pool_limit" not in world.names()
    assert "IBuilderConfig.hardware_compatibility_level" not in world.names()


def test_a_workspace_limit_reaches_the_builder(running, model):
    engine = TRT.build(model, [target(running)], options=BuildOptions(workspace_bytes=1 << 30))
    (limit,) = running.trt.world.arguments("IBuilderConfig.set_memory_pool_limit")
    assert (limit["pool"].name, limit["pool_size"]) == ("WORKSPACE", 1 << 30)
    assert engine.options["flags"].endswith("workspace=1073741824")


def test_times_of_kernels_are_kept_by_version_and_gpu(running, model, tmp_path):
    options = BuildOptions(timing_cache=tmp_path / "times")
    for _ in range(2):
        TRT.build(model, [target(running)], options=options)
    given = [a["serialized_timing_cache"] for a in running.trt.world.arguments("IBuilderConfig.create_timing_cache")]
    assert given == [b"", b"+"]
    (file,) = (tmp_path / "times").iterdir()
    assert file.name.startswith(running.trt.__version__)
    assert target(running) in file.name
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    TRT.build(model, [target(running)], options=options)
    assert running.trt.world.arguments("IBuilderConfig.create_timing_cache")[-1]["serialized_timing_cache"] == b""


def test_times_that_do_not_fit_are_started_afresh(running, model, tmp_path):
    options = BuildOptions(timing_cache=tmp_path)
    TRT.build(model, [target(running)], options=options)
    running.trt.world.timing_fits = False
    TRT.build(model, [target(running)], options=options)
    given = [a["serialized_timing_cache"] for a in running.trt.world.arguments("IBuilderConfig.create_timing_cache")]
    assert given == [b"", b"+", b""]


@pytest.mark.parametrize(
    ("name", "gpu", "hardware", "level"),
    [
        ("11.4", (7, 5), "same", "SAME_COMPUTE_CAPABILITY"),
        ("11.4", (8, 6), "ampere+", "AMPERE_PLUS"),
        ("10.4", (8, 6), "ampere+", "AMPERE_PLUS"),
        ("10.4", (8, 6), "same", None),
        ("11.4", (7, 5), "ampere+", None),
    ],
)
def test_hardware_compatibility(name, gpu, hardware, level, fake_tensorrt, fake_gpu, model):
    trt, _ = fake_tensorrt(name), fake_gpu(capability=gpu)
    sm = f"sm{gpu[0]}{gpu[1]}"
    if level is None:
        with pytest.raises(UsageError, match="no such hardware compatibility"):
            TRT.build(model, [sm], options=BuildOptions(hardware=hardware))
        return
    engine = TRT.build(model, [sm], options=BuildOptions(hardware=hardware))
    (chosen,) = trt.world.arguments("IBuilderConfig.hardware_compatibility_level")
    assert chosen.name == level
    assert engine.options["hardware_compatibility"] == hardware


def test_an_unknown_hardware_compatibility():
    with pytest.raises(UsageError, match="unknown hardware compatibility"):
        BuildOptions(hardware="all")


@pytest.mark.parametrize("targets", [[], ["sm86"], ["sm75", "sm86"], ["v100"]])
def test_it_builds_for_no_other_gpu(targets, turing, model):
    with pytest.raises(UsageError, match="for the GPU of this machine only") as caught:
        TRT.build(model, targets)
    assert "allowed: sm75" in str(caught.value)
    assert "tensorrt-rtx" in str(caught.value)


def test_the_parsers_words_are_kept(running, model):
    running.trt.world.parser_errors = [
        ("Resize", "up", "Antialiasing is not supported\nCUDA driver version is insufficient for CUDA runtime version"),
        ("Foo", "", "Plugin not found"),
    ]
    with pytest.raises(VerificationError) as caught:
        TRT.build(model, [target(running)])
    words = "TensorRT does not read the model: Resize 'up': Antialiasing is not supported; Foo: Plugin not found"
    assert words in str(caught.value)
    assert "driver" not in str(caught.value)


def test_the_builders_words_are_kept(running, model):
    running.trt.world.refusal = "no implementation for node conv1"
    with pytest.raises(VerificationError, match="cannot build the model: no implementation for node conv1"):
        TRT.build(model, [target(running)])


def test_an_interrupt_cancels_the_build(running, model, monkeypatch):
    """The signal arrives when the build has begun; the fake asks whether to go on after that."""
    original = running.trt.IProgressMonitor

    class Interrupting(original):
        def __init__(self):
            original.__init__(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(running.trt, "IProgressMonitor", Interrupting)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            TRT.build(model, [target(running)])
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize("field", ["onnx_sha256", "tensorrt", "gpu", "compute_capability", "driver"])
def test_each_field_of_the_identity_must_agree(field, running, model, with_engine):
    engine = TRT.build(model, [target(running)])
    with TRT.open(with_engine(engine.data, engine.options)):
        pass
    running.trt.world.calls.clear()
    with pytest.raises(BackendUnavailableError, match=f"engine: {field}: .*got 'another'") as caught:
        TRT.open(with_engine(engine.data, engine.options | {field: "another"}))
    assert f"searchkit export NETWORK --engine tensorrt --target {target(running)}" in str(caught.value)
    assert "Runtime.__init__" not in running.trt.world.names()
    assert running.gpu.is_clean


@pytest.mark.parametrize(
    ("hardware", "here", "opens"),
    [
        ("none", {"name": "GeForce RTX 3080", "capability": (8, 6)}, False),
        ("same", {"name": "GeForce RTX 3080", "capability": (8, 6)}, True),
        ("same", {"name": "GeForce RTX 4090", "capability": (8, 9)}, False),
        ("ampere+", {"name": "GeForce RTX 4090", "capability": (8, 9)}, True),
        ("ampere+", {"name": "GeForce RTX 2080 Ti", "capability": (7, 5)}, False),
    ],
)
def test_a_hardware_compatible_engine_runs_on_more(hardware, here, opens, fake_tensorrt, fake_gpu, model, with_engine):
    trt, _ = fake_tensorrt("11.4"), fake_gpu(name="GeForce RTX 3090", capability=(8, 6))
    engine = TRT.build(model, ["sm86"], options=BuildOptions(hardware=hardware))
    fake_gpu(**here)
    moved = with_engine(engine.data, engine.options)
    if opens:
        TRT.open(moved).close()
        return
    trt.world.calls.clear()
    with pytest.raises(BackendUnavailableError, match=r"engine: (gpu|compute_capability)"):
        TRT.open(moved)
    assert "Runtime.__init__" not in trt.world.names()


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"version": "10.16.1.11"}, BackendUnavailableError, "got '10.16.1.11'; allowed: 11.4.0.106"),
        ({"version": "11.4.0.105"}, BackendUnavailableError, "another version"),
        ({"version": "11.4.0.106", "tag": b"vtrt"}, DamagedArtifactError, "not an engine of this backend"),
        ({"version": "11.4.0.106", "tag": b"\x00\x01\x02\x03"}, DamagedArtifactError, "not an engine"),
    ],
)
def test_a_foreign_engine_never_reaches_the_library(changes, kind, words, turing, model, engine_of, with_engine):
    with pytest.raises(kind, match=words) as caught:
        TRT.open(with_engine(engine_of(model.onnx, **changes)))
    assert "searchkit export NETWORK --engine tensorrt --target sm75" in str(caught.value)
    assert "Runtime.__init__" not in turing.trt.world.names()


@pytest.mark.parametrize("data", [b"", b"f", b"ftrt", b"ftrt" + bytes(20), b"engine", b"\x7fELF" + bytes(60)])
def test_what_is_no_engine_never_reaches_the_library(data, turing, with_engine):
    with pytest.raises(DamagedArtifactError):
        TRT.open(with_engine(data))
    assert "Runtime.__init__" not in turing.trt.world.names()


def test_an_engine_of_ultralytics_is_not_opened(turing, model, engine_of, with_engine):
    metadata = b'{"imgsz": [512, 1024]}'
    wrapped = len(metadata).to_bytes(4, "little") + metadata + engine_of(model.onnx, version="11.4.0.106")
    with pytest.raises(DamagedArtifactError, match="got 'ultralytics-wrapped'"):
        TRT.open(with_engine(wrapped))


def test_an_engine_that_does_not_open(running, model):
    running.trt.world.deserialises = False
    with pytest.raises(BackendUnavailableError, match="cannot open the engine: the plan is of no use here"):
        TRT.open(model)
    assert running.gpu.is_clean


def test_zeros_are_refused_at_opening(running, model):
    running.trt.world.output = np.zeros_like
    with pytest.raises(VerificationError, match="answers with zeros"):
        TRT.open(model)
    assert running.gpu.is_clean


def test_volta_is_not_served_by_newer_versions(fake_tensorrt, fake_gpu, model):
    fake_tensorrt("11.4")
    fake_gpu(**GPUS["10.4"])
    state = TRT.probe()
    assert isinstance(state, Unavailable)
    assert state.install == "pip install tensorrt-cu12==10.4.0"
    with pytest.raises(BackendUnavailableError, match="does not serve Tesla V100"):
        TRT.build(model, ["sm70"])


def test_an_older_library_is_not_used(turing):
    turing.trt.__version__ = "8.6.1"
    state = TRT.probe()
    assert isinstance(state, Unavailable)
    assert "older than 10.4" in state.reason


def test_without_the_library(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    state = TRT.probe()
    assert isinstance(state, Unavailable)
    assert state.install.startswith("pip install tensorrt cuda-core cuda-bindings")
    assert "searchkit doctor --target GPU" in state.install
    assert TRT.probe_build() == state
    for attempt in (lambda: TRT.build(model, ["sm75"]), lambda: TRT.open(model)):
        with pytest.raises(BackendUnavailableError):
            attempt()


def test_without_a_driver(fake_tensorrt, fake_gpu):
    fake_tensorrt("11.4")
    fake_gpu(version=None)
    state = TRT.probe_build()
    assert isinstance(state, Unavailable)
    assert state.reason.startswith("no CUDA driver")


# Memory, by both libraries.


@pytest.mark.parametrize("library", ["cuda-core", "pycuda"])
def test_a_session_by_either_library(library, fake_tensorrt, fake_gpu, model, batch):
    fake_tensorrt("11.4")
    gpu = fake_gpu(library=library)
    with TRT.open(model) as session:
        first = session.run(batch)
        kept = first.copy()
        second = session.run(255 - batch)
        assert np.array_equal(first, kept)
        assert not np.array_equal(first, second)
        assert session.info.options["memory"] == library
        assert session.info.options["driver"] == "13.0"
    if library == "cuda-core":
        assert gpu.is_clean
    session.close()


def test_pycuda_leaves_the_primary_context_to_others(fake_gpu):
    gpu = fake_gpu(library="pycuda")
    stream = _cuda.open_stream(_cuda.require_gpu())
    assert gpu.contexts == 1
    address = stream.allocate(16)
    stream.upload(address, np.arange(4, dtype=np.float32))
    found = np.empty(4, np.float32)
    stream.download(address, found)
    stream.synchronize()
    assert np.array_equal(found, np.arange(4))
    with stream.current():
        assert sys.modules["pycuda.driver"].Context.depth == 1
    assert sys.modules["pycuda.driver"].Context.depth == 0
    stream.close()
    stream.close()
    assert (gpu.contexts, gpu.memory) == (0, {})


def test_without_either_library(fake_gpu):
    fake_gpu(library="none")
    found = _cuda.find_gpu()
    assert isinstance(found, str)
    assert "cuda-core cannot be imported" in found
    assert "pycuda cannot be imported" in found
    with pytest.raises(BackendUnavailableError, match="cuda-core cannot be imported"):
        _cuda.require_gpu()


def test_the_installed_cuda_core_has_the_names_that_are_used():
    import cuda.core
    from cuda.bindings import driver

    assert callable(driver.cuDriverGetVersion)
    names = {
        cuda.core.Device: ["set_current", "create_stream", "allocate", "compute_capability", "name"],
        cuda.core.Stream: ["handle", "sync", "close"],
        cuda.core.Buffer: ["handle", "copy_to", "close"],
        cuda.core.LegacyPinnedMemoryResource: ["allocate"],
    }
    for owner, members in names.items():
        for member in members:
            assert hasattr(owner, member), f"{owner.__name__}.{member}"
    assert "*, stream" in cuda.core.Device.allocate.__doc__
    assert "*, stream" in cuda.core.Buffer.copy_to.__doc__


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.4.0.26", "10.4.0", True),
        ("10.14.1.48", "10.14.1.48.post1", True),
        ("10.4.0.26", "10.4.1", False),
        ("11.4.0.106", "11.4.0.107", False),
        ("11.4", "11.4.0.106", False),
        ("", "11.4.0", False),
    ],
)
def test_versions_agree_as_far_as_both_go(one, other, same):
    assert same_version(one, other) is same
