"""TensorRT-RTX engines are built here for real; they run on a GPU that is a fake."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from deploy.backends import BACKENDS, Available, Unavailable, _tensorrt_builder
from deploy.backends._tensorrt_cache import cache_folder
from deploy.engine_header import read_header
from searchkit.errors import BackendUnavailableError, DamagedArtifactError, UsageError, VerificationError

RTX = BACKENDS.load("tensorrt-rtx")
TARGETS = ["sm75", "sm86", "sm89", "sm120"]


def graph(*nodes, x, y, constants=()):
    """A model of one input and one output, given as (type, shape)."""
    values = [helper.make_tensor_value_info(n, *spec) for n, spec in (("x", x), ("y", y))]
    made = helper.make_graph(list(nodes), "g", values[:1], values[1:], list(constants))
    made = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return SimpleNamespace(onnx=made.SerializeToString(), precision="fp32")


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


@pytest.fixture(scope="module")
def engine(model):
    return RTX.build(model, TARGETS)


def test_the_recorded_interface_is_the_installed_one(api_surface, recorded):
    import tensorrt_rtx

    installed, kept = api_surface.surface(tensorrt_rtx), recorded("rtx")
    assert kept.pop("origin")
    assert installed.pop("version").startswith("1.7.")
    assert kept.pop("version").startswith("1.7.")
    assert installed == kept


def test_building_is_possible_here():
    state = RTX.probe_build()
    assert isinstance(state, Available)
    assert set(state.devices) >= {"sm75", "sm80", "sm86", "sm89", "sm120"}
    assert "sm90" not in state.devices


def test_running_needs_a_driver(fake_gpu, model):
    fake_gpu(version=None)
    state = RTX.probe()
    assert isinstance(state, Unavailable)
    assert state.reason.startswith("no CUDA driver")
    assert "pip install tensorrt-rtx cuda-core cuda-bindings" in state.install
    with pytest.raises(BackendUnavailableError, match="no CUDA driver"):
        RTX.open(model)


def test_one_file_for_four_gpus(engine, model):
    header = read_header(engine.data)
    assert (header.runtime, header.version) == ("tensorrt-rtx", engine.version)
    assert header.targets == engine.targets == tuple(TARGETS)
    assert header.damage is None
    assert engine.options["onnx_sha256"] == model.onnx_sha256
    assert (engine.backend, engine.suffix) == ("tensorrt-rtx", ".engine")
    assert engine.seconds > 0


def test_the_same_bytes_twice_and_in_any_order(engine, model):
    assert RTX.build(model, TARGETS).data == engine.data
    assert RTX.build(model, ["sm120", "sm75", "sm89", "sm86", "sm75"]).data == engine.data


@pytest.mark.parametrize("target", ["sm75", "sm80", "sm86", "sm89", "sm120"])
def test_each_gpu_alone(target, model):
    made = RTX.build(model, [target])
    assert made.targets == read_header(made.data).targets == (target,)


def test_the_default_of_the_library_leaves_turing_out_and_ours_has_no_default(model):
    with pytest.raises(UsageError, match="no target to build for") as caught:
        RTX.build(model, [])
    assert "sm75" in str(caught.value)


@pytest.mark.parametrize("target", ["sm90", "SM75", "current", "none", "v100", ""])
def test_an_unknown_target(target, model):
    with pytest.raises(UsageError, match="unknown target of TensorRT-RTX"):
        RTX.build(model, ["sm75", target])


def test_an_unknown_precision(model):
    with pytest.raises(UsageError, match="does not run models of this precision"):
        RTX.build(SimpleNamespace(onnx=model.onnx, precision="fp8"), ["sm89"])


def test_fp32_matrix_products_are_refused_for_turing_alone():
    made = graph(
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
        x=(TensorProto.FLOAT, [4, 8]),
        y=(TensorProto.FLOAT, [4, 8]),
        constants=[constant("w", np.ones((8, 8), np.float32))],
    )
    assert RTX.build(made, ["sm86"]).data
    with pytest.raises(VerificationError, match=r"'product' for Turing .SM75.: FP32 GEMM is not supported") as caught:
        RTX.build(made, ["sm75", "sm86"])
    assert "no engine was built" in str(caught.value).lower()


REFUSED = {
    "antialias": (
        graph(
            helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1),
            x=(TensorProto.FLOAT, [1, 3, 8, 8]),
            y=(TensorProto.FLOAT, [1, 3, 4, 4]),
            constants=[constant("s", np.array([1, 1, 0.5, 0.5], np.float32))],
        ),
        r"Resize: .*Antialiasing is not supported",
    ),
    "uint8": (
        graph(
            helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2], name="layout"),
            helper.make_node("Cast", ["t"], ["y"], to=TensorProto.FLOAT),
            x=(TensorProto.UINT8, [1, 4, 4, 3]),
            y=(TensorProto.FLOAT, [1, 3, 4, 4]),
        ),
        "Transpose 'layout': .*has type UInt8",
    ),
    "zero-point": (
        graph(
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
            x=(TensorProto.FLOAT, [1, 4]),
            y=(TensorProto.FLOAT, [1, 4]),
            constants=[constant("s", np.float32(0.1)), constant("z", np.int8(3))],
        ),
        "Non-zero zero point is not supported",
    ),
    "unknown operator": (
        graph(
            helper.make_node("Frobnicate", ["x"], ["y"]),
            x=(TensorProto.FLOAT, [1, 4]),
            y=(TensorProto.FLOAT, [1, 4]),
        ),
        "Frobnicate: .*Plugin not found",
    ),
    "dynamic": (
        graph(helper.make_node("Relu", ["x"], ["y"]), x=(TensorProto.FLOAT, ["n", 4]), y=(TensorProto.FLOAT, ["n", 4])),
        "no optimization profile has been defined",
    ),
    "bf16": (
        graph(
            helper.make_node("Relu", ["x"], ["y"]),
            x=(TensorProto.BFLOAT16, [1, 4]),
            y=(TensorProto.BFLOAT16, [1, 4]),
        ),
        "HW-specific datatypes",
    ),
    "garbage": (SimpleNamespace(onnx=b"\x00\xff" * 500, precision="fp32"), "must have at least one output"),
    "nothing": (SimpleNamespace(onnx=b"", precision="fp32"), "must have at least one output"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_keeps_the_librarys_words(name):
    made, words = REFUSED[name]
    with pytest.raises(VerificationError, match=words) as caught:
        RTX.build(made, ["sm75"])
    # What it says of the missing GPU is beside the point.
    assert "driver" not in str(caught.value)


def test_a_refusal_is_forgotten_by_the_next_build(model, engine):
    with pytest.raises(VerificationError, match="Frobnicate"):
        RTX.build(REFUSED["unknown operator"][0], ["sm75"])
    with pytest.raises(VerificationError) as caught:
        RTX.build(REFUSED["bf16"][0], ["sm75"])
    assert "Frobnicate" not in str(caught.value)
    assert RTX.build(model, TARGETS).data == engine.data


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_typed_models_build_for_every_target(precision):
    half = np.float16(0.5)
    if precision == "fp16":
        nodes = [
            helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
            helper.make_node("Mul", ["h", "c"], ["m"]),
            helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
        ]
        constants = [constant("c", half)]
    else:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ]
        constants = [constant("s", np.float32(0.1)), constant("z", np.int8(0))]
    shape = (TensorProto.FLOAT, [1, 3, 8, 8])
    made = graph(*nodes, x=shape, y=shape, constants=constants)
    made.precision = precision
    assert RTX.build(made, TARGETS).targets == tuple(TARGETS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_build(number, model, monkeypatch, engine):
    """It arrives inside the library, where an exception would end the process."""
    steps = []
    original = _tensorrt_builder._cancelled_by

    def interrupting(trt, interrupted):
        monitor = original(trt, interrupted)
        step_complete = monitor.step_complete

        def step(phase_name, step):
            steps.append(phase_name)
            if len(steps) == 3:
                os.kill(os.getpid(), number)
            return step_complete(phase_name, step)

        monitor.step_complete = step
        return monitor

    class Stopped(BaseException):
        pass

    def stop(*_):
        raise Stopped

    monkeypatch.setattr(_tensorrt_builder, "_cancelled_by", interrupting)
    previous = signal.signal(number, stop)
    try:
        with pytest.raises(Stopped):
            RTX.build(model, TARGETS)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, previous)
    assert 3 <= len(steps) < 10
    monkeypatch.undo()
    assert RTX.build(model, TARGETS).data == engine.data


def test_tensor_float_32_is_off(fake_tensorrt, model):
    trt = fake_tensorrt("rtx")
    RTX.build(model, ["sm86", "sm75"])
    assert trt.world.arguments("IBuilderConfig.clear_flag") == [{"flag": trt.BuilderFlag.TF32}]
    assert trt.world.arguments("Builder.create_network") == [{"flags": 1}]
    chosen = [a["compute_capability"].name for a in trt.world.arguments("IBuilderConfig.set_compute_capability")]
    assert chosen == ["SM75", "SM86"]
    assert "IBuilderConfig.create_timing_cache" not in trt.world.names()


def test_without_the_library(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    for state in (RTX.probe(), RTX.probe_build()):
        assert isinstance(state, Unavailable)
        assert state.install == "pip install tensorrt-rtx cuda-core cuda-bindings"
    for attempt in (lambda: RTX.build(model, ["sm75"]), lambda: RTX.open(model)):
        with pytest.raises(BackendUnavailableError, match="Pip install tensorrt-rtx") as caught:
            attempt()
        assert caught.value.exit_code == 7


# From here on with a fake GPU and a fake library of the recorded interface.


@pytest.fixture
def running(fake_tensorrt, fake_gpu):
    gpu = fake_gpu()
    return SimpleNamespace(trt=fake_tensorrt("rtx"), gpu=gpu)


def pytorchs(model, batch):
    with torch.inference_mode():
        return model.module(torch.from_numpy(batch)).numpy()


def test_a_session_gives_pytorchs_labels(running, model, batch):
    assert RTX.probe().devices == ("cuda",)
    with RTX.open(model) as session:
        assert np.mean(session.run(batch) == pytorchs(model, batch)) > 0.999
        info = session.info
    assert (info.backend, info.device) == ("tensorrt-rtx", "cuda")
    assert info.options["compute_capability"] == "sm75"
    assert info.options["validity"] == "valid"
    assert running.gpu.is_clean


def test_kernels_are_compiled_before_the_first_answer(running, model):
    RTX.open(model).close()
    strategy = running.trt.world.arguments("IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy")
    assert [s.name for s in strategy] == ["EAGER"]


def test_kernels_are_kept_for_the_next_start(running, model):
    with RTX.open(model) as session:
        assert session.info.options["kernel_cache"] == "written"
    with RTX.open(model) as session:
        assert session.info.options["kernel_cache"] == "warm"
    assert running.trt.world.kernel_blobs == [b"kernels"]
    (file,) = (cache_folder() / "tensorrt-rtx").iterdir()
    assert "GeForce-RTX-2080-Ti" in file.name


def test_damaged_kernels_never_reach_the_library(running, model):
    RTX.open(model).close()
    (file,) = (cache_folder() / "tensorrt-rtx").iterdir()
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with RTX.open(model) as session:
        assert session.info.options["kernel_cache"] == "written"
    assert running.trt.world.kernel_blobs == []
    assert file.read_bytes() == data


def test_kernels_of_another_driver_or_gpu_are_not_taken(running, model, fake_gpu):
    RTX.open(model).close()
    for other in (
        {"version": 13010},
        {"name": "GeForce RTX 2080"},
        {"name": "GeForce RTX 3090", "capability": (8, 6)},
    ):
        fake_gpu(**other)
        with RTX.open(model) as session:
            assert session.info.options["kernel_cache"] == "written"
    assert running.trt.world.kernel_blobs == []


def test_without_a_cache_folder_it_still_runs(running, model, batch, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with RTX.open(model) as session:
        assert session.info.options["kernel_cache"] == "not written"
        assert session.run(batch).any()


def foreign(engine_of, model, **changes):
    return engine_of(model.onnx, **({"tag": b"vtrt", "version": "1.7.1.116", "mask": 1} | changes))


def test_a_fitting_engine_is_opened(running, model, batch, engine_of, with_engine):
    record = {"onnx_sha256": model.onnx_sha256, "tensorrt_rtx": "1.7.1.116"}
    with RTX.open(with_engine(foreign(engine_of, model), record)) as session:
        assert session.run(batch).any()
    assert "Builder.__init__" not in running.trt.world.names()


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"version": "1.6.0.1"}, BackendUnavailableError, "another version"),
        ({"version": "1.7.1.115"}, BackendUnavailableError, "another version"),
        ({"mask": 0b11100}, BackendUnavailableError, "built for other GPUs .got 'sm86, sm89, sm120'; allowed: sm75"),
        ({"tag": b"ftrt"}, DamagedArtifactError, "not an engine of this backend"),
        ({"tag": b"PK\x03\x04"}, DamagedArtifactError, "not an engine of this backend"),
    ],
)
def test_a_foreign_engine_never_reaches_the_library(changes, kind, words, running, model, engine_of, with_engine):
    with pytest.raises(kind, match=words) as caught:
        RTX.open(with_engine(foreign(engine_of, model, **changes)))
    assert "searchkit export NETWORK --engine tensorrt-rtx --target sm75" in str(caught.value)
    assert "Runtime.__init__" not in running.trt.world.names()
    assert running.gpu.is_clean


@pytest.mark.parametrize("cut", [0, 3, 27, 63, -1])
def test_a_truncated_engine_never_reaches_the_library(cut, running, model, engine_of, with_engine):
    with pytest.raises((DamagedArtifactError, BackendUnavailableError)):
        RTX.open(with_engine(foreign(engine_of, model)[:cut]))
    assert "Runtime.__init__" not in running.trt.world.names()


@pytest.mark.parametrize("field", ["onnx_sha256", "tensorrt_rtx"])
def test_each_recorded_field_must_agree(field, running, model, engine_of, with_engine):
    record = {"onnx_sha256": model.onnx_sha256, "tensorrt_rtx": "1.7.1.116"} | {field: "another"}
    with pytest.raises(BackendUnavailableError, match=f"engine: {field}: .*got 'another'"):
        RTX.open(with_engine(foreign(engine_of, model), record))
    assert "Runtime.__init__" not in running.trt.world.names()


def test_an_engine_that_the_library_calls_invalid(running, model):
    running.trt.world.validity = ("INVALID", 2 | 4)
    with pytest.raises(BackendUnavailableError, match="got 'unsupported_cc, old_cuda_driver'"):
        RTX.open(model)
    assert "Runtime.deserialize_cuda_engine" not in running.trt.world.names()
    assert running.gpu.is_clean


def test_invalid_without_a_reason_is_unknown(running, model):
    running.trt.world.validity = ("INVALID", 0)
    with RTX.open(model) as session:
        assert session.info.options["validity"] == "unknown"


def test_an_engine_that_does_not_open(running, model):
    running.trt.world.deserialises = False
    with pytest.raises(BackendUnavailableError, match="cannot open the engine: the plan is of no use here"):
        RTX.open(model)
    assert running.gpu.is_clean


@pytest.mark.parametrize(
    ("change", "words"),
    [(np.zeros_like, "zeros"), (lambda a: np.full_like(a, 3), "one class")],
)
def test_degenerate_answers_are_refused_at_opening(change, words, running, model):
    running.trt.world.output = change
    with pytest.raises(VerificationError, match=f"answers with {words} .*") as caught:
        RTX.open(model)
    assert "GeForce RTX 2080 Ti" in str(caught.value)
    assert running.gpu.is_clean


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(value, running, tiny_network):
    from deploy.deployable import Deployable
    from searchkit.sizes import Size

    logits = Deployable(tiny_network(), Size(64, 96), "raw")

    def spoil(array):
        array = array.copy()
        array.flat[5] = value
        return array

    running.trt.world.output = spoil
    with pytest.raises(VerificationError, match="NaN or infinity"):
        RTX.open(logits)


def test_a_gpu_without_code(running, fake_gpu, model):
    fake_gpu(name="NVIDIA H200", capability=(9, 0))
    state = RTX.probe()
    assert isinstance(state, Unavailable)
    assert "no code for NVIDIA H200 (sm90)" in state.reason
    with pytest.raises(BackendUnavailableError, match="NVIDIA H200"):
        RTX.open(model)


def test_an_engine_of_another_model(running, model, with_engine, engine_of, tiny_network):
    from deploy.deployable import Deployable
    from searchkit.sizes import Size

    other = Deployable(tiny_network(), Size(32, 64), "labels")
    with pytest.raises(DamagedArtifactError, match="engine is of another model"):
        RTX.open(with_engine(foreign(engine_of, other)))
    assert running.gpu.is_clean


def test_a_batch_of_another_shape(running, model, batch):
    with RTX.open(model) as session:
        for wrong in (batch[:, :-1], batch.astype(np.float32), batch[0]):
            with pytest.raises(UsageError, match="not what the engine takes"):
                session.load(wrong)
        assert np.array_equal(session.run(batch), session.run(np.asfortranarray(batch)))


def test_the_fake_refuses_what_is_not_recorded(running):
    trt = running.trt
    with pytest.raises(AttributeError):
        trt.BuilderFlag.FP16  # noqa: B018
    builder = trt.Builder(trt.ILogger())
    for wrong in (lambda: builder.platform_has_fast_fp16, lambda: builder.create_builder_config().max_workspace_size):
        with pytest.raises(AttributeError):
            wrong()
    with pytest.raises(AttributeError):
        builder.create_builder_config().int8_calibrator = None
    with pytest.raises(TypeError):
        builder.create_network(1, 2)
    with pytest.raises(TypeError):
        builder.create_network(flag=1)
