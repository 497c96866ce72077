"""One-pass pre-processing against the steps one by one: equal to the bit, whatever the kernel, layout and strides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.letterbox import ResizeRule
from deploy.native.library import Native, native
from deploy.native.preprocessing import LAYOUTS, kernels, preprocess
from searchkit.errors import UsageError
from searchkit.normalization import normalise
from searchkit.pictures import resize_picture
from searchkit.sizes import Size

KERNELS = kernels()
PAD = (114, 7, 250)


def picture(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def by_steps(image, size, inside, layout):
    """Pillow's resize, width first, then a letterbox, then the normalisation of training."""
    fitted = np.empty((*size, 3), np.uint8)
    fitted[:] = PAD
    fitted[: inside.height, : inside.width] = resize_picture(np.ascontiguousarray(image), inside)
    if layout == "pixels":
        return fitted[None]
    return normalise(fitted) if layout == "NCHW" else normalise(fitted).transpose(0, 2, 3, 1)


def test_the_native_kernels_are_there():
    assert isinstance(native(), Native), native()
    assert KERNELS[-1] == "pillow"
    assert len(KERNELS) >= 2


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    source=st.tuples(st.integers(1, 90), st.integers(1, 700)),
    inside=st.tuples(st.integers(1, 60), st.integers(1, 600)),
    beside=st.tuples(st.integers(0, 5), st.integers(0, 20)),
    layout=st.sampled_from(LAYOUTS),
    threads=st.integers(1, 4),
)
@example(seed=1, source=(64, 128), inside=(64, 128), beside=(0, 0), layout="NCHW", threads=1)
@example(seed=2, source=(1, 1), inside=(9, 700), beside=(0, 0), layout="NHWC", threads=2)
# So many rows are blended into one that a thread holds only some columns of them.
@example(seed=4, source=(600, 40), inside=(2, 700), beside=(0, 9), layout="NCHW", threads=2)
@example(seed=5, source=(300, 700), inside=(1, 513), beside=(1, 0), layout="pixels", threads=1)
@example(seed=3, source=(80, 5000), inside=(3, 5), beside=(1, 1), layout="pixels", threads=1)
def test_equal_to_the_steps(kernel, seed, source, inside, beside, layout, threads):
    image = picture(seed, *source)
    size = Size(inside[0] + beside[0], inside[1] + beside[1])
    found = preprocess(image, size, inside=Size(*inside), pad=PAD, layout=layout, threads=threads, kernel=kernel)
    wanted = by_steps(image, size, Size(*inside), layout)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("source", [(135, 240), (90, 160), (128, 256), (64, 128), (40, 77)])
@pytest.mark.parametrize("rule", ["stretch", "letterbox"])
def test_equal_to_what_a_segmenter_does(kernel, source, rule):
    """Cameras' proportions, by both rules of a bundle."""
    size = Size(64, 128)
    image, resize = picture(5, *source), ResizeRule(rule, PAD)
    scale = min(size.height / source[0], size.width / source[1])
    inside = Size(*(round(side * scale) for side in source)) if rule == "letterbox" else size
    found = preprocess(image, size, inside=inside, pad=PAD, kernel=kernel)
    np.testing.assert_array_equal(found, normalise(resize.fit(image, size)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_extremes_keep_their_value(kernel):
    """White stays white at any ratio: the weights' rounding never carries past 255."""
    for value in (0, 255):
        image = np.full((500, 611, 3), value, np.uint8)
        for size in (Size(3, 7), Size(499, 610), Size(501, 613), Size(1, 1)):
            assert (preprocess(image, size, layout="pixels", kernel=kernel) == value).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_strides(kernel):
    """Views are read as numpy reads them: BGR, cut out, mirrored, four channels, planes, one row repeated."""
    whole = picture(9, 60, 90)
    four = np.dstack([whole, whole[..., 0]])
    planes = np.ascontiguousarray(whole.transpose(2, 0, 1))
    views = [
        whole[..., ::-1],
        whole[5:50, 7:81],
        whole[::-1, ::-2],
        four[..., :3],
        planes.transpose(1, 2, 0),
        np.broadcast_to(whole[:1], (20, 90, 3)),
    ]
    for view in views:
        found = preprocess(view, Size(24, 40), layout="pixels", kernel=kernel)
        np.testing.assert_array_equal(found[0], resize_picture(np.ascontiguousarray(view), Size(24, 40)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_out_is_written_and_nothing_beside_it(layout):
    image, size = picture(1, 31, 45), Size(17, 300)
    wanted = preprocess(image, size, layout=layout)
    guarded = np.full(wanted.size + 64, 99, wanted.dtype)
    out = guarded[32:-32].reshape(wanted.shape)
    for threads in (1, 3):
        out[:] = 99
        assert preprocess(image, size, layout=layout, out=out, threads=threads) is out
        np.testing.assert_array_equal(out, wanted)
        assert (guarded[:32] == 99).all()
        assert (guarded[-32:] == 99).all()


def test_sizes_may_change_from_call_to_call():
    """What a thread keeps of the last sizes is not used for others."""
    for seed, size in enumerate([Size(40, 300), Size(9, 5), Size(40, 300), Size(300, 40), Size(40, 301)]):
        image = picture(seed, 50 + seed, 60)
        np.testing.assert_array_equal(preprocess(image, size), by_steps(image, size, size, "NCHW"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"picture_HWC": np.zeros((4, 4), np.uint8)}, "not a picture"),
        ({"picture_HWC": np.zeros((4, 4, 4), np.uint8)}, "not a picture"),
        ({"picture_HWC": np.zeros((4, 0, 3), np.uint8)}, "not a picture"),
        ({"picture_HWC": np.zeros((4, 4, 3), np.float32)}, "not a picture"),
        ({"size": Size(0, 4)}, "out of range"),
        ({"size": Size(4, 32769)}, "out of range"),
        ({"inside": Size(9, 4)}, "does not fit"),
        ({"inside": Size(0, 4)}, "out of range"),
        ({"pad": (0, 0)}, "not a colour"),
        ({"pad": (0, 0, 256)}, "not a colour"),
        ({"layout": "CHW"}, "unknown layout"),
        ({"out": np.empty((1, 3, 8, 9), np.float32)}, "out does not fit"),
        ({"out": np.empty((1, 3, 8, 8), np.float64)}, "out does not fit"),
        ({"out": np.empty((1, 3, 8, 16), np.float32)[..., ::2]}, "out does not fit"),
        ({"threads": 0}, "no thread"),
        ({"kernel": "sse9"}, "no such kernel"),
    ],
)
def test_bad_arguments_are_refused(change, said):
    arguments = {"picture_HWC": np.zeros((4, 4, 3), np.uint8), "size": Size(8, 8)} | change
    with pytest.raises(UsageError, match=said):
        preprocess(**arguments)
