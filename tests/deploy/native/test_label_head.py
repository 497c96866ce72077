"""The one-pass label head against PyTorch in float64: every kernel, layout, type and convention of corners."""

from __future__ import annotations

import threading

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.native.head_arguments import CERTAINTIES, CORNERS
from deploy.native.label_head import PLAIN, kernels, label_head
from deploy.native.library import Native, native
from searchkit.errors import UsageError
from searchkit.sizes import Size

KERNELS = kernels()

# Two classes closer than this are a tie to float32, whose interpolation rounds a few times.
TIE = 4e-6


def exact(logits, size, corners="half_pixel"):
    """Full-resolution logits by PyTorch in float64."""
    tensor = torch.from_numpy(logits.astype(np.float64))[None]
    aligned = corners == "align_corners"
    return torch.nn.functional.interpolate(tensor, size=tuple(size), mode="bilinear", align_corners=aligned)[0].numpy()


def assert_wins(labels, resized):
    """Every label is of a class that is the best, but for what float32 cannot tell apart."""
    chosen = np.take_along_axis(resized, labels[None].astype(np.int64), 0)[0]
    scale = np.abs(resized).max() + 1
    assert (resized.max(0) - chosen <= TIE * scale).all()


def random_logits(seed, shape, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def test_there_is_a_compiler_and_it_made_a_library():
    """Here the native kernels are required: without them the tests below would test the plain forms alone."""
    assert isinstance(native(), Native), native()
    assert KERNELS[-2:] == PLAIN
    assert len(KERNELS) >= 3


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 40),
    source=st.tuples(st.integers(1, 24), st.integers(1, 40)),
    target=st.tuples(st.integers(1, 48), st.integers(1, 300)),
    corners=st.sampled_from(CORNERS),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    last=st.booleans(),
)
def test_random_shapes(kernel, seed, classes, source, target, corners, dtype, last):
    logits = random_logits(seed, (classes, *source), dtype)
    if last:
        logits = np.ascontiguousarray(logits.transpose(1, 2, 0)).transpose(2, 0, 1)
    size = Size(*target)
    found = label_head(logits, size, corners=corners, kernel=kernel)
    assert (found.dtype, found.shape) == (np.uint8, target)
    assert_wins(found, exact(logits, size, corners))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("source", "target"), [((16, 32), (128, 256)), ((32, 64), (128, 256)), ((128, 256), (128, 256))]
)
def test_the_networks_own_ratios_give_float64s_labels(kernel, source, target):
    logits = random_logits(7, (19, *source))
    resized = exact(logits, Size(*target))
    best = np.sort(resized, axis=0)
    clear = best[-1] - best[-2] > TIE
    found = label_head(logits, Size(*target), kernel=kernel)
    assert clear.mean() > 0.999
    np.testing.assert_array_equal(found[clear], resized.argmax(0)[clear])


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_lowest_class_wins_a_tie(kernel):
    logits = np.zeros((6, 5, 7), np.float32)
    logits[[2, 4]] = 1
    assert (label_head(logits, Size(40, 56), kernel=kernel) == 2).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("corners", CORNERS)
def test_certainty(kernel, corners):
    logits = random_logits(3, (19, 9, 11)) * 4
    size = Size(70, 90)
    resized = exact(logits, size, corners)
    ordered = np.sort(resized, axis=0)
    wanted = {
        "probability": 255 / np.exp(resized - ordered[-1]).sum(0),
        "margin": np.minimum((ordered[-1] - ordered[-2]) * 16, 255),
    }
    for certainty in CERTAINTIES:
        labels, levels = label_head(logits, size, corners=corners, certainty=certainty, kernel=kernel)
        np.testing.assert_array_equal(labels, label_head(logits, size, corners=corners, kernel=kernel))
        assert levels.dtype == np.uint8
        assert len(np.unique(levels)) > 50
        assert np.abs(levels - wanted[certainty]).max() <= 0.501


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("certainty", CERTAINTIES)
def test_a_single_class_is_certain(kernel, certainty):
    labels, levels = label_head(random_logits(0, (1, 3, 4)), Size(6, 8), certainty=certainty, kernel=kernel)
    assert (labels == 0).all()
    assert (levels == 255).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_no_number_loses_and_infinity_wins(kernel, dtype):
    logits = random_logits(1, (4, 3, 3), dtype)
    logits[0] = np.nan
    logits[1] = -np.inf
    logits[3] = np.inf
    assert (label_head(logits, Size(12, 12), kernel=kernel) == 3).all()
    logits[:] = np.nan
    assert (label_head(logits, Size(12, 12), kernel=kernel) == 0).all()
    # A single bad value stays where it is.
    logits[:] = 0
    logits[1] = 1
    logits[1, 0, 0] = np.nan
    found = label_head(logits, Size(3, 3), kernel=kernel)
    assert found[0, 0] == 0
    assert (found.ravel()[1:] == 1).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_halves_are_read_exactly(kernel):
    """All finite float16 values against one another: the larger must win, subnormal ones too."""
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = np.sort(values[np.isfinite(values) & (values != 0)]).astype(np.float16)
    logits = np.stack([values[:-1], values[1:]])[:, None]
    logits = logits[:, :, : logits.shape[2] // 8 * 8].reshape(2, -1, 8)
    found = label_head(logits, Size(*logits.shape[1:]), kernel=kernel)
    assert (found == 1).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_strides(kernel):
    """Views with gaps, reversed, repeated and misaligned ones are read as numpy reads them."""
    whole = random_logits(5, (9, 20, 30))
    raw = np.zeros(whole.nbytes + 1, np.uint8)
    shifted = raw[1:].view(np.uint8)[: whole.nbytes].view(np.float32).reshape(whole.shape)
    shifted[...] = whole
    assert not shifted.flags.aligned
    views = [whole[::2, ::3, 1::2], whole[::-1, :, ::-1], np.broadcast_to(whole[:, :1, :1], (9, 4, 5)), shifted]
    for view in views:
        expected = label_head(np.ascontiguousarray(view), Size(37, 41), kernel=kernel)
        np.testing.assert_array_equal(label_head(view, Size(37, 41), kernel=kernel), expected)


@pytest.mark.parametrize("threads", [2, 3, 7, 64])
def test_threads_change_nothing(threads):
    logits = random_logits(2, (19, 16, 32))
    one = label_head(logits, Size(61, 130))
    np.testing.assert_array_equal(label_head(logits, Size(61, 130), threads=threads), one)


def test_several_callers_at_once():
    logits = [random_logits(seed, (19, 16 + seed, 32)) for seed in range(8)]
    sizes = [Size(60 + seed, 300 - 7 * seed) for seed in range(8)]
    wanted = [label_head(x, size) for x, size in zip(logits, sizes, strict=True)]
    wrong = []

    def work(index):
        for _ in range(30):
            if not np.array_equal(label_head(logits[index], sizes[index]), wanted[index]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize("kernel", KERNELS)
def test_256_classes_fit_and_257_do_not(kernel):
    logits = np.zeros((256, 2, 2), np.float32)
    logits[255] = 1
    assert (label_head(logits, Size(4, 4), kernel=kernel) == 255).all()
    with pytest.raises(UsageError, match="too many classes"):
        label_head(np.zeros((257, 2, 2), np.float32), Size(4, 4), kernel=kernel)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logits_CHW": np.zeros((3, 4), np.float32)}, "not C x h x w"),
        ({"logits_CHW": np.zeros((3, 0, 4), np.float32)}, "not C x h x w"),
        ({"logits_CHW": np.zeros((3, 4, 4), np.int32)}, "another type"),
        ({"size": Size(0, 4)}, "out of range"),
        ({"size": Size(4, 32769)}, "out of range"),
        ({"corners": "centre"}, "convention of corners"),
        ({"certainty": "entropy"}, "certainty"),
        ({"threads": 0}, "no thread"),
        ({"kernel": "sse9"}, "no such kernel"),
    ],
)
def test_bad_arguments_are_refused(change, said):
    arguments = {"logits_CHW": np.zeros((3, 4, 4), np.float32), "size": Size(8, 8)} | change
    with pytest.raises(UsageError, match=said):
        label_head(**arguments)
