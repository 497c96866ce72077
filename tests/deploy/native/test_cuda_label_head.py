"""The kernel for GPUs: its source run on the CPU, thread by thread, against PyTorch in float64 and the CPU's kernel.

And compiled for GPUs. What launches it is real but for the launch itself.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.native import label_head_cuda as module
from deploy.native.head_arguments import CERTAINTIES, CORNERS
from deploy.native.label_head import label_head
from deploy.native.label_head_cuda import DeviceLogits, compile_label_head, label_head_cuda
from deploy.native.library import SOURCES, find_compiler
from searchkit.errors import BackendUnavailableError, UsageError
from searchkit.sizes import Size

HERE = Path(__file__).parent
DTYPES = ("float32", "float16", "bfloat16")
TIE = 4e-6


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """The kernel's source, compiled for the CPU."""
    path = tmp_path_factory.mktemp("kernel") / "kernel.so"
    # Contraction off: a product and a sum are one step only where the source says so.
    flags = ["-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
    source = HERE / "label_head_cuda_on_cpu.cpp"
    subprocess.run([find_compiler(), *flags, "-I", SOURCES, "-I", HERE, source, "-o", path], check=True)
    return ctypes.CDLL(str(path)).run


@pytest.fixture
def gpu(kernel, monkeypatch):
    """cuda-core whose GPU is this CPU; returns what was launched."""
    launched = []

    def launch(stream, config, name, *arguments):
        launched.append(SimpleNamespace(stream=stream, config=config, name=name, arguments=arguments))
        _, value, _, certainty = name.replace("<", ",").strip(">").split(",")
        pointers, sizes = arguments[:3], arguments[3:]
        # What cuda-core would pass: an integer of Python as an address, the others in their own width.
        assert all(type(pointer) is int for pointer in pointers)
        widths = [np.int32] * 3 + [np.int64] * 4 + [np.int32] * 3
        assert [type(size) for size in sizes] == widths
        passed = [ctypes.c_void_p(pointer) for pointer in pointers]
        passed += [(ctypes.c_int if type(s) is np.int32 else ctypes.c_longlong)(int(s)) for s in sizes]
        grid = (ctypes.c_uint * 3)(*config.grid)
        block = (ctypes.c_uint * 2)(*config.block)
        kernel(["float", "sk::Half", "sk::BFloat"].index(value), int(certainty), grid, block, *passed)

    class Stream:
        @staticmethod
        def from_handle(handle):
            return handle

    core = SimpleNamespace(
        Device=lambda: SimpleNamespace(compute_capability=SimpleNamespace(major=7, minor=5)),
        LaunchConfig=SimpleNamespace,
        Stream=Stream,
        LEGACY_DEFAULT_STREAM="default",
        launch=launch,
    )
    monkeypatch.setattr(module, "_cuda_core", lambda: core)
    monkeypatch.setattr(module, "_kernel", lambda dtype, certainty, sm: module._name(dtype, certainty))
    return launched


def on_gpu(logits, size, *, corners="half_pixel", certainty=None):
    """As the CPU's `label_head`, of pictures x classes x rows x columns."""
    labels = np.full((len(logits), *size), 77, np.uint8)
    levels = np.full_like(labels, 77)
    strides = tuple(stride // logits.itemsize for stride in logits.strides)
    given = DeviceLogits(logits.ctypes.data, logits.dtype.name, logits.shape, strides)
    label_head_cuda(
        given,
        size,
        labels.ctypes.data,
        stream=5,
        corners=corners,
        certainty=certainty,
        levels=levels.ctypes.data if certainty else None,
    )
    return (labels, levels) if certainty else labels


def random_logits(seed, shape, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def exact(logits, size, corners="half_pixel"):
    tensor = torch.from_numpy(logits.astype(np.float64))
    aligned = corners == "align_corners"
    return torch.nn.functional.interpolate(tensor, size=tuple(size), mode="bilinear", align_corners=aligned).numpy()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pictures=st.integers(1, 3),
    classes=st.integers(1, 40),
    source=st.tuples(st.integers(1, 24), st.integers(1, 40)),
    target=st.tuples(st.integers(1, 48), st.integers(1, 70)),
    corners=st.sampled_from(CORNERS),
    dtype=st.sampled_from(DTYPES),
    last=st.booleans(),
)
def test_random_shapes(kernel, seed, pictures, classes, source, target, corners, dtype, last):
    logits = random_logits(seed, (pictures, classes, *source), dtype)
    if last:
        logits = np.ascontiguousarray(logits.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    size = Size(*target)
    labels = np.full((pictures, *size), 77, np.uint8)
    call(kernel, logits, labels, size, corners)
    resized = exact(logits, size, corners)
    chosen = np.take_along_axis(resized, labels[:, None].astype(np.int64), 1)[:, 0]
    assert (resized.max(1) - chosen <= TIE * (np.abs(resized).max() + 1)).all()
    for own, one in zip(labels, logits, strict=True):
        np.testing.assert_array_equal(own, label_head(one, size, corners=corners, kernel="numpy"))


def call(kernel, logits, labels, size, corners):
    """The kernel itself, without what launches it: Hypothesis allows no fixture of a function here."""
    strides = [ctypes.c_longlong(stride // logits.itemsize) for stride in logits.strides]
    kernel(
        DTYPES.index(logits.dtype.name),
        0,
        (ctypes.c_uint * 3)(-(-size.width // 32), -(-size.height // 16), len(logits)),
        (ctypes.c_uint * 2)(32, 4),
        ctypes.c_void_p(logits.ctypes.data),
        ctypes.c_void_p(labels.ctypes.data),
        None,
        *logits.shape[1:],
        *strides,
        *size,
        int(corners == "align_corners"),
    )


@pytest.mark.parametrize("corners", CORNERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", [(16, 32), (32, 64), (128, 256)])
def test_the_networks_own_ratios_give_the_cpus_labels(gpu, source, dtype, corners):
    logits = random_logits(7, (1, 19, *source), dtype)
    size = Size(128, 256)
    ordered = np.sort(exact(logits, size, corners)[0], axis=0)
    clear = ordered[-1] - ordered[-2] > TIE
    assert clear.mean() > (0.999 if dtype == "float32" else 0.9)
    found = on_gpu(logits, size, corners=corners)[0]
    np.testing.assert_array_equal(found[clear], exact(logits, size, corners)[0].argmax(0)[clear])
    np.testing.assert_array_equal(found[clear], label_head(logits[0], size, corners=corners)[clear])
    np.testing.assert_array_equal(found, label_head(logits[0], size, corners=corners, kernel="numpy"))


@pytest.mark.parametrize("corners", CORNERS)
@pytest.mark.parametrize("certainty", CERTAINTIES)
def test_certainty(gpu, corners, certainty):
    logits = random_logits(3, (2, 19, 9, 11)) * 4
    size = Size(70, 90)
    labels, levels = on_gpu(logits, size, corners=corners, certainty=certainty)
    np.testing.assert_array_equal(labels, on_gpu(logits, size, corners=corners))
    resized = exact(logits, size, corners)
    ordered = np.sort(resized, axis=1)
    probability = 255 / np.exp(resized - ordered[:, -1:]).sum(1)
    margin = np.minimum((ordered[:, -1] - ordered[:, -2]) * 16, 255)
    assert len(np.unique(levels)) > 50
    assert np.abs(levels - (probability if certainty == "probability" else margin)).max() <= 0.501


@pytest.mark.parametrize("certainty", CERTAINTIES)
def test_a_single_class_is_certain(gpu, certainty):
    labels, levels = on_gpu(random_logits(0, (1, 1, 3, 4)), Size(6, 8), certainty=certainty)
    assert (labels == 0).all()
    assert (levels == 255).all()


def test_the_lowest_class_wins_a_tie(gpu):
    logits = np.zeros((1, 6, 5, 7), np.float32)
    logits[:, [2, 4]] = 1
    assert (on_gpu(logits, Size(40, 56)) == 2).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_loses_and_infinity_wins(gpu, dtype):
    logits = random_logits(1, (1, 4, 3, 3), dtype)
    logits[:, 0] = np.nan
    logits[:, 1] = -np.inf
    logits[:, 3] = np.inf
    assert (on_gpu(logits, Size(12, 12)) == 3).all()
    logits[:] = np.nan
    assert (on_gpu(logits, Size(12, 12)) == 0).all()
    logits[:] = 0
    logits[:, 1] = 1
    logits[:, 1, 0, 0] = np.nan
    found = on_gpu(logits, Size(3, 3))
    assert found[0, 0, 0] == 0
    assert (found.ravel()[1:] == 1).all()


def test_halves_are_read_exactly(gpu):
    """By the form that a CPU runs; a GPU reads them by one instruction of its own."""
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = np.sort(values[np.isfinite(values) & (values != 0)]).astype(np.float16)
    logits = np.stack([values[:-1], values[1:]])[:, : (len(values) - 1) // 8 * 8].reshape(1, 2, -1, 8)
    assert (on_gpu(logits, Size(*logits.shape[2:])) == 1).all()


def test_256_classes(gpu):
    logits = np.zeros((1, 256, 2, 2), np.float32)
    logits[:, 255] = 1
    assert (on_gpu(logits, Size(4, 4)) == 255).all()


def test_strides(gpu):
    whole = random_logits(5, (2, 9, 20, 30))
    for view in (whole[:, ::2, ::3, 1::2], whole[:, ::-1, :, ::-1], np.broadcast_to(whole[:, :, :1, :1], (2, 9, 4, 5))):
        expected = on_gpu(np.ascontiguousarray(view), Size(37, 41))
        np.testing.assert_array_equal(on_gpu(view, Size(37, 41)), expected)


def test_the_largest_sides_do_not_overflow(gpu):
    logits = np.zeros((1, 2, 1, 32768), np.float32)
    logits[0, 1, 0, 16384:] = 1
    logits[0, 0, 0, :16384] = 1
    for corners in CORNERS:
        found = on_gpu(logits, Size(1, 32768), corners=corners)[0, 0]
        assert (found[:16384] == 0).all()
        assert (found[16384:] == 1).all()
        tall = on_gpu(logits.transpose(0, 1, 3, 2), Size(32768, 1), corners=corners)[0, :, 0]
        np.testing.assert_array_equal(tall, found)


def test_what_is_launched(gpu):
    logits = random_logits(0, (2, 5, 6, 7))
    labels = np.zeros((2, 33, 65), np.uint8)
    label_head_cuda(
        DeviceLogits(logits.ctypes.data, "float32", logits.shape), Size(33, 65), labels.ctypes.data, stream=9
    )
    (only,) = gpu
    assert only.stream == 9
    assert (only.config.grid, only.config.block) == ((3, 3, 2), (32, 4))
    strides = tuple(stride // 4 for stride in logits.strides)
    assert only.arguments[6:10] == strides
    label_head_cuda(
        DeviceLogits(logits.ctypes.data, "float32", logits.shape), Size(33, 65), labels.ctypes.data, stream=0
    )
    assert gpu[1].stream == "default"
    for own, one in zip(labels, logits, strict=True):
        np.testing.assert_array_equal(own, label_head(one, Size(33, 65), kernel="numpy"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": (1, 3, 0, 4)}, "not C x h x w"),
        ({"shape": (1, 257, 4, 4)}, "too many classes"),
        ({"shape": (0, 3, 4, 4)}, "number of pictures"),
        ({"shape": (65536, 3, 4, 4)}, "number of pictures"),
        ({"dtype": "int32"}, "another type"),
        ({"address": 66}, "misaligned"),
        ({"dtype": "float16", "address": 65}, "misaligned"),
        ({"size": Size(0, 4)}, "out of range"),
        ({"size": Size(4, 32769)}, "out of range"),
        ({"corners": "centre"}, "convention of corners"),
        ({"certainty": "entropy"}, "unknown certainty"),
        ({"certainty": "margin"}, "do not fit"),
        ({"levels": 128}, "do not fit"),
    ],
)
def test_bad_arguments_are_refused(gpu, change, said):
    logits = {"address": 64, "dtype": "float32", "shape": (1, 3, 4, 4)}
    options = {"size": Size(8, 8), "corners": "half_pixel", "certainty": None, "levels": None}
    logits |= {key: value for key, value in change.items() if key in logits}
    options |= {key: value for key, value in change.items() if key in options}
    with pytest.raises(UsageError, match=said):
        label_head_cuda(DeviceLogits(**logits), labels=128, stream=0, **options)
    assert not gpu


@pytest.mark.parametrize("sm", ["sm75", "sm86", "sm90"])
@pytest.mark.parametrize("certainty", [None, *CERTAINTIES])
def test_nvrtc_compiles_it(sm, certainty):
    for dtype in DTYPES:
        made = compile_label_head(dtype, certainty, sm)
        assert made.code_type == "cubin"
        assert made.code[:4] == b"\x7fELF"
        assert module._name(dtype, certainty) in made.symbol_mapping


def test_a_gpu_that_nvrtc_does_not_know():
    with pytest.raises(BackendUnavailableError, match=r"does not compile the label head for sm1:.*architecture"):
        compile_label_head("float32", None, "sm1")


def test_without_cuda_core(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(BackendUnavailableError, match="cuda-core cannot be imported"):
        compile_label_head("float32", None, "sm75")


def test_without_a_gpu(gpu, monkeypatch):
    def device():
        raise RuntimeError("no driver\nand a long explanation")

    monkeypatch.setattr(module._cuda_core(), "Device", device)
    with pytest.raises(BackendUnavailableError, match=r"there is no GPU for the label head: no driver\. "):
        label_head_cuda(DeviceLogits(64, "float32", (1, 3, 4, 4)), Size(8, 8), 128, stream=0)
    assert not gpu


def test_cuda_core_takes_the_arguments():
    """As they are passed: addresses as integers, sizes in their own width."""
    from cuda.core._kernel_arg_handler import ParamHolder

    ParamHolder([64, 0, np.int32(3), np.int64(-5)])
    with pytest.raises(TypeError):
        ParamHolder([(1, 2)])


def test_the_sizes_of_a_block_are_those_of_the_source():
    text = module.SOURCE.read_text(encoding="utf-8")
    assert f"BLOCK_WIDTH = {module.BLOCK[0]};" in text
    assert f"BLOCK_HEIGHT = {module.BLOCK[1]};" in text
    rows = module.BLOCK_ROWS // module.BLOCK[1]
    assert f"ROWS = {rows};" in text


@pytest.mark.slow
def test_random_input_under_the_sanitizers(tmp_path):
    """Random shapes, layouts and contents, garbage included, against the CPU's kernel; no access is out of bounds."""
    program = tmp_path / "fuzz"
    flags = ["-std=c++17", "-O1", "-g", "-pthread", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    # The GPU's kernel rounds each product and each sum; the CPU's does so too where nothing is contracted.
    flags.append("-ffp-contract=off")
    files = [HERE / "label_head_cuda_fuzz.cpp", SOURCES / "label_head.cpp"]
    command = [find_compiler(), *flags, "-Wno-unknown-pragmas", "-I", SOURCES, "-I", HERE, *files, "-o", program]
    subprocess.run(command, check=True)
    done = subprocess.run([program, "5000"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("5000 cases, ")
