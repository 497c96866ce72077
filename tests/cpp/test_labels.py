"""The labels of the C++ runtime are those of the Python package, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from deploy.segmenter import load
from searchkit.data import streets
from searchkit.sizes import Size

# The model's own, half, odd ratios, one side kept, slim and tiny ones, and larger than the model.
SIZES = [
    (64, 96),
    (32, 48),
    (128, 192),
    (50, 70),
    (101, 37),
    (64, 200),
    (300, 96),
    (1, 1),
    (2, 400),
    (517, 3),
    (480, 640),
]


@pytest.fixture
def labels(run, tmp_path):
    """`labels(kind, bundle, picture, "plain")`: what the example writes."""

    def segment(kind, bundle, picture, *options):
        Image.fromarray(picture).save(tmp_path / "in.ppm")
        run(kind, "segment_picture", bundle, tmp_path / "in.ppm", tmp_path / "out.pgm", 1, *options, status=0)
        return np.asarray(Image.open(tmp_path / "out.pgm"))

    return segment


def pictures(sizes):
    """Streets where they can be drawn, and noise, which shows each rounding."""
    random = np.random.default_rng(5)
    for size in sizes:
        yield random.integers(0, 256, (*size, 3), np.uint8)
        if min(size) >= 32:
            yield streets.draw(3, 1, Size(*size)).image


@pytest.mark.parametrize("rule", ["stretch", "letterbox"])
def test_pictures_of_any_size(labels, exported_bundle, rule):
    seen = set()
    with load(exported_bundle(rule), threads=1) as segmenter:
        assert segmenter.mode == "label_head"
        for picture in pictures(SIZES):
            expected = segmenter(picture)
            seen |= set(np.unique(expected))
            assert np.array_equal(labels("plain", exported_bundle(rule), picture), expected), picture.shape
    assert len(seen) > 1


@pytest.mark.parametrize("kind", ["plain", "pure"])
def test_the_graph_as_it_is(labels, exported_bundle, kind):
    """By the option, and in a build without the label head."""
    options = ["plain"] if kind == "plain" else []
    with load(exported_bundle(), threads=1, mode="default") as segmenter:
        for picture in pictures([(64, 96), (101, 37)]):
            assert np.array_equal(labels(kind, exported_bundle(), picture, *options), segmenter(picture))


@pytest.mark.parametrize("rule", ["stretch", "letterbox"])
@pytest.mark.parametrize("kind", ["address", "thread"])
def test_under_sanitizers(labels, exported_bundle, kind, rule):
    with load(exported_bundle(rule), threads=1) as segmenter:
        for picture in pictures([(64, 96), (101, 37)]):
            assert np.array_equal(labels(kind, exported_bundle(rule), picture), segmenter(picture))


@pytest.mark.parametrize(("io", "precision"), [("triton", "fp32"), ("labels", "fp16"), ("labels", "int8")])
def test_other_bundles(labels, exported_bundle, io, precision):
    bundle = exported_bundle(io=io, precision=precision)
    with load(bundle, threads=1) as segmenter:
        for picture in pictures([(64, 96), (80, 90)]):
            assert np.array_equal(labels("plain", bundle, picture), segmenter(picture))


@pytest.mark.parametrize("io", ["raw", "isaac-ros"])
def test_contracts_without_a_label_map_of_bytes(run, exported_bundle, io):
    found = run("plain", "open_bundle", exported_bundle(io=io), status=1).stdout
    assert found.startswith(b"unsupported: ")
    assert b"--io labels" in found
